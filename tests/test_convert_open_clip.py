"""Every image tower of the installed open_clip: the ViTs give its features, the others are refused with a reason.

Towers are built by the package's own builder from the configuration of its own list, shrunk where they are compared.
"""

import functools
import re

import open_clip
import pytest
import torch
from open_clip import timm_model
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from torch import nn

from generalist.convert import open_clip as convert
from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.hf.model import GeneralistModel
from generalist.tokenizers_mod.text.summary import Summary
from tests.test_convert_encoders import close, features, patches, shaken

NAMES = open_clip.list_models()
# as many towers as convert, of as many as this version of the package lists
CONVERTED, LISTED = 99, 144
# beginnings of names of towers that are no ViT; one model of them is: MobileCLIP2-L-14
REFUSED = ("RN", "convnext", "swin", "MobileCLIP", "ViTamin")


def settings(name: str) -> dict:
    """What the package says of a model's image tower."""
    return dict(open_clip.get_model_config(name)["vision_cfg"])


def signature(name: str) -> str:
    """Two towers of one signature differ in size only."""
    found = settings(name)
    for size in ("image_size", "width", "layers", "head_width", "patch_size", "mlp_ratio", "timm_drop_path"):
        if not isinstance(found.get(size), list):
            found.pop(size, None)
    if "timm_model_name" in found:  # ..._patch16_siglip_256 and ..._patch16_siglip_384
        found["timm_model_name"] = re.sub(r"_\d+$", "", found["timm_model_name"])
    return (
        f"{sorted((k, str(v)) for k, v in found.items())} {open_clip.get_model_config(name).get('quick_gelu', False)}"
    )


def build(name: str, **shrunk) -> nn.Module:
    config = open_clip.get_model_config(name)
    vision = CLIPVisionCfg(**settings(name) | shrunk)
    return _build_vision_tower(config["embed_dim"], vision, config.get("quick_gelu", False))


def shrunk(name: str, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The tower with 24 channels, two layers and 2 x 2 patches."""
    if "timm_model_name" not in settings(name):
        side = 2 * settings(name).get("patch_size", 16)
        return build(name, width=24, layers=2, head_width=8, image_size=side)
    smaller = functools.partial(
        timm_model.timm.create_model, embed_dim=24, depth=2, num_heads=3, img_size=28, patch_size=14, mlp_ratio=1.7
    )
    with monkeypatch.context() as patched:
        patched.setattr(timm_model.timm, "create_model", smaller)
        return build(name)


@functools.cache
def reason(signature_: str, name: str) -> str | None:
    with torch.device("meta"):  # nothing is allocated
        vision = settings(name)
        return convert.why_not(build(name, **({"layers": 1} if isinstance(vision.get("layers"), int) else {})))


def reasons() -> dict[str, str | None]:
    return {name: reason(key, first[key]) for name in NAMES if (key := signature(name)) in first}


first: dict[str, str] = {}
for _name in NAMES:
    first.setdefault(signature(_name), _name)


def test_the_whole_list_of_the_package_converts_or_is_refused_with_a_reason():
    found = reasons()
    assert len(found) == len(NAMES)
    refused = {name: why for name, why in found.items() if why}
    assert all("siglip" not in name.lower() for name in refused)
    assert all(name.startswith(REFUSED) for name in refused), refused
    if len(NAMES) == LISTED:
        assert len(NAMES) - len(refused) == CONVERTED
    for name, words in {
        "RN50": "a ModifiedResNet is no ViT",
        "convnext_base": "a ConvNeXt is no ViT",
        "MobileCLIP-B": "it has a convolutional stem in front of the ViT",
        "ViTamin-B": "it has a convolutional stem in front of the ViT",
    }.items():
        assert refused[name] == words


@pytest.mark.parametrize("name", [n for n in first.values() if not n.startswith(REFUSED)] + ["MobileCLIP2-L-14"])
@torch.no_grad()
def test_a_tower_of_every_family_gives_the_features_of_the_package(name, monkeypatch):
    visual = shaken(shrunk(name, monkeypatch))
    model, processor, report = convert.from_visual(visual)
    assert report.missing == report.unexpected == []
    side = processor.built["image"].size
    pixels = torch.randn(3, 3, side, side)
    found = visual(pixels)
    close(features(model, pixels), found[0] if isinstance(found, tuple) else found)


@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP", "coca_ViT-B-32", "ViT-H-14-CLIPA", "vit_medium_patch16_gap_256"])
@torch.no_grad()
def test_padded_clients_get_the_same_features_whatever_is_read_at_the_summary(name, monkeypatch, tmp_path):
    visual = shaken(shrunk(name, monkeypatch))
    model, _, _ = convert.from_visual(visual)
    model.save_pretrained(tmp_path)
    model = GeneralistModel.from_pretrained(tmp_path).eval()
    side = model.modalities["image"].size
    pixels = torch.randn(2, 3, side, side)
    found = visual(pixels)
    close(model.get_image_features(pixels).pooler_output, found[0] if isinstance(found, tuple) else found)


@torch.no_grad()
def test_a_summary_that_no_patch_sees_leaves_the_patches_as_they_are(monkeypatch):
    model, _, _ = convert.from_visual(shaken(shrunk("ViT-B-16-SigLIP", monkeypatch)))
    assert model.modalities["summary"] == Summary(hidden=True)
    spans = patches(model, torch.randn(2, 3, 28, 28))
    summary = model.modalities["summary"].span(None)
    with_summary = model(pack([[summary, span] for span in spans])).view(2, 5, 24)[:, 1:]
    close(with_summary.flatten(0, 1), model(pack([[span] for span in spans])))


def test_towers_that_are_no_plain_vit_end_in_one_line(monkeypatch):
    for name, words in (("RN50", "a ModifiedResNet is no ViT"), ("ViTamin-S", "convolutional stem")):
        with torch.device("meta"):
            visual = build(name)
        with pytest.raises(UserError, match=words):
            convert.from_visual(visual)
