"""The experiments of scripts/ on adaptation and unseen classes: what they hold back and what they conclude."""

import json
from pathlib import Path

import numpy as np
import pytest

from generalist.scripts import adaptation, unseen_classes


def lines(zero, few, full):
    found = {("zero-shot", None): zero, ("prompts", 0.01): few, ("prompts", 1.0): 0.99, ("full", 1.0): full}
    return [{"method": m, "fraction": f, "accuracy": a} for (m, f), a in found.items()]


@pytest.mark.parametrize(
    ("accuracies", "said"),
    [((0.1, 0.3, 0.8), "shows"), ((0.4, 0.3, 0.8), "does not show"), ((0.1, 0.8, 0.8), "does not show")],
)
def test_the_published_order_is_said_to_show_only_where_it_does(accuracies, said):
    assert adaptation.shape(lines(*accuracies)).endswith(f"the published order {said}")


def test_pre_training_of_the_adaptation_sees_characters_and_no_handwritten_digit():
    made = adaptation.EXPERIMENTS["digits"].base(7, 0, Path())
    made.check()
    assert [task.source.name for task in made.tasks] == ["glyphs"]


def test_pre_training_for_spoken_digits_holds_no_speech_and_the_clips_become_a_folder_by_class(shared, tmp_path):
    import soundfile

    made = adaptation.EXPERIMENTS["spoken"].base(7, 0, shared / "data")
    made.check()
    classes = {name for task in made.tasks for name in task.source.open("train").info["classes"]}
    assert {"Dog bark", "sine wave"} <= classes and not classes & set(adaptation.SPOKEN)
    place, *words = adaptation.EXPERIMENTS["spoken"].data(shared / "data", tmp_path)
    assert words == ["--input", "audio"]
    files = {split: sorted(Path(place, split).rglob("*.wav")) for split in ("train", "test")}
    assert {split: len(found) for split, found in files.items()} == {"train": 600, "test": 300}
    assert {f.parent.name for f in files["test"]} == set(adaptation.SPOKEN)
    raw = np.load(shared / "data" / "fsdd_audio" / "fsdd_test.npz")
    wave, rate = soundfile.read(Path(place, "test", adaptation.SPOKEN[int(raw["label"][7])], "7.wav"), dtype="int16")
    assert rate == 8000 and np.array_equal(wave, raw["audio"][raw["offsets"][7] : raw["offsets"][8]])


def test_categories_that_are_held_back_are_in_no_training_record_and_no_emoji_is_in_two_splits(shared):
    data = str(shared / "data")
    unseen = list(unseen_classes.UNSEEN)
    parts = {split: unseen_classes.Emoji(data, unseen, []).open(split) for split in ("train", "test")}
    seen = {row["text"] for row in parts["train"]}
    assert not {row["category"] for row in parts["train"]} & set(unseen)
    assert not seen & {row["text"] for row in parts["test"]}
    held = unseen_classes.Emoji(data, [], unseen).open("train")
    assert {row["category"] for row in held} == set(unseen)
    assert len(parts["train"]) + len(held) == len(unseen_classes.Emoji(data, [], []).open("train")) > 2000


@pytest.mark.soak  # a minute: the whole experiment, a few steps of each part
def test_the_adaptation_runs_from_characters_to_the_curve(tmp_path, monkeypatch, capsys):
    words = ["--steps", "4", "--tuning-steps", "2", "--draws", "1", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["adaptation", *words])
    adaptation.main()
    found = json.loads((tmp_path / "digits_0" / "tuning.json").read_text())
    assert {line["method"] for line in found} == set(adaptation.METHODS)
    assert len([line for line in found if line["method"] == "lora"]) == 5
    assert "the published order" in capsys.readouterr().out
