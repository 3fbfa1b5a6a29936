"""What frozen encoders make of a sample, for the ordinary method too; fit uses those that are on the machine."""

import json
import pickle

import numpy as np
import pandas
import pytest
import torch

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.fitting.decide import recipe_of
from generalist.fitting.inputs import encoders
from generalist.fitting.parts import Ask
from generalist.tokenizers_mod.pretrained.backbone import Backbone
from generalist.tokenizers_mod.pretrained.heard import Heard
from generalist.tokenizers_mod.pretrained.text import PretrainedText
from tests.roberta import roberta

WORDS = ["a", "cat", "dog", "street", "red", "the", "sat", "on", "car", "person"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    return roberta(tmp_path_factory.mktemp("roberta"), WORDS)


def text(encoder: str, **settings) -> PretrainedText:
    usual = {"max_length": 16, "positions": 16, "frozen": True, "remember": 100, "pooling": "mean"}
    return PretrainedText(encoder=encoder, **usual | settings)


def test_vectors_are_what_the_encoder_makes_and_are_kept(encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("GENERALIST_CACHE", str(tmp_path))
    modality = text(encoder)
    texts = ["a cat sat on the street", "dog", "the red car"]
    rows = np.stack([modality.vector(t) for t in texts])
    assert rows.shape == (3, 24) and np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert np.array_equal(rows[1], text(encoder).vector("dog"))  # from the disk, the same bytes
    module = modality.build(8).eval()
    data = {k: torch.cat([modality.span(t).data[k] for t in texts]) for k in ("ids", "position")}
    torch.testing.assert_close(module(data), module.projection(torch.from_numpy(rows)))
    assert text(encoder, pooling="").vector("dog") is None  # many tokens
    copied = pickle.loads(pickle.dumps(modality))
    assert "_alone" not in copied.__dict__ and np.array_equal(copied.vector("dog"), rows[1])


@pytest.fixture
def said(tmp_path, encoder, monkeypatch):
    """A table of texts, and an encoder that stands for the zoo's."""

    class Entry:
        installed, package = True, "a-package"

    monkeypatch.setattr(encoders, "entry", lambda name: Entry)
    whole = PretrainedText.__init__
    monkeypatch.setattr(PretrainedText, "__init__", lambda self, **k: whole(self, **(k | {"encoder": encoder})))
    rng = np.random.default_rng(0)
    rows = [
        (f"the {a} sat on {' '.join(rng.choice(WORDS[3:], 5))}", a) for a in rng.choice(["cat", "dog"], 240).tolist()
    ]
    pandas.DataFrame(rows, columns=["text", "animal"]).to_csv(tmp_path / "t.csv", index=False)
    return tmp_path / "t.csv", Entry


def test_fit_reads_texts_through_the_encoder_that_is_here_and_says_so(said, tmp_path):
    file, _ = said
    out = tmp_path / "run"
    assert main(["fit", str(file), "--label", "animal", "--time", "5s", "--out", str(out), "--quiet"]) == 0
    line = json.loads((out / "metrics.json").read_text())["tasks"]["animal"]
    assert line["together"]["value"] > 0.9  # the words' counts stand beside the encoder's vectors
    kept = torch.load(next((out / "best").glob("*.pt")), weights_only=True)
    assert not [name for name in kept if ".encoder." in name and "tokenizers" in name]  # what does not move is not kept
    assert main(["predict", str(out), str(file), "--out", str(tmp_path / "a.csv")]) == 0
    found = pandas.read_csv(tmp_path / "a.csv")
    assert (found["answer"] == pandas.read_csv(file)["animal"]).mean() > 0.9


def test_without_an_encoder_or_the_time_for_it_texts_are_learnt_and_what_is_lost_is_said(said, monkeypatch):
    file, entry = said
    ask = [Ask(str(file), "animal")]
    recipe, parts = recipe_of(ask, "t", 0, 60.0)
    assert isinstance(recipe.modalities["text"], PretrainedText) and "zoo:minilm, frozen" in " ".join(parts[0].told)
    assert parts[0].encoding > 0 and recipe.baseline_seconds == pytest.approx(12 + parts[0].encoding, abs=0.06)
    recipe, _ = recipe_of(ask, "t", 0, 60.0, encoders=False)
    assert not isinstance(recipe.modalities["text"], PretrainedText)
    recipe, parts = recipe_of(ask, "t", 0, 1e-3)
    assert "a longer --time" in " ".join(parts[0].told) and not isinstance(recipe.modalities["text"], PretrainedText)
    monkeypatch.setattr(entry, "installed", False)
    recipe, parts = recipe_of(ask, "t", 0, 60.0)
    assert "pip install a-package" in " ".join(parts[0].told) and not isinstance(
        recipe.modalities["text"], PretrainedText
    )


@pytest.fixture
def network(monkeypatch):
    """A small network that stands for the zoo's."""
    monkeypatch.setattr(encoders, "PICTURES", "test_efficientnet")
    monkeypatch.setattr(encoders, "SIZES", (64,))
    monkeypatch.setattr(encoders, "entry", lambda name: type("Entry", (), {"installed": True, "package": "a"}))


def test_pictures_and_sounds_go_through_the_network_that_is_here(network, tmp_path):
    import soundfile
    from PIL import Image

    for i in range(24):
        for kind, shade in (("dark", 40), ("light", 200)):
            (tmp_path / "p" / kind).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 30), (shade, shade, i)).save(tmp_path / "p" / kind / f"{i}.png")
        for kind, pitch in (("low", 200), ("high", 3000)):
            (tmp_path / "s" / kind).mkdir(parents=True, exist_ok=True)
            wave = 0.3 * np.sin(np.arange(8000 + 10 * i) * 2 * np.pi * pitch / 16000)
            soundfile.write(tmp_path / "s" / kind / f"{i}.wav", wave, 16000)
    for folder, name in (("p", "image"), ("s", "audio")):
        recipe, parts = recipe_of([Ask(str(tmp_path / folder))], "t", 0, 60.0)
        made = recipe.modalities[name]
        assert isinstance(made, Backbone) and (made.maps, made.size, made.network) == ("embedding", 64, {})
        assert "through test_efficientnet at 64 pixels" in " ".join(parts[0].told)


def test_a_sound_is_seen_whole_and_its_pitch_tells_in_the_picture():
    sound = Heard(backbone="test_efficientnet", size=64, maps="embedding", frozen=True)
    wave = np.concatenate([np.sin(np.arange(16000) * 2 * np.pi * f / 16000) for f in (300, 4000)]) * 0.3
    picture = sound.read((wave, 16000))
    assert picture.shape[:2] == (3, 128) and torch.equal(picture[0], picture[2])
    seen = sound.prepared(picture)
    assert seen.shape == (3, 64, 64)
    first, second = (seen[0, :, half].mean(1).argmax() for half in (slice(0, 30), slice(34, 64)))
    assert first > second  # low notes lie low, and both halves are there
    assert sound.vector((wave[:4000], 16000)).shape == sound.vector((wave, 16000)).shape


def test_a_sound_drawn_below_its_loudest_is_the_same_at_any_loudness():
    wave = np.sin(np.arange(16000) * np.linspace(0.01, 1, 16000)).astype(np.float32)
    drawn = {}
    for below in (0.0, 12.0):
        sound = Heard(backbone="test_efficientnet", size=64, maps="embedding", below=below)
        drawn[below] = [sound.read((gain * wave, 16000)) for gain in (1.0, 0.1)]
    loud, quiet = drawn[12.0]
    assert float(loud.max()) == float(quiet.max()) == 1.0 and float(loud.min()) == 0.0
    torch.testing.assert_close(loud, quiet, atol=1e-4, rtol=0)
    assert float((drawn[0.0][0] - drawn[0.0][1]).abs().max()) > 0.1  # ln 100 of a range of 16
    with pytest.raises(UserError, match="below is -1"):
        Heard(backbone="test_efficientnet", below=-1)
