"""A plain vision transformer under ViTDet's simple feature pyramid proposes regions and learns."""

import pytest
import torch

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.regions.proposers.pyramid import SimplePyramid, SimplePyramidConfig
from tests.regions import RT_DETR, objects, region

VITDET = {
    "model_type": "vitdet",
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 128,
    "pretrain_image_size": 64,
    "patch_size": 16,
    "window_size": 3,
    "window_block_indices": [0],
}
TIMM = {"model_type": "timm_backbone", "backbone": "test_vit", "out_indices": [-1]}
DINO = {
    "model_type": "dinov2",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 112,
    "patch_size": 16,
    "out_features": ["stage2"],
}
CONFIG = {**RT_DETR, "encoder_in_channels": [40, 40, 40]}


def pyramid(body: dict, scales: tuple[float, ...] = (2, 1, 0.5)) -> dict:
    return {"model_type": "simple_pyramid", "body": body, "channels": 40, "scales": list(scales)}


@pytest.mark.parametrize("body", [VITDET, DINO, TIMM], ids=lambda b: b["model_type"])
def test_every_scale_is_made_of_the_last_map(body):
    torch.manual_seed(0)
    net = SimplePyramid(SimplePyramidConfig(body, channels=40, scales=[4, 2, 1, 0.5])).eval()
    with torch.no_grad():
        last = net.body(torch.randn(2, 3, 96, 160)).feature_maps[-1]
        maps = net(torch.randn(2, 3, 96, 160)).feature_maps
    assert last.shape == (2, net.body.channels[-1], 6, 10)
    assert [tuple(m.shape) for m in maps] == [(2, 40, 24, 40), (2, 40, 12, 20), (2, 40, 6, 10), (2, 40, 3, 5)]
    assert net.channels == [40] * 4


def test_a_plain_transformer_proposes_and_every_parameter_learns():
    torch.manual_seed(0)
    proposer = region(backbone=pyramid(VITDET), config=CONFIG).build(32).train().proposer
    assert proposer.last_width == 40
    optimizer = torch.optim.AdamW(proposer.parameters(), 2e-3)
    pixels, true = torch.randn(2, 3, 96, 128), objects()
    losses = []
    for _ in range(16):
        found = proposer(pixels, true)
        losses.append(found.loss.item())
        optimizer.zero_grad()
        (found.loss.sum() + found.features.sum() * 0).backward()
        torch.nn.utils.clip_grad_norm_(proposer.parameters(), 1.0)
        optimizer.step()
    idle = [n for n, p in proposer.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle and sum(losses[-4:]) < 0.9 * sum(losses[:4])


def test_weights_of_the_transformer_alone_load_under_the_pyramid(tmp_path):
    from transformers import CONFIG_MAPPING, AutoBackbone

    settings = {k: v for k, v in VITDET.items() if k != "model_type"}
    body = AutoBackbone.from_config(CONFIG_MAPPING["vitdet"](**settings))
    body.save_pretrained(tmp_path)
    built = region(backbone=pyramid(VITDET), config=CONFIG, backbone_weights=str(tmp_path)).build(32)
    mine = built.proposer.net.model.backbone.model.body.state_dict()
    assert len(mine) > 20 and all(torch.equal(mine[k], v) for k, v in body.state_dict().items())


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        (pyramid(VITDET, (3, 1)), r"scales \[3, 1\]; choose of \[4, 2, 1, 0.5\]"),
        (pyramid(VITDET, (0.5, 1)), "finest first"),
        (pyramid({"model_type": "vitdett"}), "did you mean 'vitdet'"),
    ],
)
def test_a_wrong_pyramid_is_refused(backbone, words):
    with pytest.raises(UserError, match=words):
        region(backbone=backbone, config=CONFIG).build(32)
