"""What two models are asked alike: the tasks of a run's recipe on held-out data, or a model's tasks on other data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from generalist.data.base.errors import UserError, nearest
from generalist.data.stream.source import Records
from generalist.evaluate import measures
from generalist.evaluate.answer import answer, readable
from generalist.evaluate.heldout import RESAMPLES
from generalist.evaluate.trained_on import recipe_of
from generalist.evaluate.unread import Unread
from generalist.evaluate.zero_shot import Asked, Judge, named, task_for
from generalist.recipe.load import read_recipe
from generalist.tasks.base.task import Task
from generalist.train.prepare import restore


@dataclass
class Question:
    """A task and the records that can be read; note: what cannot."""

    task: Task
    records: Records
    note: str = ""


def sound(task: Task, records: Records, unread: Unread) -> Question:
    """The question without the records that cannot be read. UserError where those are too many."""
    found = readable(task, records, unread)
    unread.check(len(found))
    return Question(task, found, unread.said)


def of_run(place: Path, processor: Any, only: str = "", verb: str = "compress") -> list[Question]:
    """Every task of the recipe beside the model (or `only` one) on its test split. UserError: no recipe, no task."""
    recipe = recipe_of(place)
    if recipe is None:
        raise UserError(f"no recipe.json beside {place} says what to measure on; give DATA: {verb} {place} DATA ...")
    read = read_recipe(recipe)
    if only:
        if only not in (known := [task.name for task in read.tasks]):
            raise UserError(f"no task {only!r}; {nearest(only, known)}")
        read.tasks = [task for task in read.tasks if task.name == only]
    tasks = restore(read, processor).tasks.values()
    return [sound(task, task.open("test"), Unread("test", rate=read.faults.bad_rate)) for task in tasks]


def tasks_on(model: Any, processor: Any, records: Records, asked: Asked) -> list[Task]:
    """`asked.kind`, or where it is "" every task of the model whose fields the records have, bound to both."""
    if not len(records):
        raise UserError("there is no record to evaluate")
    kinds = [asked.kind]
    if not asked.kind:
        there = set(records[0])
        kinds = [n for n, t in processor.tasks.items() if {*t.inputs.values(), *t.answer_fields()} <= there]
        if not kinds:
            raise UserError(
                f"no task of this model reads the data's fields ({', '.join(sorted(there))}); give --task and --input"
            )
    owns = (Asked(kind, asked.inputs, {}, asked.classes, keys=asked.keys, usual=asked.usual) for kind in kinds)
    return [task_for(own, model, processor, records) for own in owns]


def on_data(model: Any, processor: Any, records: Records, asked: Asked, split: str) -> list[Question]:
    """The tasks of the model that other data can answer, with those of its records that can be read."""
    tasks = tasks_on(model, processor, records, asked)
    return [sound(task, named(task.answered(records)), Unread(split, mismatches=False)) for task in tasks]


def asked_of(model: Any, question: Question) -> tuple[dict[str, Any], Tensor]:
    """{"metric", "higher_is_better", "value", "low", "high", "n"} of a model, and its features of the inputs."""
    task = question.task
    answers = answer(task, question.records, Judge(model, task))
    found = measures.measure(task.line_kind, answers.columns, resamples=RESAMPLES, known=answers.derived)
    bounds = found["measures"].get(task.metric, {"low": None, "high": None})
    line = {"metric": task.metric, "higher_is_better": task.higher_is_better, "value": answers.metrics[task.metric]}
    return line | {"low": bounds["low"], "high": bounds["high"], "n": found["n"]}, answers.queries
