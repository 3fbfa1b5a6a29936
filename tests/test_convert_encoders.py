"""Encoders of open_clip and Hugging Face become models of this framework with the same numbers for the same input."""

import json

import pytest
import torch
from torch import nn

from generalist.convert import hf, open_clip
from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.hf.model import GeneralistModel
from generalist.tokenizers_mod.text.text import text_span

SIZES = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}


def shaken(module: nn.Module) -> nn.Module:
    """Every parameter drawn anew, so that each one matters."""
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(std=0.3)
    return module.eval()


def patches(model: GeneralistModel, pixels: torch.Tensor) -> list:
    return [model.modalities["image"].patches(x[None]) for x in pixels]


def features(model: GeneralistModel, pixels: torch.Tensor) -> torch.Tensor:
    """f of the summary in front of the pixels: Float[B D]."""
    summary = model.modalities["summary"].span(None).ask([0])
    return model.features(pack([[summary, span] for span in patches(model, pixels)]))


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-5


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ls_init_value": 0.1},
        {"pool_type": "avg", "no_ln_pre": True, "final_ln_after_pool": True},
    ],
    ids=["plain", "layer scale", "mean of the tokens"],
)
@torch.no_grad()
def test_an_open_clip_tower_gives_its_features(options):
    from open_clip.transformer import QuickGELU, VisionTransformer

    act = QuickGELU if not options else nn.GELU
    visual = shaken(VisionTransformer(48, 16, 12, 2, 3, 2.0, output_dim=7, act_layer=act, **options))
    model, _, report = open_clip.from_visual(visual)
    assert report.missing == report.unexpected == []
    pixels = torch.randn(5, 3, 48, 48)
    close(features(model, pixels), visual(pixels))


@torch.no_grad()
def test_a_named_open_clip_model_converts_by_command_and_from_a_file(tmp_path):
    import open_clip as package

    from generalist.cli import main

    visual = package.create_model("ViT-S-32-alt").eval()
    torch.save({f"visual.{k}": v for k, v in visual.visual.state_dict().items()}, tmp_path / "w.pt")
    out = tmp_path / "m"
    assert (
        main(["convert", "open-clip", f"ViT-S-32-alt:{tmp_path / 'w.pt'}", "--out", str(out), "--tower", "image"]) == 0
    )
    model = GeneralistModel.from_pretrained(out).eval()
    pixels = torch.randn(2, 3, 224, 224)
    close(features(model, pixels), visual.visual(pixels))
    assert main(["convert", "open-clip", "ViT-S-32-al", "--out", str(out)]) == 2
    assert main(["convert", "open-clip", "RN50", "--out", str(out), "--tower", "image"]) == 2
    assert main(["convert", "open-clip", "ViT-S-32-alt:nowhere.pt", "--out", str(out)]) == 2


@torch.no_grad()
def test_a_hugging_face_clip_gives_its_image_features(tmp_path):
    from transformers import CLIPConfig, CLIPModel

    vision = SIZES | {"image_size": 48, "patch_size": 16}
    config = CLIPConfig(vision_config=vision, text_config=SIZES | {"vocab_size": 99}, projection_dim=7)
    original = shaken(CLIPModel(config))
    original.save_pretrained(tmp_path)
    model, _, report = hf.build(tmp_path)
    pixels = torch.randn(3, 3, 48, 48)
    found = original.get_image_features(pixels)
    close(features(model, pixels), getattr(found, "pooler_output", found))
    assert any(name.startswith("text_model.") for name in report.unused)
    assert not any(name.startswith("vision_model.") for name in report.unused)


@torch.no_grad()
def test_a_hugging_face_vit_gives_its_class_token(tmp_path):
    from transformers import ViTConfig, ViTModel

    original = shaken(ViTModel(ViTConfig(**SIZES, image_size=32, patch_size=16, layer_norm_eps=1e-6)))
    original.save_pretrained(tmp_path)
    model, _, report = hf.build(tmp_path)
    pixels = torch.randn(3, 3, 32, 32)
    close(features(model, pixels), original(pixels).last_hidden_state[:, 0])
    assert report.unused == ["pooler.dense.bias", "pooler.dense.weight"]


@torch.no_grad()
def test_a_hugging_face_siglip_gives_its_pooled_features_and_its_tokens(tmp_path):
    from transformers import SiglipVisionConfig, SiglipVisionModel

    original = shaken(SiglipVisionModel(SiglipVisionConfig(**SIZES, image_size=48, patch_size=16)))
    original.save_pretrained(tmp_path)
    model, _, report = hf.build(tmp_path)
    pixels = torch.randn(2, 3, 48, 48)
    theirs = original(pixels)
    close(features(model, pixels), theirs.pooler_output)
    close(model(pack([[span] for span in patches(model, pixels)])), theirs.last_hidden_state.flatten(0, 1))
    assert report.unused == []


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@torch.no_grad()
def test_a_hugging_face_text_encoder_gives_its_tokens(tmp_path, kind):
    import transformers

    name = {"bert": "Bert", "roberta": "Roberta"}[kind]
    more = {"pad_token_id": 1} if kind == "roberta" else {}
    config = getattr(transformers, f"{name}Config")(**SIZES, vocab_size=130, max_position_embeddings=20, **more)
    original = shaken(getattr(transformers, f"{name}Model")(config))
    original.save_pretrained(tmp_path)
    model, processor, report = hf.build(tmp_path)
    assert "ids in decimal digits" in report.notes[0]
    start, end = (101, 102) if kind == "bert" else (0, 2)
    words = [7, 11, 13, 17]
    assert processor.built["text"].ids("7 11 13 17").tolist() == [*words, end]
    ours = model(pack([[model.modalities["summary"].span(None), text_span(torch.tensor([*words, end]))]]))
    close(ours, original(torch.tensor([[start, *words, end]])).last_hidden_state[0])
    assert all("pooler" in name for name in report.unused)


def test_a_folder_that_is_none_or_of_another_kind_ends_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"no readable config\.json"):
        hf.build(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bertt"}))
    with pytest.raises(UserError, match="did you mean 'bert'"):
        hf.build(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        hf.build(tmp_path)


@torch.no_grad()
def test_an_encoder_alone_carries_a_passport_that_says_it_is_equal(tmp_path):
    from transformers import SiglipVisionConfig, SiglipVisionModel, ViTConfig, ViTModel

    from generalist.convert.parity import read

    for name, original in (
        ("vit", ViTModel(ViTConfig(**SIZES, image_size=32, patch_size=16))),
        ("siglip", SiglipVisionModel(SiglipVisionConfig(**SIZES, image_size=48, patch_size=16))),
    ):
        shaken(original).save_pretrained(tmp_path / name)
        hf.convert(tmp_path / name, tmp_path / f"{name}_out")
        passport = read(tmp_path / f"{name}_out")
        assert passport.equal and passport.compared[0].what == "features of 2 pictures", passport
