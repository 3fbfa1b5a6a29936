"""Looks at the validation data while training: scores by task, which look was best, and which tasks are finished.

A look scores every task on an evenly spread part of its validation data, the same at every look. How many samples and
how often follows from counts of samples alone, never from a clock: the looks of a run that was resumed are those of
the run that never stopped, and every rank looks at the same steps (rank 0's numbers hold for all).

    score  the value where more is better, 1 - value / chance where less is (chance: of a guess without the input)

The weights of the looks that were best, for the run (by the mean over its tasks) and for each task, lie in best/.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
from generalist.data.stream.source import Records
from generalist.evaluate.answer import answer
from generalist.evaluate.heldout import validation
from generalist.evaluate.unread import Unread
from generalist.machine import ranks
from generalist.model.objective import Objective
from generalist.recipe.recipe import Recipe
from generalist.tasks.base.task import Task
from generalist.tasks.measures.lines import KINDS
from generalist.tokenizers_mod.base.views import views_of
from generalist.train.average import Average
from generalist.train.checkpoints import owned
from generalist.train.checkpoints.checkpoint import checkpoints, write_tensors
from generalist.train.checkpoints.manifest import replace_text
from generalist.train.engines import portable
from generalist.train.engines.base import Engine, rng_state, set_rng_state

FILE = "validation.json"  # in the run's folder and in each of its checkpoints
FORWARD = 0.5  # of a training step's time a sample, at most: a look has no backward pass
FIXED = 3.0  # steps' time that a look takes beside its samples: candidates encoded, weights written
# samples of a task that a look wants (of few, the best look is the luckiest one), where so many stretches of training
# lie between the looks that the cost allows; else the next, and in the shortest run whatever it allows
ENOUGH = ((1000, 6), (200, 3), (64, 1))
MISFITS = ("nll", "CRPS")  # what decides between looks of equal score
LOWEST = -1e9  # the score of what is no number
RUN = ""  # in place of a task's name: the run as a whole


@dataclass
class Look:
    """After `step` steps. values: {task: {its metric: value, ...}}; scores: {task: (score, -misfit)}."""

    step: int
    values: dict[str, dict[str, float]]
    scores: dict[str, tuple[float, float]]

    def score(self, task: str) -> tuple[float, float]:
        """Of a task, or of the run: the mean over its tasks."""
        if task != RUN:
            return self.scores[task]
        every = list(self.scores.values())
        return sum(s for s, _ in every) / len(every), sum(m for _, m in every) / len(every)


@dataclass
class History:
    """All looks so far and the tasks that are finished, {task: step}: what a checkpoint holds of them."""

    looks: list[Look] = field(default_factory=list)
    finished: dict[str, int] = field(default_factory=dict)

    def best(self, task: str = RUN, until: float = math.inf) -> int | None:
        """The step of the best look, the first of equals; None where there is none. until: of those up to this step."""
        held = [look for look in self.looks if look.step <= until]
        return max(held, key=lambda look: (look.score(task), -look.step)).step if held else None

    def bests(self, until: float = math.inf) -> set[int]:
        """The steps whose weights are those of a best look, of the run or of a task."""
        names = [RUN, *(self.looks[0].scores if self.looks else ())]
        return {step for name in names if (step := self.best(name, until)) is not None}

    def waited(self, task: str) -> int:
        """Looks since the task's best one."""
        best = self.best(task)
        return sum(look.step > best for look in self.looks) if best is not None else 0

    def summary(self) -> dict[str, Any]:
        """What metrics.json says of the looks."""
        tasks = self.looks[0].scores
        best = {name: self.best(name) for name in tasks}
        last = self.looks[-1].step
        return {"looks": len(self.looks), "last": last, "best": self.best(), "best of": best, "finished": self.finished}

    def to_json(self) -> dict[str, Any]:
        return {"looks": [asdict(look) for look in self.looks], "finished": self.finished}

    @classmethod
    def from_json(cls, held: dict[str, Any]) -> History:
        looks = [Look(**look) for look in held["looks"]]
        for look in looks:
            look.scores = {name: (score, misfit) for name, (score, misfit) in look.scores.items()}
        return cls(looks, dict(held["finished"]))


class Looks:
    """The looks of a run under way; `every` is 0 where it has none. Its decisions are the same on every rank."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        tasks: dict[str, Task],
        objective: Objective,
        engine: Engine,
        average: Average | None = None,
    ) -> None:
        self.spec, self.out, self.tasks = recipe.validation, out, tasks
        self.objective, self.engine, self.average = objective, engine, average
        self.history, self.every = History(), 0
        self.frozen = {name for name, p in objective.named_parameters() if not p.requires_grad}
        self.records: dict[str, Records] = {}
        if self.spec.every:
            found = {name: validation(task)[0] for name, task in tasks.items()}
            self.records = {name: records for name, records in found.items() if records is not None}
        if self.records:
            views = {name: views_of(task.modalities[m] for m in task.inputs) for name, task in tasks.items()}
            self.every, sizes = planned(recipe, {n: len(r) for n, r in self.records.items()}, engine.world, views)
            self.records = {name: records.spread(sizes[name]) for name, records in self.records.items()}

    # --- what the loop asks ---

    def due(self, done: int, steps: int) -> bool:
        """Whether to look after `done` steps; the untrained model is looked at too, and the last one."""
        return bool(self.every) and (done % self.every == 0 or done == steps) and not self.seen(done)

    def seen(self, done: int) -> bool:
        return bool(self.history.looks) and self.history.looks[-1].step >= done

    @property
    def over(self) -> bool:
        """Whether every task is finished."""
        return bool(self.tasks) and set(self.tasks) <= set(self.history.finished)

    def look(self, done: int) -> tuple[dict[str, Any], list[str]]:
        """Score the weights after `done` steps: what the log holds of it, and the tasks that are finished with it."""
        began = time.perf_counter()
        values, scores = {}, {}
        state = rng_state()
        with self.shown():
            for name, records in self.records.items():
                values[name], scores[name] = scored(self.tasks[name], records, self.objective)
            values, scores = ranks.on_first(lambda: (values, scores))
            self.history.looks.append(Look(done, values, scores))
            finished = [name for name in self.records if self._ends(name)] if done else []
            self.history.finished |= dict.fromkeys(finished, done)
            self._keep(done)
        set_rng_state(state)
        told = {f"val/{name}/{metric}": v for name, found in values.items() for metric, v in found.items()}
        score = self.history.looks[-1].score(RUN)[0]
        return told | {"val/score": score, "looked": time.perf_counter() - began}, finished

    def _ends(self, task: str) -> bool:
        patience = self.spec.patience
        return bool(patience) and task not in self.history.finished and self.history.waited(task) >= patience

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Inside, the objective has the weights that are looked at and saved: the average where there is one."""
        with self.average.in_place() if self.average is not None else nullcontext():
            yield

    # --- weights of the best ---

    def _keep(self, done: int) -> None:
        """The weights after `done` steps where they are the best so far; those that no look needs any more go."""
        if done in self.history.bests():
            weights = self.engine.weights()
            if self.engine.rank == 0:
                owned.claim(self.out, [weights_file(done)])
                moved = {name: value for name, value in weights.items() if name not in self.frozen}
                write_tensors(moved, self.out / weights_file(done))
        if self.engine.rank == 0:
            # a checkpoint that is gone back to must find what was the best until then
            untils = [math.inf, *(float(step) for step, _ in checkpoints(self.out))]
            wanted = {weights_file(step) for until in untils for step in self.history.bests(until)}
            for path in (self.out / "best").glob("step-*.pt"):
                if f"best/{path.name}" not in wanted:
                    owned.remove(self.out, f"best/{path.name}")
            self._write()

    def _write(self) -> None:
        replace_text(self.out / FILE, json.dumps(self.history.to_json(), indent=1))

    # --- checkpoints ---

    def state(self) -> dict[str, Any]:
        """{file of a checkpoint: what it holds}; {} where there is nothing to say."""
        files: dict[str, Any] = {FILE: self.history.to_json()} if self.every else {}
        return files | ({} if self.average is None else {"average.pt": self.average.state()})

    def load(self, folder: Path) -> None:
        """The inverse, from a checkpoint's folder."""
        self.history = read(folder)
        if self.every and self.engine.rank == 0:
            self._write()
        if self.average is not None:
            if not (folder / "average.pt").is_file():
                raise UserError(f"{folder} holds no average of the weights; go on with optimizer.ema=0 or start anew")
            self.average.load(portable.load(folder / "average.pt"))


def planned(
    recipe: Recipe, sizes: dict[str, int], world: int = 1, views: dict[str, int] | None = None
) -> tuple[int, dict[str, int]]:
    """Steps between looks and samples of each task at one, all looks within `validation.cost` of training's work.

    The looks before the first step and behind the last one count too: in a short run they are the only ones, at few
    samples. Every rank looks at all samples, and trains on its share of a batch. views: how often a sample is looked
    at.
    """
    total, steps = sum(task.share for task in recipe.tasks), max(1, recipe.steps)
    work = recipe.validation.cost * steps  # of all looks, in steps' time
    # samples of each task that a look may take in the place of one step
    each = {t.name: t.share / total * t.batch / world / FORWARD / (views or {}).get(t.name, 1) for t in recipe.tasks}
    between = 1
    for samples, stretches in ENOUGH:
        took = FIXED + max(min(size, samples) / each[name] for name, size in sizes.items())
        between = int(work / took) - 1  # looks are one more than stretches
        if between >= stretches:
            break
    every = max(recipe.validation.every, math.ceil(steps / max(1, between)))
    free = work / (1 + math.ceil(steps / every)) - FIXED + 1e-9
    return every, {name: min(size, max(1, int(free * each[name]))) for name, size in sizes.items()}


def scored(task: Task, records: Records, objective: Objective) -> tuple[dict[str, float], tuple[float, float]]:
    """A task's values on these records, and (score, -misfit)."""
    found = answer(task, records, objective, unread=Unread("val", rate=1.0))
    value = float(found.metrics[task.metric])
    misfit = next((float(found.derived[m]) for m in MISFITS if m in found.derived), 0.0)
    values = {task.metric: value} | {m: float(found.derived[m]) for m in MISFITS if m in found.derived}
    if task.higher_is_better:
        score = value
    else:
        chance = KINDS[task.line_kind][1](found.columns).get(task.metric)
        score = 1 - value / chance if chance else -value
    return values, (finite(score), finite(-misfit))


def finite(x: float) -> float:
    return x if math.isfinite(x) else LOWEST


def read(folder: Path) -> History:
    """The looks that a checkpoint or a run holds; none where it has no file."""
    path = folder / FILE
    return History.from_json(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else History()


def load_weights(objective: Objective, out: Path, step: int) -> None:
    """Give the objective the weights that it had at a best look; those that do not train are not among them."""
    odd = objective.load_state_dict(portable.load(out / weights_file(step)), strict=False)
    moving = {name for name, p in objective.named_parameters() if p.requires_grad}
    if odd.unexpected_keys or (lost := moving & set(odd.missing_keys)):
        name = next(iter([*odd.unexpected_keys, *lost]))
        raise UserError(f"{out / weights_file(step)} is of another model ({name}); train anew with --overwrite")


def weights_file(step: int) -> str:
    return f"best/step-{step:08d}.pt"
