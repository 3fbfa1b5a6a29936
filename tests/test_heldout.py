"""Results survive what goes wrong on the way to them, and what can be known before the first step is said there."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import Listed
from test_detect import pictures
from tiny import tiny

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.data.sources.coco import CocoObjects
from generalist.data.sources.embedded import Embedded
from generalist.data.sources.folder import Folder
from generalist.data.stream.source import Records
from generalist.evaluate import answer as evaluate
from generalist.evaluate import heldout
from generalist.evaluate.heldout import not_trained_on
from generalist.recipe.keys import override
from generalist.run import train as run
from generalist.run.results import load_run
from generalist.run.train import train_run
from generalist.tasks.baselines import methods
from generalist.tasks.baselines.budget import OutOfTime, budget
from generalist.tasks.baselines.ordinary import ORDINARY
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.regions.detect import Detect
from generalist.train.faults import bad_samples

TINY = str(Path(__file__).parent / "tiny.py")


@dataclass
class Some:
    """Digits with splits left out, and pictures of some splits that are no pictures."""

    without: list[str] = field(default_factory=list)
    broken: dict[str, list[int]] = field(default_factory=dict)
    most: int = 60

    def open(self, split: str) -> Records:
        if split in self.without:
            raise UserError(f"digits: no split {split!r}")
        records = Embedded("digits").open(split)
        rows = [dict(records[i]) for i in range(min(self.most, len(records)))]
        for i in self.broken.get(split, []):
            rows[i] = {**rows[i], "image": np.zeros((0, 3)), "id": f"cut-{i}"}
        return Records(rows, records.info)


def digits_of(source: Any, **keys: Any) -> Any:
    recipe = tiny(steps=2, checkpoint__every=0, **keys)
    recipe.tasks = [task for task in recipe.tasks if task.name == "digits"]
    recipe.tasks[0].source = source
    return recipe


def fail_on(monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException) -> None:
    plain = evaluate.answer

    def answer(task: Any, *args: Any, **more: Any) -> Any:
        if task.name == name:
            raise error
        return plain(task, *args, **more)

    monkeypatch.setattr(evaluate, "answer", answer)


def test_a_task_that_fails_is_a_line_with_its_reason_and_the_others_stand(tmp_path, monkeypatch, capsys):
    fail_on(monkeypatch, "digits", RuntimeError("the disk went away\nand more"))
    out = tmp_path / "run"
    assert main(["train", TINY, "steps=2", "--out", str(out), "--quiet"]) == 1
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith("digits"))
    assert "failed" in row and "RuntimeError: the disk went away" in row
    tasks = json.loads((out / "metrics.json").read_text())["tasks"]
    assert tasks["digits"]["error"] == "RuntimeError: the disk went away" and tasks["digits"]["value"] is None
    assert "in answer" in tasks["digits"]["traceback"]
    assert tasks["wine"]["value"] > 0 and tasks["wine"]["baseline"] > 0.9
    page = (out / "report.html").read_text()
    assert "the disk went away" in page and "could not be evaluated" in page
    assert "the disk went away" in (out / "model" / "README.md").read_text()
    monkeypatch.undo()
    assert main(["eval", str(out), "--quiet", "--no-baseline"]) == 0  # and it can be had again
    tasks = json.loads((out / "metrics.json").read_text())["tasks"]
    assert tasks["digits"]["value"] > 0 and tasks["digits"]["baseline"] is None
    assert "baseline=false" in capsys.readouterr().out


def test_results_are_written_as_they_come(tmp_path, monkeypatch):
    fail_on(monkeypatch, "wine", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train_run(tiny(steps=2), tmp_path / "run", quiet=True)
    tasks = json.loads((tmp_path / "run" / "metrics.json").read_text())["tasks"]
    assert list(tasks) == ["digits"] and tasks["digits"]["value"] > 0
    assert list(json.loads((tmp_path / "run" / "predictions.json").read_text())["tasks"]) == ["digits"]


def test_a_baseline_that_fails_is_a_note_beside_the_value(tmp_path, monkeypatch, capsys):
    def fails(*args: Any) -> Any:
        raise FloatingPointError("a baseline of naughts")

    monkeypatch.setitem(ORDINARY, Classify, fails)
    assert main(["train", TINY, "steps=2", "--out", str(tmp_path / "run"), "--quiet"]) == 0
    said = capsys.readouterr().out
    line = json.loads((tmp_path / "run" / "metrics.json").read_text())["tasks"]["wine"]
    assert line["value"] > 0 and line["baseline"] is None
    assert "wine: no baseline: FloatingPointError: a baseline of naughts" in said


def test_a_set_without_validation_data_simply_works_and_says_so(tmp_path, capsys):
    metrics = train_run(digits_of(Some(["val"])), tmp_path / "run")
    line = metrics["tasks"]["digits"]
    assert line["baseline"] > 0.5 and np.isfinite(line["value"])
    assert any("no validation data" in note for note in line["notes"])
    assert "no validation data" in capsys.readouterr().err  # before the first step


def test_a_folder_with_train_and_test_alone_is_evaluated(tmp_path, monkeypatch):
    from people_data import write_files

    folder = write_files(tmp_path / "photos")
    import shutil

    shutil.rmtree(folder / "val")
    recipe = tiny(steps=2, checkpoint__every=0)
    recipe.tasks = [Classify(name="t", source=Folder(str(folder)), inputs={"image": "image"}, batch=4)]
    assert train_run(recipe, tmp_path / "run", quiet=True)["tasks"]["t"]["baseline"] == 1.0


def test_broken_samples_of_every_split_are_counted_and_named(tmp_path, capsys):
    source = Some(broken={"train": [3], "val": [2, 5], "test": [0, 7, 8]})
    recipe = digits_of(source, faults__bad_rate=0.5)
    line = train_run(recipe, tmp_path / "run")["tasks"]["digits"]
    assert line["n_test"] == 57 and line["baseline"] > 0.5
    said = "\n".join(line["notes"])
    assert "3 of 60 test samples cannot be read; task digits, record cut-0" in said
    assert "2 of 60 val samples cannot be read" in said
    assert bad_samples(tmp_path / "run")["digits"] >= 5
    listed = [json.loads(t) for t in (tmp_path / "run" / "bad_samples.test.jsonl").read_text().splitlines()]
    assert [one["record"] for one in listed] == ["cut-0", "cut-7", "cut-8"] and "pixel" in listed[0]["error"]
    answers = (tmp_path / "run" / "answers" / "digits.jsonl").read_text()
    assert "cut-" not in answers and len(answers.splitlines()) == 1 + 57


def test_the_answers_around_a_broken_sample_are_those_without_it(tmp_path):
    """Labels and owners do not shift past what was left out."""
    train_run(digits_of(Some()), tmp_path / "run", quiet=True)
    _, prepared, objective = load_run(tmp_path / "run")
    task = prepared.tasks["digits"]
    whole = Some().open("test")
    left = whole.only([i for i in range(60) if i not in (0, 7, 8)])
    broken = Some(broken={"test": [0, 7, 8]}).open("test")
    from generalist.evaluate.unread import Unread

    a, b = evaluate.answer(task, left, objective), evaluate.answer(task, broken, objective, unread=Unread(rate=1))
    torch.testing.assert_close(a.queries, b.queries)
    assert a.ids == b.ids and a.metrics == b.metrics and a.records[5]["id"] == b.records[5]["id"]
    with pytest.raises(UserError, match="record cut-0"):
        evaluate.answer(task, broken, objective)


def test_too_many_broken_test_samples_are_no_result(tmp_path):
    source = Some(broken={"test": list(range(10, 40))})
    line = train_run(digits_of(source), tmp_path / "run", quiet=True)["tasks"]["digits"]
    assert "30 of 60 samples of the test split cannot be decoded, more than faults.bad_rate=0.01" in line["error"]


WRONG = [
    (lambda: digits_of(Some(["test"])), "task digits: there is no test data to evaluate on; digits: no split 'test'"),
    (lambda: digits_of(Some(broken={"test": list(range(60))})), "record cut-0.*test split; none of 60"),
    (lambda: digits_of(Some(), tasks__digits__label="kind"), "'kind'|kind"),
    (lambda: digits_of(Some(), tasks__digits__inputs__image="pixels"), "no field 'pixels'"),
    (lambda: digits_of(Other()), "the test split has '10', which training lacks"),
]


@dataclass
class Other:
    """Training and test know other classes."""

    def open(self, split: str) -> Records:
        records = Embedded("digits").open(split)
        names = list(records.info["classes"])
        return Records(records.rows, {"classes": [*names[1:], "10"] if split == "test" else names})


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_what_can_be_known_is_said_before_the_first_step(number, tmp_path):
    make, says = WRONG[number]
    with pytest.raises(UserError, match=says) as caught:
        train_run(make(), tmp_path / "run", quiet=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "log.jsonl").exists() and not (tmp_path / "run" / "checkpoints").exists()


def test_more_objects_than_proposals_are_said_before_the_first_step(tmp_path):
    from regions import region

    from generalist.run.preflight import check_split

    source = CocoObjects(str(pictures(tmp_path)))
    records = source.open("train")
    task = Detect(name="shapes", source=source, inputs={"region": "image"}, batch=2)
    most = max(len(records[i]["boxes"]) for i in range(len(records)))
    task.modalities = {"region": region(proposals=most - 1)}
    with pytest.raises(UserError, match=rf"has {most} objects .* set modalities.region.proposals={most}"):
        check_split(task, "train", records, records)


def test_a_baseline_that_cannot_be_had_is_said_before_the_first_step(tmp_path, monkeypatch, capsys):
    def fails(*args: Any) -> Any:
        raise UserError("its target has no number")

    monkeypatch.setitem(ORDINARY, Classify, fails)
    monkeypatch.setattr(run, "finish", lambda *args: {})
    train_run(tiny(steps=1), tmp_path / "run")
    assert "wine: no baseline can be had: its target has no number" in capsys.readouterr().err


# --- the budget of a baseline ---


def spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


class Slow:
    """An estimator that takes this many processor seconds."""

    def __init__(self, seconds: float, quality: float) -> None:
        self.seconds, self.quality = seconds, quality

    def fit(self, x: Any, y: Any) -> Slow:
        spin(self.seconds)
        return self

    def score(self, x: Any, y: Any) -> float:
        return self.quality


def test_a_method_that_does_not_end_is_cut_off_and_named():
    tried = [methods.Method(n, lambda s=s, q=q: Slow(s, q)) for n, s, q in (("a", 0, 0.4), ("b", 60, 1), ("c", 0, 0.9))]
    began = time.process_time()
    with budget(0.3):
        chosen = methods.choose(tried, np.zeros((2, 1)), [0, 1], np.zeros((2, 1)), [0, 1])
        assert chosen.said == "a (not in 0.3 processor seconds: b, c)"
    assert time.process_time() - began < 5
    with pytest.raises(OutOfTime, match=r"did not end in 0.2 processor seconds"), budget(0.2):
        spin(60)
    spin(0.3)  # nothing rings afterwards


def test_a_method_whose_work_is_known_to_be_too_much_is_not_begun():
    tried = [methods.Method("a", lambda: Slow(0, 0.4)), methods.Method("b", lambda: Slow(60, 1), work=1e13)]
    with budget(5):
        assert methods.choose(tried, np.zeros((2, 1)), [0, 1], None, None).left_out == ["b"]


def test_a_run_without_time_for_a_baseline_says_so(tmp_path, monkeypatch):
    def slow(*args: Any) -> Any:
        spin(60)

    monkeypatch.setitem(ORDINARY, Classify, slow)
    monkeypatch.setattr(run, "preflight", lambda *args: [])
    recipe = digits_of(Some(), baseline_seconds=0.2)
    line = train_run(recipe, tmp_path / "run", quiet=True)["tasks"]["digits"]
    assert line["baseline"] is None and "no baseline: did not end in 0.2 processor seconds" in line["notes"]


def test_many_classes_of_text_take_a_linear_method_that_costs_little():
    """150 classes of 20 short texts: seconds, where logistic regression on dense words took minutes."""
    draw = np.random.default_rng(0)
    rows = []
    for i in range(3000):
        own = [f"word{i % 150}x{k}" for k in draw.integers(0, 4, 3)]
        rows.append({"text": " ".join([*own, *(f"filler{k}" for k in draw.integers(0, 400, 6))]), "label": i % 150})
    part = [Records(rows[a:b]) for a, b in ((0, 2000), (2000, 2500), (2500, 3000))]
    from generalist.tasks.baselines.baselines import classification

    began = time.process_time()
    with budget(20):
        found = classification({"text": "text"}, "label", *part)
    assert found["value"] > 0.9 and time.process_time() - began < 25


def test_steps_that_were_left_out_are_said_in_the_table(tmp_path):
    lines = [{"step": s, "task": "digits", "action": "left out", "loss": 3000.0 + s} for s in range(3)]
    (tmp_path / "faults.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = heldout.left_out(tmp_path, "digits")
    assert said == "3 training steps were left out, their loss up to 3002 (faults.jsonl)"
    assert heldout.left_out(tmp_path, "wine") == ""


def test_four_thousand_names_are_evaluated_in_seconds(tmp_path):
    """5,000 questions among 4,000 names: each name is encoded once, and all else is linear."""
    names = [f"article {i}" for i in range(4000)]
    rows = [{"id": str(i), "row": {"x": float(i % 4000), "y": float(i % 7)}, "label": i % 4000} for i in range(5000)]
    recipe = tiny(steps=1, checkpoint__every=0)
    recipe.tasks = [Classify(name="many", source=Listed({"train": rows}, {"classes": names}), inputs={"table": "row"})]
    override(recipe, "tasks.many.batch=8", "baseline_seconds=6")
    began = time.process_time()
    line = train_run(recipe, tmp_path / "run", quiet=True)["tasks"]["many"]
    assert line["n_test"] == 5000 and time.process_time() - began < 60  # 12 and the baseline's 6; not in 600 before
    assert line["baseline"] > 0 and "gradient boosting" not in line["baseline_name"].partition(" (")[0]


def test_training_samples_that_could_not_be_read_are_named_once_each(tmp_path):
    assert not_trained_on(tmp_path, "tones") == ""
    lines = [{"step": i, "task": "tones", "record": f"{i % 2}.wav", "error": "cut off"} for i in range(9)]
    other = {"step": 9, "task": "digits", "record": "7", "error": "gone"}
    (tmp_path / "bad_samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, other]))
    said = "2 training samples could not be read; 0.wav: cut off (bad_samples.jsonl)"
    assert not_trained_on(tmp_path, "tones") == said and not_trained_on(tmp_path, "wine") == ""
