"""CLIP's text towers become causal encoders of this framework with the same features for the same text."""

import open_clip
import pytest
import torch
from open_clip.model import CLIPTextCfg, _build_text_tower

from generalist.cli import main
from generalist.convert import hf
from generalist.convert import open_clip as convert
from generalist.convert.towers import clip_text
from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.hf.model import GeneralistModel
from tests.test_convert_encoders import close, shaken

TEXTS = ["a dog", "two cats asleep on a very long red sofa, seen from above!", "x"]


def settings(name: str) -> dict:
    return dict(open_clip.get_model_config(name)["text_cfg"])


def shrunk(name: str):
    """The package's own text tower of a model, 24 wide with two layers and 9 positions."""
    small = {"width": 24, "heads": 3, "layers": 2, "context_length": 9}
    quick = open_clip.get_model_config(name).get("quick_gelu", False)
    return shaken(_build_text_tower(7, CLIPTextCfg(**settings(name) | small), quick))


def features(model: GeneralistModel, texts: list[str]) -> torch.Tensor:
    summary, text = model.modalities["summary"], model.modalities["text"]
    return model.features(pack([[summary.span(None).ask([0]), text.span(text.read(t))] for t in texts]))


def signature(name: str) -> str:
    sizes = ("width", "heads", "layers")
    own = {k: str(v) for k, v in settings(name).items() if k not in sizes}
    return f"{sorted(own.items())} {open_clip.get_model_config(name).get('quick_gelu', False)}"


CONVERTED = [name for name in open_clip.list_models() if not clip_text.why_not(settings(name))]
FAMILIES = list({signature(name): name for name in CONVERTED}.values())


def test_all_text_towers_of_the_package_convert_or_are_refused_with_a_reason():
    reasons = {name: clip_text.why_not(settings(name)) for name in open_clip.list_models()}
    if len(reasons) == 144:
        assert len(CONVERTED) == 85
    assert reasons["ViT-B-16-SigLIP"] == reasons["MobileCLIP-S1"] == "it attends to its padding"
    assert reasons["coca_ViT-B-32"] == "it reads a class token behind its padding"
    assert reasons["roberta-ViT-B-32"].startswith("it is the Hugging Face model roberta-base; convert its folder")
    assert reasons["ViT-H-14-worldwide"] == "its words are those of the tokenizer 'facebook/xlm-v-base'"
    assert reasons["RN50"] is None and reasons["EVA02-B-16"] is None  # whatever stands beside it


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_a_text_tower_of_every_family_gives_its_features(name):
    tower = shrunk(name)
    model, processor, report = convert.from_text(tower)
    assert report.missing == report.unexpected == [] and "start as its mean word" in report.notes[0]
    ids = open_clip.SimpleTokenizer(context_length=9)(TEXTS)
    close(features(model, TEXTS), tower(ids))  # the second text is cut to nine tokens
    text = processor.built["text"]
    assert text.causal and text.ids(TEXTS[1]).tolist() == ids[1, 1:].tolist()


@torch.no_grad()
def test_padded_clients_get_the_same_text_features_after_a_round_trip(tmp_path):
    tower = shrunk("ViT-B-32")
    model, processor, _ = convert.from_text(tower)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model = GeneralistModel.from_pretrained(tmp_path).eval()
    tensors = processor(text=TEXTS, return_tensors="pt")
    found = model.get_text_features(tensors["input_ids"], tensors["attention_mask"]).pooler_output
    close(found, tower(open_clip.SimpleTokenizer(context_length=9)(TEXTS)))


@torch.no_grad()
def test_words_see_only_the_words_before_them():
    model, _, _ = convert.from_text(shrunk("ViT-B-32"))
    summary, text = model.modalities["summary"].span(None), model.modalities["text"]
    one, two = (model(pack([[summary, text.span(t)]])) for t in ("a dog runs", "a dog sits"))
    torch.testing.assert_close(one[:3], two[:3])
    assert not torch.allclose(one[3:], two[3:])


@torch.no_grad()
def test_a_named_text_tower_converts_by_command_and_from_a_file(tmp_path):
    package = open_clip.create_model("ViT-S-32-alt").eval()
    torch.save(package.state_dict(), tmp_path / "w.pt")
    arguments = ["convert", "open-clip", f"ViT-S-32-alt:{tmp_path / 'w.pt'}", "--out", str(tmp_path / "m")]
    assert main([*arguments, "--tower", "text"]) == 0
    model = GeneralistModel.from_pretrained(tmp_path / "m").eval()
    close(features(model, TEXTS), package.encode_text(open_clip.get_tokenizer("ViT-S-32-alt")(TEXTS)))
    assert main([*arguments, "--tower", "texts"]) == 2
    assert main(["convert", "open-clip", "ViT-B-16-SigLIP", "--tower", "text", "--out", str(tmp_path / "n")]) == 2
    with pytest.raises(UserError, match=r"does not fit RN50: it (lacks|has) "):
        convert.text_tower(f"RN50:{tmp_path / 'w.pt'}")


@torch.no_grad()
def test_a_hugging_face_clip_gives_its_text_features(tmp_path):
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
    words = {"vocab_size": 49408, "max_position_embeddings": 9, "eos_token_id": 49407, "bos_token_id": 49406}
    config = CLIPConfig(vision_config=sizes | {"image_size": 32}, text_config=sizes | words, projection_dim=7)
    original = shaken(CLIPModel(config))
    original.save_pretrained(tmp_path)
    model, _, report = hf.build(tmp_path, "text")
    assert report.missing == [] and all("text_model" not in name for name in report.unused)
    ids = open_clip.SimpleTokenizer(context_length=9)(TEXTS)
    found = original.get_text_features(ids)
    close(features(model, TEXTS), getattr(found, "pooler_output", found))
    with pytest.raises(UserError, match="CLIP's tokenizer 49408"):
        clip_text.stem(torch.zeros(99, 12), torch.zeros(9, 12))
