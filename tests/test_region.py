"""Region tokens: proposers of the library behind one protocol, their losses and matching, and what is made of them."""

import pytest
import torch
from torch import nn

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.tokenizers_mod.regions.objects import (
    Augment,
    PixelObjects,
    crop,
    flip,
    shrink_masks,
    to_fractions,
    to_pixels,
)
from generalist.tokenizers_mod.regions.proposers import Proposals, build_proposer
from generalist.tokenizers_mod.regions.proposers.base import fresh, labels_of, mask_loss
from generalist.tokenizers_mod.regions.proposers.mask2former import extent
from generalist.tokenizers_mod.regions.region import Region, choose
from generalist.tokenizers_mod.text.summary import Summary
from tests.regions import CONVNEXT, PROPOSERS, RT_DETR, objects, region

RESNET = {
    "embedding_size": 16,
    "hidden_sizes": [16, 32, 48, 64],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_features": ["stage2", "stage3", "stage4"],
}


@pytest.mark.parametrize("name", PROPOSERS)
def test_every_proposer_gives_boxes_inside_the_picture_and_a_gradient_to_each_of_its_parameters(name):
    config, backbone, masks = PROPOSERS[name]
    proposer = build_proposer(name, config, backbone, masks).train()
    found = proposer(torch.randn(2, 3, 128, 128), objects())
    assert found.features.shape == (2, 20, proposer.width) and found.objectness.shape == (2, 20)
    assert found.boxes.shape == (2, 20, 4) and found.boxes.min() >= 0 and found.boxes.max() <= 1
    assert found.last_map.shape[:2] == (2, proposer.last_width)
    assert (found.masks is not None) == masks and (not masks or found.masks.shape == (2, 20, 32, 32))
    assert [len(i) for i, _ in found.matches] == [3, 0]
    assert all(sorted(j.tolist()) == list(range(len(j))) for _, j in found.matches)
    assert found.loss.shape == (1,) and torch.isfinite(found.loss).all()
    # tokens too, as the likelihood's loss reaches them: a query vector is the proposer's to learn
    (found.loss.sum() + found.features.sum()).backward()
    idle = [n for n, p in proposer.named_parameters() if p.requires_grad and p.grad is None]
    # the last norm of the library's Swin is not on the way to its feature maps
    assert not [n for n in idle if ".swin.layernorm." not in n]
    assert all(p.ndim for p in proposer.parameters())


def test_the_default_proposers_loss_and_matching_are_the_librarys_own():
    from transformers.loss.loss_rt_detr import RTDetrForObjectDetectionLoss, RTDetrHungarianMatcher

    proposer = build_proposer("rt_detr_v2", RT_DETR, CONVNEXT, False).eval()
    pixels, true = torch.randn(2, 3, 96, 128), objects()
    found = proposer(pixels, true)
    out = proposer.net(pixels, labels=labels_of(true))
    config = proposer.net.config
    expected, _, _ = RTDetrForObjectDetectionLoss(
        out.logits,
        labels_of(true),
        "cpu",
        out.pred_boxes,
        config,
        out.intermediate_logits,
        out.intermediate_reference_points,
        enc_topk_logits=out.enc_topk_logits,
        enc_topk_bboxes=out.enc_topk_bboxes,
    )
    torch.testing.assert_close(found.loss, (expected * 3).reshape(1))
    pairs = RTDetrHungarianMatcher(config)({"logits": out.logits, "pred_boxes": out.pred_boxes}, labels_of(true))
    for (i, j), (a, b) in zip(found.matches, pairs, strict=True):
        assert i.tolist() == a.tolist() and j.tolist() == b.tolist()


def test_the_mask_loss_is_the_librarys_dice_and_a_binary_cross_entropy():
    from transformers.loss.loss_for_object_detection import dice_loss

    logits, truth = torch.randn(5, 7, 3), (torch.rand(5, 7, 3) > 0.6).float()
    expected = 5 * dice_loss(logits.flatten(1), truth.flatten(1), 1)
    for one, true in zip(logits, truth, strict=True):
        expected = expected + 5 * nn.functional.binary_cross_entropy_with_logits(one, true)
    torch.testing.assert_close(mask_loss(logits, truth), expected.reshape(1))


def test_deformable_detrs_encoder_proposals_learn():
    config, backbone, _ = PROPOSERS["deformable_detr"]
    proposer = build_proposer("deformable_detr", config, backbone, False).train()
    proposer(torch.randn(2, 3, 128, 128), objects()).loss.backward()
    head = proposer.net.class_embed[-1].weight.grad
    assert head is not None and head.abs().sum() > 0 and proposer.net.model.enc_output.weight.grad is not None


def test_an_untrained_network_starts_with_norms_of_scale_one_and_few_objects():
    proposer = build_proposer("rt_detr_v2", RT_DETR, {"model_type": "rt_detr_resnet", **RESNET}, False)
    scales = [m.weight for m in proposer.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(scales) > 20 and all((s == 1).all() for s in scales)
    assert not any("Frozen" in type(m).__name__ for m in proposer.modules())
    found = proposer.eval()(torch.randn(2, 3, 96, 128))
    assert found.objectness.sigmoid().mean() < 0.15


@pytest.mark.parametrize(
    ("backbone", "channels"),
    [
        ({"model_type": "rt_detr_resnet", **RESNET}, [32, 48, 64]),
        ({"model_type": "timm_backbone", "backbone": "resnet10t", "out_indices": [2, 3, 4]}, [128, 256, 512]),
        (
            {"model_type": "timm_backbone", "backbone": "tf_efficientnet_lite0", "out_indices": [2, 3, 4]},
            [40, 112, 320],
        ),
    ],
)
def test_with_group_norms_nothing_depends_on_what_other_tasks_showed(backbone, channels):
    """Statistics of training are not kept: a picture is seen alike in training and evaluation."""
    torch.manual_seed(0)
    built = region(backbone=backbone, config={**RT_DETR, "encoder_in_channels": channels}, norm="group").build(32)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in built.modules())
    assert sum(isinstance(m, nn.GroupNorm) for m in built.modules()) > 20
    pixels = torch.randn(2, 3, 96, 128)
    body = built.proposer.net.model.backbone
    with torch.no_grad():
        before = body.eval()(pixels, torch.ones(2, 96, 128))[-1][0]
        body.train()(pixels * 5 + 3, torch.ones(2, 96, 128))
        after = body.eval()(pixels, torch.ones(2, 96, 128))[-1][0]
    assert torch.equal(before, after) and before.std() > 0


def test_fresh_weights_leave_the_heads_that_are_named_alone():
    net = nn.ModuleDict({"head": nn.Linear(3, 5), "body": nn.Linear(3, 5), "norm": nn.BatchNorm2d(2)})
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.25)
    fresh(net, ("head",))
    assert (net["head"].weight == 0.25).all() and not (net["body"].weight == 0.25).any()
    assert (net["norm"].weight == 1).all() and (net["body"].bias == 0).all()


def test_library_weights_load_with_binary_heads_and_the_same_memory(tmp_path):
    from transformers import CONFIG_MAPPING, RTDetrV2ForObjectDetection

    from generalist.tokenizers_mod.regions.proposers.base import library_config

    network = RTDetrV2ForObjectDetection(library_config("rt_detr_v2", {"num_labels": 7, **RT_DETR}, CONVNEXT)).eval()
    network.save_pretrained(tmp_path)
    assert "rt_detr_v2" in CONFIG_MAPPING
    modality = Region(height=96, width=128, checkpoint=str(tmp_path), proposals=5)
    assert modality.config["d_model"] == 64 and modality.config["num_labels"] == 1
    module = modality.build(32).eval()
    assert module.proposer.net.config.num_labels == 1
    pixels = torch.randn(2, 3, 96, 128)
    with torch.no_grad():
        mine = module.proposer.net.model.backbone(pixels, torch.ones(2, 96, 128))
        theirs = network.model.backbone(pixels, torch.ones(2, 96, 128))
    torch.testing.assert_close(mine[-1][0], theirs[-1][0])
    key = "decoder.layers.0.self_attn.q_proj.weight"
    torch.testing.assert_close(module.proposer.net.model.state_dict()[key], network.model.state_dict()[key])


def test_a_pretrained_backbone_loads_alone(tmp_path):
    from transformers import CONFIG_MAPPING, AutoBackbone

    values = {k: v for k, v in CONVNEXT.items() if k != "model_type"}
    body = AutoBackbone.from_config(CONFIG_MAPPING["convnext"](**values))
    body.save_pretrained(tmp_path)
    net = region(backbone_weights=str(tmp_path)).build(32).proposer.net
    for key, value in body.state_dict().items():
        assert torch.equal(net.model.backbone.model.state_dict()[key], value)
    with pytest.raises(UserError, match="does not fit the backbone"):
        region(backbone={**CONVNEXT, "depths": [1, 1, 2, 1]}, backbone_weights=str(tmp_path)).build(32)


def test_weights_of_another_network_are_refused_by_name(tmp_path):
    from transformers import ConvNextConfig

    ConvNextConfig().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="holds 'convnext' weights, not 'rt_detr_v2'"):
        Region(checkpoint=str(tmp_path))


@pytest.mark.parametrize(("mode", "tokens"), [("both", 2 + 12 + 7), ("regional", 7), ("global", 2 + 12)])
def test_a_picture_gives_the_tokens_of_its_mode(mode, tokens):
    modality = region(mode=mode, proposals=7, pooled=2)
    span = modality.span(modality.read(torch.rand(3, 50, 70)))
    assert span.length == tokens and span.data["pixels"].shape == (1, 3, 96, 128)
    module = modality.build(32)
    both = {"pixels": torch.cat([span.data["pixels"]] * 2)}
    made = module.eval()(both)
    assert made.x.shape == (2 * tokens, 32)
    assert set(made.rows) == (set() if mode == "global" else {"boxes", "objectness"})


def test_tokens_of_a_batch_equal_those_of_its_pictures_one_by_one():
    module = region(masks=True).build(32).eval()
    pixels = torch.randn(3, 3, 96, 128)
    together = module({"pixels": pixels}).x.view(3, -1, 32)
    alone = torch.stack([module({"pixels": one[None]}).x for one in pixels])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)


def test_a_token_is_its_query_plus_codes_of_its_box_and_mask():
    module = region(mode="regional", masks=True).build(32).eval()
    data = {"pixels": torch.randn(1, 3, 96, 128)}
    full = module(data).x
    with torch.no_grad():
        module.box.weight.zero_()
        module.box.bias.zero_()
        module.mask.weight.zero_()
        module.mask.bias.zero_()
    bare = module(data).x
    found = module.proposer(data["pixels"])
    torch.testing.assert_close(bare, module.semantic(found.features)[0])
    assert (full - bare).abs().max() > 1e-3


def test_the_best_proposals_are_chosen_and_matches_follow_them():
    score = torch.tensor([[0.1, 0.9, 0.9, 0.5, 0.2]])
    found = Proposals(
        torch.arange(5.0).view(1, 5, 1),
        torch.rand(1, 5, 4),
        score,
        torch.zeros(1, 2, 3, 3),
        matches=[(torch.tensor([0, 2, 3]), torch.tensor([1, 0, 2]))],
    )
    chosen = choose(found, 3)
    assert chosen.features.flatten().tolist() == [1, 2, 3]  # ties by index
    assert [t.tolist() for t in chosen.matches[0]] == [[1, 2], [0, 2]]  # proposal 0 fell out with its object


def test_a_model_with_regions_saves_and_loads(tmp_path):
    modality = region(masks=True, proposals=7)
    config = GeneralistConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        modalities={"summary": Summary().settings(), "region": modality.settings()},
    )
    model = GeneralistModel(config).eval()
    model.save_pretrained(tmp_path)
    again = GeneralistModel.from_pretrained(tmp_path).eval()
    packed = pack([[Summary().span(None).ask([0]), modality.span(torch.rand(3, 96, 128))]])
    torch.testing.assert_close(again.features(packed), model.features(packed))


def test_a_wrong_setting_names_the_nearest_valid_one():
    for settings, words in (
        ({"mode": "regionel"}, "did you mean 'regional'"),
        ({"height": 100}, "height 100 is not a multiple of stride 32"),
        ({"augment": {"zom": 1.0}}, "did you mean 'zoom'"),
        ({"norm": "grup"}, "did you mean 'group'"),
        ({"norm": "group", "backbone_weights": "folder"}, "does not fit library weights"),
    ):
        with pytest.raises(UserError, match=words):
            region(**settings)
    for settings, words in (
        ({"proposer": "rt_detr_v3"}, "did you mean 'rt_detr_v2'"),
        ({"config": {"d_modell": 64}}, "did you mean 'd_model'"),
        ({"backbone": {"model_type": "convnex"}}, "did you mean 'convnext'"),
        ({"proposals": 300}, "300 proposals asked of 20 queries"),
    ):
        with pytest.raises(UserError, match=words):
            region(**settings).build(32)


# --- geometry ---


def _marked() -> tuple[torch.Tensor, PixelObjects]:
    """A black picture of 20 x 30 with one white rectangle, which is the object, and its mask."""
    image = torch.zeros(3, 20, 30)
    image[:, 4:9, 10:22] = 1
    box = torch.tensor([[10.0, 4.0, 22.0, 9.0]])
    return image, PixelObjects(box, torch.tensor([2]), image[:1] > 0)


def _white(image: torch.Tensor) -> list[float]:
    rows, cols = (image[0] > 0.5).any(1).nonzero().squeeze(1), (image[0] > 0.5).any(0).nonzero().squeeze(1)
    return [float(cols.min()), float(rows.min()), float(cols.max()) + 1, float(rows.max()) + 1]


@pytest.mark.parametrize("seed", range(8))
def test_boxes_and_masks_move_with_the_picture(seed):
    rng = torch.Generator().manual_seed(seed)
    image, found = Augment(flip_y=0.5, zoom=0.5, zoom_rate=1.0, keep=0.0, light=0.0)(*_marked(), rng)
    if not len(found.boxes):
        assert image.max() == 0
        return
    assert found.boxes[0].tolist() == _white(image)
    assert (found.masks[0] == (image[0] > 0.5)).all()


def test_a_crop_drops_objects_of_which_too_little_is_left():
    image, found = _marked()
    assert len(crop(image, found, (0, 0, 20, 14), keep=0.35)[1].boxes) == 0  # a third is left
    kept = crop(image, found, (0, 0, 20, 15), keep=0.35)[1]
    assert kept.boxes.tolist() == [[10, 4, 15, 9]]


def test_flipping_twice_changes_nothing():
    image, found = _marked()
    for horizontal in (True, False):
        back = flip(*flip(image, found, horizontal), horizontal)
        assert (
            (back[0] == image).all() and (back[1].boxes == found.boxes).all() and (back[1].masks == found.masks).all()
        )


def test_fractions_and_pixels_are_inverse():
    corners = torch.tensor([[3.0, 5.0, 23.0, 19.0], [0.0, 0.0, 70.0, 50.0]])
    torch.testing.assert_close(to_pixels(to_fractions(corners, 50, 70), 50, 70), corners)


def test_a_masks_extent_is_the_box_around_it():
    logits = torch.full((1, 2, 6, 8), -1.0)
    logits[0, 0, 1:3, 2:7] = 1
    expected = torch.tensor([[4.5 / 8, 2 / 6, 5 / 8, 2 / 6], [0, 0, 0, 0]])
    torch.testing.assert_close(extent(logits)[0], expected)


def test_shrunken_masks_keep_cells_that_are_at_least_half_full():
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[0, :2, :1] = True  # half of the first cell
    masks[0, 3, 3] = True  # a quarter of the last
    assert shrink_masks(masks, 2, 2)[0].tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize(
    ("backbone", "channels"),
    [
        ({"model_type": "timm_backbone", "backbone": "resnet10t", "out_indices": [2, 3, 4]}, [128, 256, 512]),
        (
            {"model_type": "resnet", "depths": [1] * 4, "hidden_sizes": [8, 16, 24, 32], "out_indices": [2, 3, 4]},
            [16, 24, 32],
        ),
        # built for one size of pictures, with maps whose channels are last
        (
            {"model_type": "timm_backbone", "backbone": "swin_tiny_patch4_window7_224", "out_indices": [1, 2, 3]},
            [192, 384, 768],
        ),
    ],
)
def test_backbones_of_timm_and_of_transformers_propose(backbone, channels):
    modality = region(backbone=backbone, config={**RT_DETR, "encoder_in_channels": channels}, mode="both")
    module = modality.build(32).eval()
    span = modality.span(torch.rand(3, 96, 128))
    assert module(span.data).x.shape == (span.length, 32)
