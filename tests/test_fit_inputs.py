"""What `fit` makes of columns and files: bytes within a table, pictures of a telephone, sounds."""

import io
import time
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import soundfile
from PIL import Image

from generalist.data.base.errors import UserError
from generalist.fitting.answers import answer_of
from generalist.fitting.decide import fix_steps, recipe_of
from generalist.fitting.inputs import encoders
from generalist.fitting.parts import Ask
from generalist.fitting.run import little
from generalist.tokenizers_mod.pretrained.backbone import Backbone
from generalist.tokenizers_mod.pretrained.heard import Heard
from generalist.tokenizers_mod.vision.image import Image as Picture
from generalist.train.prepare import prepare


def decided(path, **ask):
    """The recipe and its parts, nothing trained."""
    return recipe_of([Ask(str(path), **ask)], "test", 0, 60.0, encoders=False)


def test_bytes_in_a_parquet_file_are_the_pictures_or_sounds_that_they_begin_like(tmp_path):
    def held(i: int) -> tuple[bytes, bytes]:
        shown, heard = io.BytesIO(), io.BytesIO()
        Image.new("RGB", (20, 20), (40 * (i % 2), 10, i)).save(shown, "WEBP" if i % 3 else "PNG")
        soundfile.write(heard, np.sin(np.arange(800) * (0.1 + 0.2 * (i % 2))), 8000, format="WAV")
        return shown.getvalue(), heard.getvalue()

    photos, songs = zip(*(held(i) for i in range(30)), strict=True)
    frame = pandas.DataFrame({"photo": photos, "song": songs, "tone": ["low", "high"] * 15})
    frame.to_parquet(tmp_path / "t.parquet")
    recipe, _ = decided(tmp_path / "t.parquet", label="tone")
    assert recipe.tasks[0].inputs == {"image": "photo", "audio": "song"}
    first = recipe.tasks[0].open("train")[0]
    assert recipe.modalities["image"].read(first["photo"]).shape == (3, 20, 20)
    assert isinstance(first["song"], bytes) and recipe.modalities["audio"].read(first["song"]) is not None


def photo(path, kind: int, turned: int = 1) -> None:
    """As a telephone saves it: large, JPEG, on its side as EXIF says. kind: which third is bright."""
    shown = np.random.default_rng(kind).integers(0, 60, (9, 12, 3)).astype(np.uint8)
    shown[:, 4 * kind : 4 * kind + 4] += 150
    told = Image.Exif()
    told[0x0112] = turned
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(shown).resize((2400, 1800)).save(path, quality=90, exif=told)


def test_a_large_photo_is_decoded_at_a_fraction_and_stands_upright(tmp_path):
    photo(tmp_path / "a.jpg", 0, turned=6)
    whole, quick = (Picture(size=96, patch=24, quick=way) for way in (False, True))
    seen = [modality.read(tmp_path / "a.jpg") for modality in (whole, quick)]
    assert [tuple(s.shape) for s in seen] == [(3, 2400, 1800), (3, 300, 225)]
    shown = [modality.sized(s) for modality, s in zip((whole, quick), seen, strict=True)]
    assert shown[0].shape == shown[1].shape and float((shown[0] - shown[1]).abs().mean()) < 0.03
    photo(tmp_path / "small.jpg", 0)
    Image.open(tmp_path / "small.jpg").resize((380, 285)).save(tmp_path / "small.jpg")
    assert quick.read(tmp_path / "small.jpg").shape == (3, 285, 380)  # less than four times what is shown


def test_photos_of_a_telephone_are_read_quickly_and_few_steps_are_told(tmp_path):
    for i in range(20):
        photo(tmp_path / "photos" / f"kind{i % 2}" / f"{i}.jpg", i % 2, turned=(1, 6)[i % 2])
    recipe, _ = decided(tmp_path / "photos")
    assert recipe.modalities["image"].quick and recipe.modalities["image"].size == 96
    recipe.steps, recipe.step_seconds = 3, 0.5
    told = little(recipe, 20.0)
    assert len(told) == 1 and "ONLY 3 STEPS" in told[0] and "--time 4m" in told[0]  # 20 s and 297 steps over .7
    recipe.steps = 300
    assert little(recipe, 20.0) == []


@pytest.mark.parametrize("label", ["type", "train", "Values", "label"])
def test_a_label_may_be_called_as_torch_calls_something(label, tmp_path):
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame({"x": rng.normal(size=60), "z": rng.normal(size=60)})
    frame.assign(**{label: np.where(frame["x"] > 0, "right", "left")}).to_csv(tmp_path / "train.csv", index=False)
    recipe, _ = decided(tmp_path / "train.csv", label=label)
    name = recipe.tasks[0].name
    assert name.startswith("train" if label == "label" else label.lower())
    objective = prepare(recipe).objective(recipe)
    assert name in objective.model.log_scales


@pytest.mark.parametrize(("rows", "best"), [(60, False), (300, True)])
def test_no_look_at_a_handful_of_rows_is_taken_for_the_best(rows, best, tmp_path):
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame({"x": rng.normal(size=rows), "y": rng.normal(size=rows)})
    frame.assign(side=np.where(frame["x"] > 0, "right", "left")).to_csv(tmp_path / "t.csv", index=False)
    recipe, parts = decided(tmp_path / "t.csv", label="side")
    fix_steps(recipe, parts, time.monotonic(), 2.0)
    assert recipe.validation.best is best and bool(recipe.validation.patience) is best
    assert 0 < recipe.validation.cost <= 0.05


def test_labels_that_differ_in_case_or_space_only_are_one_class_called_as_most_rows_call_it():
    found = answer_of("pet", ["cat", "cat", "Cat", "cat ", "dog", "DOG", "DOG"])
    assert found.kind == "classes" and found.classes == ["DOG", "cat"] and dict(found.counts) == {"cat": 4, "DOG": 3}
    assert "2 classes" in found.said and "'Cat' is taken for 'cat'" in found.said
    assert answer_of("pet", ["cat", "dog", "cat"]).classes == []
    with pytest.raises(UserError, match="every row says 'cat'"):
        answer_of("pet", ["cat", "Cat", "cat "])


def test_sounds_without_a_sample_do_not_end_the_look_at_the_others(tmp_path):
    for kind, pitch in (("hum", 200), ("beep", 900)):
        (tmp_path / kind).mkdir()
        for i in range(20):
            wave = np.sin(2 * np.pi * pitch * np.arange(2000) / 8000 + i)
            soundfile.write(tmp_path / kind / f"{i}.wav", wave if i % 4 else wave[:0], 8000)
    recipe, parts = recipe_of([Ask(str(tmp_path))], "sounds", 0, 20.0, True)
    assert {"audio", "wave"} & set(recipe.modalities) and "sounds of 2 classes" in parts[0].told[0]


@pytest.mark.parametrize(
    ("count", "seconds", "tail", "size"), [(8000, 600.0, 2, 160), (8000, 300.0, 0, 160), (300, 600.0, 0, 224)]
)
def test_the_last_stages_of_a_pretrained_network_learn_where_pictures_and_time_suffice(
    count, seconds, tail, size, monkeypatch
):
    def cost(modality, values, do=encoders._encoded):  # a calm core's seconds of one picture
        return 0.002 if do is encoders._read else 0.002 + 0.010 * (modality.size / 160) ** 2

    monkeypatch.setattr(encoders, "_cost", cost)
    monkeypatch.setattr(encoders, "entry", lambda name: SimpleNamespace(installed=True, package="p"))
    offer = encoders.backbone(Backbone, [0] * 48, count, seconds)
    assert (offer.modality.tail, offer.modality.size, offer.modality.frozen) == (tail, size, not tail)
    assert ("stages learn" in offer.told) == bool(tail)


def test_sounds_are_seen_from_their_own_loudest_cell(monkeypatch):
    monkeypatch.setattr(encoders, "_cost", lambda *_: 0.001)
    monkeypatch.setattr(encoders, "entry", lambda name: SimpleNamespace(installed=True, package="p"))
    assert encoders.backbone(Heard, [0] * 48, 300, 60.0).modality.below == 12.0
