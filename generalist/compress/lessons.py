"""What a saved model can be taught again: its tasks and their training records, and the steps of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Batch
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.source import Records
from generalist.data.stream.stream import Steps
from generalist.evaluate.zero_shot import named
from generalist.model.folder.referred import prefix_of
from generalist.model.objective import Objective
from generalist.recipe.load import read_recipe
from generalist.recipe.method import DistillSpec, MethodSpec
from generalist.recipe.recipe import Recipe
from generalist.recipe.specs import EngineSpec
from generalist.tasks.base.task import Task
from generalist.train.engines.build import build_engine, device_of
from generalist.train.loop import StepResult, train
from generalist.train.methods.table import build_method
from generalist.train.optimizer import learning_rate
from generalist.train.prepare import Prepared, restore


@dataclass
class Pace:
    """How long a model is taught: `steps`, or as many as fit into `seconds`; lr: the peak, 0 = the method's own."""

    steps: int = 400
    seconds: float = 60.0
    lr: float = 0.0

    def check(self, name: str) -> None:
        """UserError for what is no length or rate."""
        if self.steps < 1 or not self.seconds > 0 or not 0 <= self.lr < float("inf"):
            raise UserError(f"{name}: steps={self.steps}, seconds={self.seconds:g}, lr={self.lr:g}: all are positive")


@dataclass
class Lessons:
    """recipe: how the model was trained, or the defaults; prepared: tasks bound to it, training records, candidates."""

    recipe: Recipe
    prepared: Prepared

    def objective(self, model: Any) -> Objective:
        """A model with everything that it is taught on."""
        parts = self.prepared
        return Objective(model, parts.sets, parts.modalities, self.recipe.candidates, self.recipe.sampling == "mixed")

    def batches(self, seed: int = 0) -> Iterator[Batch]:
        """Training batches without end, a task each, as the recipe's shares have it; broken samples are left out."""
        schedule = self.schedule()
        steps = Steps(self.prepared.feeds(), schedule, seed, corrupt="skip")
        return (steps[i] for i in range(2**31))

    def schedule(self) -> Schedule:
        tasks = self.prepared.tasks
        return Schedule(list(tasks), [task.share for task in tasks.values()], self.recipe.seed)


def of_run(place: Path, recipe: Path, processor: Any, only: str = "") -> Lessons:
    """What a run's recipe trains on. UserError: its data are gone, or one of them has no training records."""
    read = read_recipe(recipe)
    if only:
        read.tasks = [task for task in read.tasks if task.name == only]
    found = Lessons(plain(read), restore(read, processor))
    for name, records in found.prepared.records.items():
        if not len(records):
            raise UserError(f"{place}: task {name} has no training records any more")
    return found


def on_data(processor: Any, tasks: list[Task], records: Records) -> Lessons:
    """The training split of other data, for tasks that are bound to the model. UserError: none of it has answers."""
    labelled = {}
    for task in tasks:
        own = task.answered(records, "train")
        lacking = [field for field in task.answer_fields() if not len(own) or field not in own[0]]
        if lacking:
            raise UserError(f"task {task.name}: the data have no answers ({', '.join(lacking)}) to be taught with")
        labelled[task.name] = named(own)
    sets = {task.name: task.candidates for task in tasks if task.candidates is not None}
    recipe = Recipe(name="compress", about="", steps=1, modalities=processor.built, tasks=tasks)
    return Lessons(recipe, Prepared(processor.built, {task.name: task for task in tasks}, labelled, sets))


def plain(recipe: Recipe) -> Recipe:
    """The recipe on one process of this machine, with the law alone."""
    engine = EngineSpec(device=recipe.engine.device, precision=recipe.engine.precision)
    engine = replace(engine, precision="fp32") if engine.precision == "fp16" else engine
    model = replace(recipe.model, sparsity=0.0, elastic=False)
    return replace(recipe, model=model, engine=engine, method=MethodSpec(), distill=DistillSpec(), init="")


class _Over(Exception):
    """The time is up."""


def teach(
    model: Any,
    lessons: Lessons,
    pace: Pace,
    lr: float,
    teacher: Path | None = None,
    weight: float = 1.0,
    t: float = 2.0,
    only: tuple[str, ...] = ("",),
) -> dict[str, Any]:
    """Trains `model` in place, within the law and by a teacher's ranking (weight, temperature `t`) where there is one.

    only: beginnings of the names of parameters that move. lr: the peak where `pace` says none. Warm-up over a
    twentieth, then a cosine to a hundredth, by steps or by time, whichever is further on. Returns {"steps", "seconds",
    "loss"}, the mean of the last twenty.
    """
    distill = DistillSpec() if teacher is None else DistillSpec(str(teacher), weight, t)
    recipe = replace(lessons.recipe, steps=pace.steps, distill=distill)
    seed = recipe.seed
    torch.manual_seed(seed)
    objective = lessons.objective(model)
    named_only = tuple(prefix_of(modality) for modality in model.config.referred or {})
    fixed = [
        p
        for name, p in model.named_parameters()
        if p.requires_grad and (name.startswith(named_only) or not name.startswith(only))
    ]
    for parameter in fixed:
        parameter.requires_grad_(False)
    method = build_method(recipe, objective)
    engine = build_engine(recipe, objective, device_of(recipe.engine.device))
    began, losses = time.perf_counter(), list[float]()

    def factor(step: int) -> float:
        gone = max(step / pace.steps, (time.perf_counter() - began) / pace.seconds)
        return learning_rate(round(1000 * gone), 1000, 50)

    def after(result: StepResult) -> None:
        losses.append(result.loss)
        if time.perf_counter() - began >= pace.seconds:
            raise _Over

    objective.train()
    try:
        parts = (lessons.batches(seed), lessons.prepared.tasks, lessons.schedule(), 0, pace.steps)
        train(engine, *parts, lr=pace.lr or lr, warmup=0, after=after, method=method, factor=factor)
    except _Over:
        pass
    model.to("cpu").eval()
    for parameter in fixed:
        parameter.requires_grad_(True)
    last = losses[-20:]
    return {"steps": len(losses), "seconds": round(time.perf_counter() - began, 1), "loss": sum(last) / len(last)}
