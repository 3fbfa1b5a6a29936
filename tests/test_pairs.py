"""Contrastive models whole: their logits, their pipelines' probabilities, their tokenizers' ids, out of one folder."""

import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from generalist.cli import main
from generalist.convert import hf
from generalist.convert import open_clip as convert
from generalist.data.base.errors import UserError
from generalist.hf.saved import read_model
from tests import pair_folders

NAMES = ["a cat", "two dogs, a photo", "sound of a cat!"]
RNG = np.random.default_rng(0)
PICTURES = [Image.fromarray(RNG.integers(0, 255, (50, 70, 3), dtype=np.uint8)) for _ in range(2)]
WAVES = [RNG.normal(size=n).astype(np.float32) for n in (6000, 9000)]
CLIPS = [RNG.integers(0, 255, (n, 40, 50, 3), dtype=np.uint8) for n in (5, 2)]
RAW = {"clap": {"audio": [(wave, 8000) for wave in WAVES]}, "xclip": {"video": CLIPS}}
SMALL = {"width": 16, "layers": 1, "head_width": 8, "image_size": 32, "patch_size": 16, "attn_pooler_heads": 2}
RESNET = {"width": 8, "layers": [1, 1, 1, 1], "image_size": 32}
WORDS = {"width": 16, "layers": 1, "heads": 2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{type: (the library's folder, ours, the library's model)}, each made once."""
    made = {}

    def of(kind):
        if kind not in made:
            source, out = (tmp_path_factory.mktemp(f"{kind}_{end}") for end in ("in", "out"))
            model = pair_folders.build(kind, source)
            hf.convert(source, out)
            made[kind] = source, out, model
        return made[kind]

    return of


def original_logits(kind, source, model):
    """The library's own way from raw inputs to logits."""
    from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source)
    padding = {"padding": "max_length", "max_length": 64} if kind.startswith("siglip") else {"padding": True}
    words = tokenizer(NAMES, return_tensors="pt", truncation=True, **padding)
    words.pop("token_type_ids", None)
    if kind == "clap":
        extract = AutoFeatureExtractor.from_pretrained(source)
        sounds = [extract(wave, sampling_rate=8000, return_tensors="pt")["input_features"] for wave in WAVES]
        return model(input_features=torch.cat(sounds), **words).logits_per_audio
    process = AutoImageProcessor.from_pretrained(source)
    if kind == "xclip":
        places = [np.linspace(0, len(clip) - 1, 3).round().astype(int) for clip in CLIPS]
        shown = [[Image.fromarray(clip[i]) for i in own] for clip, own in zip(CLIPS, places, strict=True)]
        pixels = torch.stack([process(frames, return_tensors="pt")["pixel_values"] for frames in shown])
        video = torch.nn.functional.normalize(model.get_video_features(pixels).pooler_output, dim=-1)
        text = torch.nn.functional.normalize(model.get_text_features(**words).pooler_output, dim=-1)
        return video @ text.T * model.logit_scale.exp()
    return model(**process(PICTURES, return_tensors="pt"), **words).logits_per_image


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2", "clap", "xclip"])
@torch.no_grad()
def test_a_folder_of_transformers_gives_the_logits_of_the_library(kind, folders, monkeypatch):
    source, out, model = folders(kind)
    if kind == "clap":  # what is longer than a second is cut at random: the same cut for both
        monkeypatch.setattr(np.random, "randint", lambda low, high: (low + high) // 2)
    expected = original_logits(kind, source, model)
    ours, processor = read_model(out)
    raw = RAW.get(kind, {"image": PICTURES})
    found = ours(**processor(**raw, text=NAMES, return_tensors="pt")).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    packed = ours.log_likelihood(processor(**raw), processor.candidates(NAMES))
    torch.testing.assert_close(packed, expected.log_softmax(-1), atol=1e-5, rtol=0)
    assert ours.config.layers == 0 and expected.std() > 0.1


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2", "clap"])
def test_a_stock_pipeline_gives_the_probabilities_of_the_original(kind, folders):
    from transformers import pipeline

    source, out, _ = folders(kind)
    task = "zero-shot-audio-classification" if kind == "clap" else "zero-shot-image-classification"
    raw = WAVES[0] if kind == "clap" else PICTURES[0]
    theirs, ours = (pipeline(task, model=str(folder))(raw, candidate_labels=NAMES) for folder in (source, out))
    expected = {one["label"]: one["score"] for one in theirs}
    assert {one["label"]: one["score"] for one in ours} == pytest.approx(expected, abs=1e-5)
    assert (sum(expected.values()) == pytest.approx(1, abs=1e-4)) == (not kind.startswith("siglip"))


def shrunk(name, monkeypatch, tmp_path):
    """An architecture of open_clip in small, random weights in a file: the library's model."""
    config = open_clip.get_model_config(name)
    config["embed_dim"] = 16
    config["vision_cfg"] |= RESNET if name.startswith("RN") else SMALL
    config["text_cfg"] |= WORDS | ({"context_length": 9} if "clips" not in str(config) else {})
    if "multimodal_cfg" in config:
        config["multimodal_cfg"] |= WORDS | {"attn_pooler_heads": 2}
    real = open_clip.get_model_config

    def smaller(asked):
        return json.loads(json.dumps(config)) if asked == name else real(asked)

    for module in (open_clip, open_clip.factory):
        monkeypatch.setattr(module, "get_model_config", smaller)
    torch.manual_seed(0)
    model = open_clip.create_model(name).eval()
    with torch.no_grad():
        for value in model.parameters():
            value += 0.05 * torch.randn_like(value)
        model.logit_scale.fill_(4.8)  # beyond 100
        if getattr(model, "logit_bias", None) is not None:
            model.logit_bias.fill_(-7.0)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    return model


@pytest.mark.parametrize("name", ["ViT-B-32", "RN50", "coca_ViT-B-32"])
@torch.no_grad()
def test_an_architecture_of_open_clip_gives_its_logits(name, monkeypatch, tmp_path):
    model = shrunk(name, monkeypatch, tmp_path)
    report = convert.convert(f"{name}:{tmp_path / 'w.pt'}", tmp_path / "out")
    ours, processor = read_model(tmp_path / "out")
    _, _, preprocess = open_clip.create_model_and_transforms(name)
    pixels = torch.stack([preprocess(picture) for picture in PICTURES])
    ids = open_clip.get_tokenizer(name)(NAMES)
    image, text = model.encode_image(pixels, normalize=True), model.encode_text(ids, normalize=True)
    expected = image @ text.T * model.logit_scale.exp()
    tensors = processor(image=PICTURES, text=NAMES, return_tensors="pt")
    assert torch.equal(tensors["pixel_values"], pixels)
    torch.testing.assert_close(ours(**tensors).logits, expected, atol=2e-5, rtol=0)
    assert report.missing == report.unexpected == []
    passport = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert [one["what"].partition(" ")[0] for one in passport["compared"]] == [
        "pixels",
        "features",
        "features",
        "logits",
    ]
    assert max(one["largest"] for one in passport["compared"]) < 1e-4  # logits of about a hundred


SIGLIP = {
    "embed_dim": 64,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {"image_size": 32, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
    "text_cfg": WORDS
    | {"context_length": 8, "vocab_size": 99, "hf_tokenizer_name": "elsewhere/words", "no_causal_mask": True}
    | {"proj_bias": True, "pool_type": "last", "tokenizer_kwargs": {"clean": "canonicalize"}},
}


def saved(folder, config, weights="model.safetensors"):
    """A folder as open_clip saves one, with a tokenizer: the library's model."""
    from safetensors.torch import save_file

    pair_folders.tokenizer(folder)
    pictures = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash", "interpolation": "bilinear"}
    settings = {"model_cfg": config, "preprocess_cfg": pictures}
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    torch.manual_seed(1)
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    save = save_file if weights.endswith(".safetensors") else torch.save
    save(model.state_dict(), folder / weights)
    return model


@torch.no_grad()
def test_a_folder_of_open_clip_brings_siglips_bias_its_tokenizer_and_its_pixels(tmp_path):
    from transformers import pipeline

    model = saved(tmp_path, SIGLIP)
    assert main(["convert", "open-clip", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    ours, processor = read_model(tmp_path / "out")
    _, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    pixels = torch.stack([preprocess(picture) for picture in PICTURES])
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    tensors = processor(image=PICTURES, text=NAMES, return_tensors="pt")
    assert torch.equal(tensors["pixel_values"], pixels)
    expected, _ = model.get_logits(pixels, tokenizer(NAMES))
    torch.testing.assert_close(ours(**tensors).logits, expected, atol=1e-5, rtol=0)
    asked, _ = model.get_logits(pixels[:1], tokenizer([f"This is a photo of {name}." for name in NAMES]))
    found = pipeline("zero-shot-image-classification", model=str(tmp_path / "out"))(PICTURES[0], candidate_labels=NAMES)
    want = dict(zip(NAMES, asked.sigmoid()[0].tolist(), strict=True))
    assert {one["label"]: one["score"] for one in found} == pytest.approx(want, abs=1e-5)


@torch.no_grad()
def test_a_hugging_face_text_tower_is_made_of_a_folder(monkeypatch, tmp_path):
    from transformers import RobertaConfig

    folder = tmp_path / "words"
    entries = pair_folders.tokenizer(folder, bos_token="<s>")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20}
    RobertaConfig(**sizes, vocab_size=entries, max_position_embeddings=80, pad_token_id=0).save_pretrained(folder)
    config = open_clip.get_model_config("roberta-ViT-B-32")
    config["embed_dim"], config["vision_cfg"] = 16, config["vision_cfg"] | SMALL
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: json.loads(json.dumps(config)))
    with pytest.raises(UserError, match="roberta-base, which open_clip fetches"):
        convert.convert("roberta-ViT-B-32", tmp_path / "out")
    convert.convert("roberta-ViT-B-32", tmp_path / "out", tokenizer=folder)
    ours, processor = read_model(tmp_path / "out")
    text = config["text_cfg"] | {"hf_model_name": str(folder), "hf_model_pretrained": False}
    whole = {"embed_dim": 16, "vision_cfg": config["vision_cfg"], "text_cfg": text, "quick_gelu": True}
    model = open_clip.model.CustomTextCLIP(**whole).eval()
    own = ours.tokenizers["text"].network.state_dict()  # buffers among them, which the library does not keep
    model.text.load_state_dict({key.removeprefix("tower."): value for key, value in own.items()}, strict=False)
    rows = open_clip.tokenizer.HFTokenizer(str(folder), context_length=77)(NAMES)
    tensors = processor(text=NAMES, return_tensors="pt")
    torch.testing.assert_close(ours.get_text_features(**tensors).pooler_output, model.encode_text(rows))
    again = type(processor).from_pretrained(tmp_path / "out").tokenizer(NAMES, padding=True, return_tensors="pt")
    assert torch.equal(again["input_ids"], tensors["input_ids"])


def test_what_cannot_be_converted_ends_in_one_line(folders, monkeypatch, tmp_path, capsys):
    def said(*arguments):
        assert main(["convert", *map(str, arguments), "--out", str(tmp_path / "o")]) == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert len(line) < 400
        return line

    clip, _, _ = folders("clip")
    import shutil

    def copied(name, *left_out):
        folder = shutil.copytree(clip, tmp_path / name)
        for one in left_out:
            (folder / one).unlink()
        return folder

    assert "no tokenizer in" in said("hf", copied("a", "tokenizer.json", "tokenizer_config.json"))
    assert "add preprocessor_config.json" in said("hf", copied("b", "preprocessor_config.json"))
    pickled = copied("c", "model.safetensors")
    torch.save({}, pickled / "pytorch_model.bin")
    assert "a pickle, which can run code and is not read out of a folder" in said("hf", pickled)
    other = copied("d")
    shutil.copy(folders("siglip")[0] / "model.safetensors", other)
    assert "do not fit its config.json: " in said("hf", other)
    larger = copied("e")
    settings = json.loads((larger / "preprocessor_config.json").read_text())
    settings["crop_size"] = {"height": 48, "width": 48}
    (larger / "preprocessor_config.json").write_text(json.dumps(settings))
    assert "the image tower refuses" in said("hf", larger)

    (tmp_path / "f").mkdir()
    saved(tmp_path / "f", SIGLIP, "open_clip_pytorch_model.bin")
    assert "open_clip_pytorch_model.bin, a pickle" in said("open-clip", tmp_path / "f")
    assert "timm/ViT-B-16-SigLIP, which open_clip fetches" in said("open-clip", "ViT-B-16-SigLIP")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "no network to fetch these weights" in said("open-clip", "ViT-B-32:openai")
    assert "did you mean 'ViT-B-32'" in said("open-clip", "ViT-B-23")
    state = shrunk("ViT-B-32", monkeypatch, tmp_path).state_dict()
    file = tmp_path / "w.pt"
    torch.save(state | {"visual.conv1.weight": torch.zeros(16, 3, 8, 8)}, file)
    assert "visual.conv1.weight is (16, 3, 8, 8) instead of (16, 3, 16, 16)" in said("open-clip", f"ViT-B-32:{file}")
    torch.save({k: v for k, v in state.items() if k.startswith("visual.")}, file)
    assert "it lacks " in said("open-clip", f"ViT-B-32:{file}")
    monkeypatch.setattr("generalist.tokenizers_mod.towers.network.find_spec", lambda name: None)
    assert main(["predict", str(folders("clip")[1]), "--text", "a cat"]) == 2
    assert "install it: pip install transformers" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["clip", "siglip2", "clap", "xclip"])
def test_a_folder_says_how_near_its_original_it_is_and_compares_again(kind, folders, tmp_path, capsys):
    import shutil

    _, out, _ = folders(kind)
    passport = json.loads((out / "parity.json").read_text())
    assert passport["reason"] == "" and passport["seed"] == 0 and {"torch", "transformers"} <= set(passport["versions"])
    assert len(passport["compared"]) == 3 and all(one["largest"] < 1e-5 < one["of"] for one in passport["compared"])
    assert main(["parity", str(out)]) == 0
    assert "equal within the tolerance" in capsys.readouterr().out
    if kind != "clip":
        return
    changed = shutil.copytree(out, tmp_path / "changed")
    model, _ = read_model(changed)
    with torch.no_grad():
        model.get_submodule("tokenizers.image.network.visual_projection").weight[0] *= 3
    model.save_pretrained(changed)
    assert main(["parity", str(changed), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["equal"] is False
    values = json.loads((changed / "parity.json").read_text())
    (changed / "parity.json").write_text(json.dumps(values | {"checkpoint": "/nowhere/clip"}))
    assert main(["parity", str(changed)]) == 2
    assert "the original /nowhere/clip is not here any more" in capsys.readouterr().err
    (changed / "parity.json").unlink()
    assert main(["parity", str(changed)]) == 2
