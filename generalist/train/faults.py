"""What a run does about a loss that is not finite or explodes, and about samples that cannot be decoded.

A step whose mean loss is not finite or far above what its task had so far does not move the weights and is
recorded (`faults.jsonl`). After `patience` such steps in a row the run goes back to the last checkpoint and
leaves those steps out (PaLM, 2204.02311 section 5.1, skips the batches around a spike); when that does not
help `rollbacks` times, it stops and names the task. Samples that cannot be decoded are left out, counted by
task and listed (`bad_samples.jsonl`), and stop the run above a rate.

All decisions are functions of numbers that every rank has, so ranks agree without speaking.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter, defaultdict, deque
from pathlib import Path
from statistics import median
from typing import Any

from generalist.data.base.errors import UserError
from generalist.recipe.recipe import Recipe
from generalist.train.loop import StepResult

WINDOW = 32  # losses of a task that say what is usual
ENOUGH = 8  # fewer say nothing
GRACE = 20  # different samples that may fail before the rate counts
TENTH = 0.1  # of a split seen as a whole: so many of a small one are too many, whatever the grace


def too_many(broken: int, seen: int, rate: float, whole: bool = False) -> bool:
    """Whether `broken` of `seen` different samples are more than may fail. whole: these are all that there are.

    A share is known once all were seen; until then, and in a large split, a few are an accident. One alone always is.
    """
    return broken > max(1, rate * seen, min(GRACE, TENTH * seen) if whole else GRACE)


class RollBack(Exception):
    """Steps that failed in a row, and their task."""

    def __init__(self, task: str, steps: list[int], loss: float) -> None:
        super().__init__(task, steps, loss)
        self.task, self.steps, self.loss = task, steps, loss


class Faults:
    """The record of a run's faults. rank 0 writes faults.jsonl; every rank lists its own bad samples.

    skip: steps that are left out. events: the log's lines before `first`, from which a resume knows what is usual.
    sizes: training samples of each task.
    """

    def __init__(
        self,
        out: Path,
        recipe: Recipe,
        rank: int,
        first: int,
        events: list[dict[str, Any]],
        skip: set[int],
        sizes: dict[str, int] | None = None,
    ) -> None:
        self.spec, self.rank, self.out = recipe.faults, rank, out
        self.by_task = recipe.sampling == "unmixed"  # else every rank has its own task, and one loss stands for all
        self.scaled = recipe.engine.precision == "fp16"  # a gradient that overflows then lowers the loss scale
        self.rollbacks = 0
        self.failed: dict[str, list[int]] = defaultdict(list)  # steps in a row, by task
        self.usual: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))
        self.sizes = sizes or {}
        self.seen: Counter[str] = Counter()  # by task, one that comes round again each time
        self.unread: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()  # different ones
        self.bad = out / ("bad_samples.jsonl" if rank == 0 else f"bad_samples.rank{rank}.jsonl")
        self.first_error = ""
        for event in events:
            if event.get("task") is not None and event.get("applied", True):
                self.usual[self.key(event["task"])].append(event["loss"])
        if rank == 0:
            keep_before(out / "faults.jsonl", first, "rolled back")
        keep_before(self.bad, first)
        self.skip = set(skip)

    def key(self, task: str) -> str:
        return task if self.by_task else "all"

    def trusted(self, task: str, loss: float) -> bool:
        """Whether a step of this task with this mean loss (nats) may move the weights."""
        if not math.isfinite(loss):
            return False
        held = self.usual[self.key(task)]
        return not self.spec.explode or len(held) < ENOUGH or loss <= self.spec.explode * (median(held) + 1)

    def after(self, result: StepResult) -> None:
        """Record a step; RollBack or UserError when it is one too many."""
        self._samples(result)
        name = self.key(result.task)
        if result.applied:
            self.usual[name].append(result.loss)
            self.failed[name].clear()
            return
        if self.scaled and math.isfinite(result.loss):
            return
        self._write(result.step, result.task, "left out", loss=result.loss, gradient_norm=result.gradient_norm)
        self.failed[name].append(result.step)
        if len(self.failed[name]) >= self.spec.patience:
            raise RollBack(result.task, list(self.failed[name]), result.loss)

    def roll_back(self, fault: RollBack, checkpoint: int | None) -> None:
        """Leave the failed steps out from now on. UserError when there is no way back."""
        shown = f"task {fault.task}: the loss is {fault.loss:.4g} at steps {', '.join(map(str, fault.steps))}"
        mend = "lower optimizer.lr, set optimizer.clip or look at the task's data"
        if checkpoint is None:
            raise UserError(f"{shown}, before the first checkpoint; {mend}")
        if self.rollbacks >= self.spec.rollbacks:
            raise UserError(f"{shown}, after going back {self.rollbacks} times; {mend}")
        self.rollbacks += 1
        self.skip |= set(fault.steps)
        self.failed.clear()
        self._write(fault.steps[-1], fault.task, "rolled back", to=checkpoint, leave_out=fault.steps)
        if self.rank == 0:
            (self.out / "skip.json").write_text(json.dumps(sorted(self.skip)))

    def worker_lost(self, step: int, what: str) -> None:
        """A loader worker died and was replaced before this step."""
        print(what, file=sys.stderr, flush=True)
        self._write(step, "", "worker restarted", what=what)

    def _samples(self, result: StepResult) -> None:
        task = result.task
        self.seen[task] += result.samples + result.unread
        self.unread[task] += result.unread
        self.broken[task] += result.fresh
        for line in result.bad:
            record, _, error = line.partition("record ")[2].partition(": ")
            self.first_error = self.first_error or line
            _append(self.bad, {"step": result.step, "task": task, "record": record, "error": error})
        size, rate = self.sizes.get(task, math.inf), self.spec.bad_rate
        if self.seen[task] >= size:  # every sample has been drawn
            found, of = self.broken[task], int(size)
            over = too_many(found, of, rate, whole=True)
        else:
            found, of = self.unread.total(), self.seen.total()
            over = self.broken.total() > GRACE and found > rate * of
        if over:
            raise UserError(
                f"{found} of {of} samples cannot be decoded, more than "
                f"faults.bad_rate={rate}; task {task}: {self.first_error or 'see'} ({self.bad})"
            )

    def _write(self, step: int, task: str, action: str, **values: Any) -> None:
        if self.rank == 0:
            _append(self.out / "faults.jsonl", {"step": step, "task": task, "action": action, **values})


def read_skip(out: Path) -> set[int]:
    """The steps that a run leaves out."""
    path = out / "skip.json"
    return set(json.loads(path.read_text())) if path.is_file() else set()


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def keep_before(path: Path, first: int, always: str = "") -> None:
    """Drop the lines of steps that will be done again (and a torn last one), but not those of the action `always`."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event["step"] < first or (always and event.get("action") == always):
            kept.append(line + "\n")
    path.write_text("".join(kept), encoding="utf-8")


def bad_samples(out: Path) -> dict[str, int]:
    """How many samples of each task could not be decoded, from the lists of all ranks."""
    counts: dict[str, int] = defaultdict(int)
    for path in sorted(out.glob("bad_samples*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            counts[json.loads(line)["task"]] += 1
    return dict(counts)
