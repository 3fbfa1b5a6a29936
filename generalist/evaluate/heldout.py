"""The held-out line of one task: its results, its ordinary baseline and what went wrong on the way to them.

A task that fails is a line with its reason, so that the others stand; a baseline that fails or takes too long is a
note.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from generalist.data.base.errors import UserError
from generalist.data.stream.source import Records, from_sound
from generalist.evaluate import answer as evaluate
from generalist.evaluate import calibration, measures, predictions, written
from generalist.evaluate.leakage import compared_fields, leakage
from generalist.evaluate.together import combined
from generalist.evaluate.unread import Unread
from generalist.model.objective import Objective
from generalist.tasks.base.task import Task
from generalist.tasks.baselines.budget import OutOfTime, budget
from generalist.tasks.baselines.ordinary import baseline
from generalist.tasks.measures.lines import Columns

RESAMPLES = 500  # of the intervals beside a run's results
JOINING = 4.0  # times the seconds of finding the ordinary method, in which it is fitted twice and looked at again


@dataclass(frozen=True)
class Wanted:
    """What is measured beside a task's value. baseline: processor seconds of an ordinary one, 0 = any, None = none."""

    baseline: float | None = 60.0
    write: bool = False
    leaks: bool = False
    combine: bool = False
    bad_rate: float = 0.01


@dataclass
class Found:
    """line: of metrics.json; shown: for predictions.json; space: arrays for space.npz."""

    line: dict[str, Any]
    shown: list[dict[str, Any]]
    space: dict[str, np.ndarray]


def hold_out(
    task: Task, train: Records, objective: Objective, out: Path, wanted: Wanted, progress: Callable[[int], Any]
) -> Found:
    """One task evaluated; whatever fails is in its line under "error"."""
    try:
        return _measured(task, train, objective, out, wanted, progress)
    except Exception as error:  # the other tasks' results must stand
        return Found(failed_line(task, error), [], {})


def failed_line(task: Task, error: Exception) -> dict[str, Any]:
    """The line of a task without a result."""
    told = {"error": reason(error)} | ({} if isinstance(error, UserError) else {"traceback": traceback.format_exc()})
    numbers: dict[str, Any] = dict.fromkeys(("value", "chance", "baseline", "low", "high"))
    head = {"metric": task.metric, "higher_is_better": task.higher_is_better, "baseline_name": "none", "n_test": 0}
    return {**head, **numbers, "synthetic": False, "about": "", "extra": {}, **told}


def reason(error: Exception) -> str:
    """An error in one line, with its kind where it is no mistake of the user's."""
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return first if isinstance(error, UserError | OutOfTime) else f"{type(error).__name__}: {first}"


def _measured(
    task: Task, train: Records, objective: Objective, out: Path, wanted: Wanted, progress: Callable[[int], Any]
) -> Found:
    unread = Unread("test", rate=wanted.bad_rate)
    answers = evaluate.answer(task, task.open("test"), objective, progress, unread)
    notes = [unread.write(out), *answers.records.notes]
    columns = predictions.kept(answers)
    compared, more = (
        ordinary(task, train, answers.records, wanted, out) if wanted.baseline is not None else ({}, ["baseline=false"])
    )
    line = evaluate.row(answers, compared)
    file = out / "answers" / f"{quote(task.name, safe='')}.jsonl"
    line |= measured(answers, columns, file, objective if wanted.write else None)
    if calibrated := calibration.compared(answers, objective.model):
        line["calibration"] = calibrated
        notes.append(calibration.said(calibrated))
    if wanted.combine and compared:
        together, more_notes = joined_with(task, train, answers, objective, str(compared["baseline"]), wanted)
        line |= {"together": together}
        more = [*more, *more_notes]
    if wanted.leaks:
        find = partial(leakage_of, task, answers, columns)
        line["leakage"] = from_sound(find, train, task.example)
    notes += [*more, left_out(out, task.name), not_trained_on(out, task.name)]
    line |= {"notes": [note for note in notes if note]}
    return Found(line, evaluate.samples(answers), evaluate.space([answers]))


def ordinary(task: Task, train: Records, test: Records, wanted: Wanted, out: Path) -> tuple[dict[str, Any], list[str]]:
    """What an ordinary method reaches ({} where it cannot be had), and notes on how it was found."""
    val, notes = validation(task)
    try:
        with budget(wanted.baseline or 0.0, strong=wanted.combine):
            try:
                return baseline(task, train, val, test), notes
            except UserError:  # a broken record somewhere; training has listed those of its own
                sound, more = _sound(task, val, wanted, out)
                run = partial(baseline, task, val=sound, test=test)
                return from_sound(run, train, task.example), [*notes, more]
    except Exception as error:
        return {}, [*notes, f"no baseline: {reason(error)}"]


def joined_with(
    task: Task, train: Records, answers: evaluate.Answers, objective: Objective, method: str, wanted: Wanted
) -> tuple[dict[str, Any] | None, list[str]]:
    """Model and ordinary method together; None and a note where they cannot be."""
    run = partial(
        combined.measured, task, answers=answers, objective=objective, method=method, bad_rate=wanted.bad_rate
    )
    try:
        with budget(JOINING * (wanted.baseline or 0.0), strong=True):
            found = from_sound(run, train, task.example)
            return found, [combined.said(found)]
    except Exception as error:
        return None, [f"model and ordinary method are not joined: {reason(error)}"]


def validation(task: Task) -> tuple[Records | None, list[str]]:
    """The validation records, None and a note where the data has none."""
    try:
        found = task.open("val")
    except UserError as error:
        return None, [f"no validation data ({reason(error)}); the baseline is chosen on training data"]
    if not len(found):
        return None, ["the validation split is empty; the baseline is chosen on training data"]
    return found, []


def _sound(task: Task, val: Records | None, wanted: Wanted, out: Path) -> tuple[Records | None, str]:
    """The validation records that can be read, None where none can, and what to say of the others."""
    if val is None:
        return None, ""
    unread = Unread("val", rate=wanted.bad_rate)
    sound = evaluate.readable(task, val, unread)
    said = unread.write(out)
    unread.check(len(sound))
    return (sound if len(sound) else None), said


def left_out(out: Path, task: str) -> str:
    """What to say of the task's steps that did not move the weights, "" where there are none."""
    path = out / "faults.jsonl"
    if not path.is_file():
        return ""
    events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lost = [e for e in events if e["task"] == task and e["action"] == "left out"]
    if not lost:
        return ""
    worst = max((e["loss"] for e in lost), key=lambda loss: (loss != loss, loss))
    return f"{len(lost)} training steps were left out, their loss up to {worst:.4g} (faults.jsonl)"


def not_trained_on(out: Path, task: str) -> str:
    """What to say of the task's different training samples that could not be read, "" where there are none."""
    path = out / "bad_samples.jsonl"
    if not path.is_file():
        return ""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    broken = {line["record"]: line["error"] for line in lines if line["task"] == task}
    if not broken:
        return ""
    name, error = next(iter(broken.items()))
    return f"{len(broken)} training samples could not be read; {name}: {error} ({path.name})"


def leakage_of(task: Task, answers: evaluate.Answers, columns: Columns, training: Records) -> dict[str, Any]:
    """What a line of metrics.json says of test samples that were trained on."""
    return leakage(task.line_kind, columns, training, answers.records, compared_fields(task), RESAMPLES)


def measured(
    answers: evaluate.Answers, columns: Columns, file: Path, writer: Objective | None = None
) -> dict[str, Any]:
    """Saves every answer; what a line of metrics.json says besides: all measures, the interval, the calibration.

    writer: captions are written by it, into a file of their own.
    """
    predictions.save(file, predictions.head_of(answers.task), answers.ids, columns)
    result = measures.measure(answers.task.line_kind, columns, resamples=RESAMPLES, known=answers.derived)
    if writer is not None:
        result["measures"] |= written.measured(writer.model, answers, file.with_suffix(".captions.jsonl"))
    main = result["measures"].get(answers.task.metric, {"low": None, "high": None})
    extra = answers.metrics | {name: one["value"] for name, one in result["measures"].items()}
    more = {name: result[name] for name in ("measures", "reliability") if name in result}
    return {"low": main["low"], "high": main["high"], "extra": extra, "answers": file.name} | more


def failed(metrics: dict[str, Any]) -> list[str]:
    """The tasks of metrics.json that have no result."""
    return [name for name, line in metrics.get("tasks", {}).items() if "error" in line]
