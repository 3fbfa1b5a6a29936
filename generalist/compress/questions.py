"""What two models are asked alike: the tasks of a run's recipe on held-out data, or a model's tasks on other data."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generalist.data.base.errors import UserError, nearest
from generalist.data.stream.source import Records
from generalist.evaluate import measures
from generalist.evaluate.answer import answer, examples_of, readable
from generalist.evaluate.heldout import RESAMPLES
from generalist.evaluate.trained_on import recipe_of
from generalist.evaluate.unread import Unread
from generalist.evaluate.zero_shot import Asked, Judge, named, task_for
from generalist.recipe.load import read_recipe
from generalist.tasks.base.task import Task
from generalist.train.prepare import restore

SIZES = (1, 64)  # samples a pass whose time is taken
ROUNDS = 21


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


def on_data(model: Any, processor: Any, records: Records, asked: Asked, split: str) -> list[Question]:
    """`asked.kind`, or where it is "" every task of the model whose fields the records have."""
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
    found = []
    for kind in kinds:
        own = Asked(kind, asked.inputs, {}, asked.classes, keys=asked.keys, usual=asked.usual)
        task = task_for(own, model, processor, records)
        found.append(sound(task, named(task.answered(records)), Unread(split, mismatches=False)))
    return found


def asked_of(model: Any, question: Question) -> tuple[dict[str, Any], Tensor]:
    """{"metric", "higher_is_better", "value", "low", "high", "n"} of a model, and its features of the inputs."""
    task = question.task
    answers = answer(task, question.records, Judge(model, task))
    found = measures.measure(task.line_kind, answers.columns, resamples=RESAMPLES, known=answers.derived)
    bounds = found["measures"].get(task.metric, {"low": None, "high": None})
    line = {"metric": task.metric, "higher_is_better": task.higher_is_better, "value": answers.metrics[task.metric]}
    return line | {"low": bounds["low"], "high": bounds["high"], "n": found["n"]}, answers.queries


@torch.no_grad()
def milliseconds(models: Sequence[Any], question: Question) -> list[dict[str, float]]:
    """{"1": ms a sample, "64": ...} of each model: packed inputs to features, the median of rounds taken in turn."""
    task, out = question.task, [dict[str, float]() for _ in models]
    numbers = range(min(len(question.records), max(SIZES)))
    examples = [e for i in numbers for e in examples_of(task, question.records, i, [None])]
    for size in SIZES:
        inputs = task.collate(list(islice(cycle(examples), size))).inputs
        taken: list[list[float]] = [[] for _ in models]
        for _ in range(ROUNDS + 1):
            for model, times in zip(models, taken, strict=True):
                packed = inputs.to(model.device)
                began = time.perf_counter()
                model.features(packed).sum().item()  # the sum waits for the device
                times.append(time.perf_counter() - began)
        for found, times in zip(out, taken, strict=True):
            found[str(size)] = 1000 * statistics.median(times[1:]) / size  # the first warms up
    return out
