"""What a run that began from a model still knows of what its start knew: `metrics.json` under "start".

    a run's folder      the start's own tasks, on their test data: its value then, and the new model's now
    a model's folder    this run's tasks that the start answers without training (its modalities, names as words)

A task that cannot be asked again is a note with its reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

from generalist.evaluate.answer import answer
from generalist.evaluate.heldout import reason
from generalist.evaluate.zero_shot import Judge
from generalist.hf.saved import read_model
from generalist.model.model import PackedModel
from generalist.recipe.load import read_recipe
from generalist.recipe.recipe import Recipe
from generalist.tasks.base.task import Task
from generalist.train.prepare import Prepared
from generalist.train.start.initial import initial_folder

Row = dict[str, Any]


def of_start(recipe: Recipe, prepared: Prepared, model: PackedModel, lines: dict[str, Row]) -> Row | None:
    """{"from", "tasks": {task: {"metric", "higher_is_better", "before", "after"}}, "notes"}; None without a start.

    lines: of this run's own tasks, as metrics.json holds them.
    """
    if not recipe.init:
        return None
    found: Row = {"from": recipe.init, "tasks": {}, "notes": []}
    try:
        folder = Path(recipe.init)
        is_run = (folder / "recipe.json").is_file() and (folder / "metrics.json").is_file()
        rows = _of_run(folder, prepared, model, lines) if is_run else _of_model(folder, prepared, lines)
        for name, row in rows:
            if isinstance(row, str):
                found["notes"].append(f"{name}: {row}")
            else:
                found["tasks"][name] = row
    except Exception as error:  # the run's own results must stand
        found["notes"].append(reason(error))
    return found


def _of_run(
    folder: Path, prepared: Prepared, model: PackedModel, lines: dict[str, Row]
) -> Iterator[tuple[str, Row | str]]:
    before = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["tasks"]
    _, processor = read_model(initial_folder(folder))
    for task in read_recipe(folder / "recipe.json").tasks:
        was = before.get(task.name, {})
        if was.get("value") is None:
            continue
        own = prepared.tasks.get(task.name)
        if own is not None and own.source == task.source and lines.get(task.name, {}).get("value") is not None:
            yield task.name, _row(task, was["value"], lines[task.name]["value"])
            continue
        yield task.name, _asked(task, was["value"], model, prepared.modalities, processor.sets.get(task.name))


def _of_model(folder: Path, prepared: Prepared, lines: dict[str, Row]) -> Iterator[tuple[str, Row | str]]:
    start, processor = read_model(initial_folder(folder))
    for name, task in prepared.tasks.items():
        asked = {*task.inputs, *task.answers_in()}
        if asked <= set(processor.built) and lines.get(name, {}).get("value") is not None:
            yield name, _row(task, _value(task, start, processor.built, task.candidates), lines[name]["value"])


def _asked(task: Task, before: float, model: PackedModel, modalities: dict[str, Any], candidates: Any) -> Row | str:
    """The row of a task that this run does not have, or why it cannot be asked."""
    try:
        return _row(task, before, _value(task, model, modalities, candidates))
    except Exception as error:  # its data or a modality is gone
        return f"not asked again: {reason(error)}"


def _value(task: Task, model: PackedModel, modalities: dict[str, Any], candidates: Any) -> float:
    """A task's measure of its test data, as a model answers it."""
    asked, records = copy(task), task.open("test")
    if asked.scale not in model.log_scales:
        asked.scale = model.config.zero_shot_scale
    asked.bind(modalities, candidates, records.info)
    return float(answer(asked, records, Judge(model, asked)).metrics[asked.metric])


def _row(task: Task, before: float, after: float) -> Row:
    return {
        "metric": task.metric,
        "higher_is_better": task.higher_is_better,
        "before": float(before),
        "after": float(after),
    }


def table(found: Row | None) -> str:
    """The rows as text, "" where there is no start."""
    if not found or not (found["tasks"] or found["notes"]):
        return ""
    head = f"what the start ({found['from']}) knew"
    rows = [
        f"  {name}  {row['metric']}  before {row['before']:.3g}  after {row['after']:.3g}"
        for name, row in found["tasks"].items()
    ]
    return "\n".join([head, *rows, *(f"  {note}" for note in found["notes"])])
