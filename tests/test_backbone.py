"""Pictures through other libraries' networks: published numbers, their own pixels, frozen, LoRA, saved models."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import tiny

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.recipe.keys import override
from generalist.tokenizers_mod.pretrained.backbone import Backbone
from generalist.train.prepare import prepare
from tests.references import HERE

# system -> timm's name, the size of the pictures, timm's names of the golden's settings
SYSTEMS = {
    "swin": (
        "swin_tiny_patch4_window7_224",
        64,
        {"embed_dim": 8, "depths": [2, 2, 2], "num_heads": [2, 2, 4], "window_size": 4, "mlp_ratio": 2.0},
    ),
    "convnext": ("convnext_tiny", [64, 96], {"depths": [1, 1, 2, 1], "dims": [8, 12, 16, 24]}),
    "poolformer": ("poolformer_s12", [64, 96], {"depths": [1, 1, 2, 1], "dims": [8, 12, 16, 24]}),
    "tnt": (
        "tnt_s_patch16_224",
        32,
        {"patch_size": 8, "embed_dim": 24, "inner_dim": 8, "depth": 2, "num_heads_outer": 3, "num_heads_inner": 2}
        | {"first_stride": 4, "qkv_bias": False},
    ),
}
SMALL = {"backbone": "test_vit", "size": 64}
DINO = {"model_type": "dinov2_with_registers", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SIGLIP = {"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
SIGLIP |= {"num_attention_heads": 2, "patch_size": 16}
CLIP = {"model_type": "open_clip", "name": "ViT-B-32", "layers": 2, "width": 64, "image_size": 64}


def golden(name: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What went in and came out, and the weights under the authors' names."""
    with safe_open(HERE / "backbones" / f"{name}_tiny.safetensors", "pt") as file:
        every = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    weights = {k.removeprefix("sd."): v for k, v in every.items() if k.startswith("sd.")}
    return {k: v for k, v in every.items() if not k.startswith("sd.")}, weights


@pytest.mark.parametrize("name", SYSTEMS)
def test_published_systems_give_their_authors_numbers(name, tmp_path):
    timm_name, size, settings = SYSTEMS[name]
    io, weights = golden(name)
    save_file(weights, tmp_path / "official.safetensors")
    backbone = {"model_type": "timm_backbone", "backbone": timm_name, **settings}
    maps = "last" if name == "poolformer" else "embedding"
    modality = Backbone(backbone=backbone, size=size, maps=maps, weights=str(tmp_path / "official.safetensors"))
    with torch.no_grad():
        found = modality.build(16).eval().encoder(io["input"])[0]
    if name == "poolformer":  # timm pools before it normalises, the authors after
        normed = torch.nn.functional.group_norm(found, 1, weights["norm.weight"], weights["norm.bias"])
        logits = torch.nn.functional.linear(normed.mean((2, 3)), weights["head.weight"], weights["head.bias"])
        torch.testing.assert_close(logits, io["output"], atol=1e-5, rtol=1e-4)
    else:
        torch.testing.assert_close(found[..., 0, 0], io["features"], atol=1e-5, rtol=1e-4)


def test_channels_last_maps_are_turned_and_every_scale_has_its_cells():
    modality = Backbone(backbone="swin_tiny_patch4_window7_224", size=[64, 96], maps="all")
    assert modality.settings()["shapes"] == [[16, 24, 96], [8, 12, 192], [4, 6, 384], [2, 3, 768]]
    span = modality.span(torch.rand(3, 30, 50))
    assert span.length == 16 * 24 + 8 * 12 + 4 * 6 + 2 * 3 and modality.build(16)(span.data).shape == (span.length, 16)


@pytest.mark.parametrize(
    ("backbone", "cells"),
    [(DINO | {"patch_size": 8, "image_size": 64}, 64), (SIGLIP | {"image_size": 64}, 16), (CLIP, 4)],
)
def test_other_libraries_networks_give_a_map_and_a_vector(backbone, cells):
    assert Backbone(backbone=backbone, size=64).span(torch.rand(3, 30, 50)).length == cells
    one = Backbone(backbone=backbone, size=64, maps="embedding")
    assert one.build(16)(one.span(torch.rand(3, 30, 50)).data).shape == (1, 16)


def test_a_map_is_the_librarys_own_hidden_states():
    from transformers import AutoModel

    modality = Backbone(backbone=SIGLIP | {"image_size": 64}, size=64)
    encoder = modality.build(16).eval().encoder
    net = AutoModel.from_config(encoder.net.config).eval()
    net.load_state_dict(encoder.net.state_dict())
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        own, found = net(pixels).last_hidden_state, encoder(pixels)[0]
    assert torch.equal(found, own.transpose(1, 2).unflatten(2, (4, 4)))


@pytest.mark.parametrize("shape", [(50, 80), (300, 200), (64, 64)])
def test_pixels_are_the_librarys_own(shape):
    import open_clip
    import timm
    from timm.data import create_transform, resolve_model_data_config

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))
    modality = Backbone(backbone="tf_efficientnet_lite0")
    config = resolve_model_data_config(timm.create_model("tf_efficientnet_lite0"))
    assert torch.equal(modality.span(modality.read(picture)).data["pixels"][0], create_transform(**config)(picture))
    modality = Backbone(backbone="open_clip:RN50")
    own = open_clip.image_transform(224, is_train=False)
    assert torch.equal(modality.span(modality.read(picture)).data["pixels"][0], own(picture))


def test_pixels_of_a_folder_are_its_processors(tmp_path):
    from transformers import AutoModel, SiglipImageProcessor, SiglipVisionConfig

    config = SiglipVisionConfig(**{k: v for k, v in SIGLIP.items() if k != "model_type"}, image_size=48)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    processor = SiglipImageProcessor(size={"height": 48, "width": 48}, image_mean=[0.1] * 3, image_std=[0.7] * 3)
    processor.save_pretrained(tmp_path)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))
    modality = Backbone.from_settings(json.loads(json.dumps(Backbone(backbone=str(tmp_path)).settings())))
    own = processor(images=picture, return_tensors="pt")["pixel_values"]
    assert torch.equal(modality.span(modality.read(picture)).data["pixels"], own)
    net = AutoModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        found = modality.build(16).eval().encoder(own)[0]
        torch.testing.assert_close(found.flatten(2).transpose(1, 2), net(own).last_hidden_state, atol=1e-5, rtol=1e-4)


def test_pictures_keep_their_aspect_where_it_is_asked_for():
    modality = Backbone(**SMALL, aspect=True, stride=16)
    module = modality.build(16).eval()
    spans = [modality.span(torch.rand(3, *size)) for size in ((40, 80), (64, 64), (20, 40))]
    assert [s.grid for s in spans] == [(2, 4), (4, 4), (2, 4)]
    together = module({k: torch.cat([s.data[k] for s in spans]) for k in spans[0].data})
    alone = torch.cat([module(s.data) for s in spans])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    values = [torch.rand(3, 40, 80), torch.rand(3, 64, 64)]
    data, real = modality.padded(modality.tensors(values))
    assert real is not None and real.sum(1).tolist() == [8, 16]
    rows = module(data)[real.reshape(-1)]
    torch.testing.assert_close(rows, torch.cat([module(modality.span(v).data) for v in values]), atol=1e-5, rtol=1e-4)


def test_what_learns_is_what_was_asked_for():
    learns = lambda m: {n for n, p in m.encoder.named_parameters() if p.requires_grad}  # noqa: E731
    still = Backbone(backbone="test_efficientnet", size=64, frozen=True).build(16).train()
    assert not learns(still)
    before = {k: v.clone() for k, v in still.encoder.state_dict().items()}
    still({"pixels": torch.randn(4, 3, 64, 64)}).sum().backward()
    assert all(torch.equal(v, before[k]) for k, v in still.encoder.state_dict().items())  # statistics too
    tuned = Backbone(backbone="test_efficientnet", size=64).build(16)
    assert learns(tuned) == {n for n, _ in tuned.encoder.named_parameters()}
    for name in ("test_vit", "test_efficientnet"):
        changed = learns(Backbone(backbone=name, size=64, lora=2).build(16))
        assert changed and all("lora_" in name for name in changed)


def test_a_loaded_model_goes_on_learning_what_it_learnt(tmp_path):
    settings = {**Backbone(**SMALL, lora=2).settings(), "class": f"{Backbone.__module__}:Backbone"}
    model = GeneralistModel(
        GeneralistConfig(width=16, layers=1, heads=2, hidden=16, modalities={"summary": {}, "image": settings})
    )
    model.save_pretrained(tmp_path)
    again = dict(GeneralistModel.from_pretrained(tmp_path).named_parameters())
    assert all(again[name].requires_grad == value.requires_grad for name, value in model.named_parameters())


def test_a_saved_model_stands_alone(tmp_path):
    modality = Backbone(**SMALL, weights=str(tmp_path / "gone.safetensors"))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        source = Backbone(**SMALL).build(16).encoder.net
    save_file(source.state_dict(), tmp_path / "gone.safetensors")
    settings = {**modality.settings(), "class": "generalist.tokenizers_mod.pretrained.backbone:Backbone"}
    model = GeneralistModel(
        GeneralistConfig(width=16, layers=1, heads=2, hidden=16, modalities={"summary": {}, "image": settings})
    ).eval()
    own = model.tokenizers["image"].encoder.net.state_dict()
    assert all(torch.equal(v, own[k]) for k, v in source.state_dict().items())
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "gone.safetensors").unlink()
    again = GeneralistModel.from_pretrained(tmp_path / "model").eval()
    packed = pack([[modality.span(torch.rand(3, 30, 40)).ask([0])]])
    torch.testing.assert_close(model.features(packed), again.features(packed), atol=1e-6, rtol=1e-6)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


def test_random_weights_are_said():
    assert "RANDOM" in Backbone(**SMALL).told()[0]
    assert "RANDOM" not in Backbone(backbone="zoo:efficientnet_lite0", weights="zoo:efficientnet_lite0").told()[0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "give backbone="),
        ({"backbone": "convnext_tyny"}, "did you mean 'convnext_tiny'"),
        ({"backbone": "open_clip:ViT-B-33"}, "open_clip has no 'ViT-B-33'"),
        ({"backbone": {"model_type": "dinov22"}}, "did you mean 'dinov2"),
        ({"backbone": "zoo:minilm"}, "no network of pictures but of text"),
        ({"backbone": "zoo:minilmm"}, "did you mean 'minilm'"),
        ({"backbone": "test_vit", "maps": "lst"}, "did you mean 'last'"),
        ({"backbone": "test_vit", "frozen": True, "lora": 4}, "do not go together"),
        ({"backbone": "crossvit_tiny_240", "size": 128}, "128 x 128"),
        ({"backbone": "test_vit", "weights": "nowhere"}, "no weights at 'nowhere'"),
        ({"backbone": "test_convnext", "size": 64, "weights": "zoo:minilm"}, "another architecture"),
    ],
)
def test_a_mistake_is_one_line(settings, said):
    with pytest.raises(UserError) as told:
        Backbone(**settings).build(16)
    assert said in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("backbone", '{"model_type": "stages", "kind": "rmtt"}', "backbone: unknown kind 'rmtt'; did you mean 'rmt'"),
        ("backbone", "zoo:minilmm", "the zoo has no 'minilmm'"),
        ("size", "100", "backbone: stages refuses an input of 100 x 100"),
    ],
)
def test_a_recipe_whose_network_cannot_work_is_refused_before_any_sample_is_read(key, value, said):
    made = tiny()
    svt = 'modalities.image.backbone={"model_type": "stages", "kind": "svt"}'
    override(made, "modalities.image.class=backbone", svt, f"modalities.image.{key}={value}")
    with pytest.raises(UserError) as told:
        prepare(made)
    assert str(told.value).startswith(said) and "\n" not in str(told.value)


def test_weights_of_another_network_name_the_first_tensor(tmp_path):
    state = Backbone(backbone="test_vit", size=64).build(16).encoder.net.state_dict()
    name = "blocks.0.attn.qkv.weight"
    save_file({**state, name: torch.zeros(3, 3)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=rf"{name} is \(3, 3\), the network's"):
        Backbone(**SMALL, weights=str(tmp_path / "w.safetensors")).build(16)


def test_a_batch_norm_of_one_cell_says_what_it_needs():
    module = Backbone(backbone="test_efficientnet", size=16).build(16).train()
    with pytest.raises(UserError, match="one sample whose map is one cell; take more samples"):
        module({"pixels": torch.rand(1, 3, 16, 16)})
    module({"pixels": torch.rand(2, 3, 16, 16)})


def test_pickles_in_a_folder_and_the_hub_without_a_network_are_refused_at_once(tmp_path, monkeypatch):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"a pickle.*save_pretrained"):
        Backbone(**SMALL, weights=str(tmp_path)).build(16)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE is set"):
        Backbone(backbone="hub:nobody/nothing").settings()
