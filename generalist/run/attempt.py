"""Training from a step on, asked to stop, saved, and rolled back where a fault asks for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
from generalist.data.base.signals import HANGUP, STOPPING
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.stream import Steps, WorkerLost, loader
from generalist.machine import ranks, stop_file
from generalist.machine.progress import progress
from generalist.recipe.recipe import Recipe
from generalist.run.folder import RunFolder
from generalist.run.looks import Looks
from generalist.train.checkpoints import checkpoint
from generalist.train.engines.base import Engine
from generalist.train.events import EventLog
from generalist.train.faults import Faults, RollBack
from generalist.train.interference import meter_for
from generalist.train.loop import StepResult, train
from generalist.train.methods.base import Added
from generalist.train.optimizer import rates
from generalist.train.prepare import Prepared
from generalist.train.profile import profiled
from generalist.train.trackers import Trackers


class TasksFinished(Exception):
    """Tasks that validation data ended: from the next step on the others have their share."""


class Interrupted(Exception):
    """The run was asked to stop and has saved: (step, the signal's number)."""


@contextmanager
def stop_flag() -> Iterator[list[int]]:
    """Ctrl-C, SIGTERM and a terminal that is closed fill the list instead of cutting a step in half."""
    asked: list[int] = []
    kept = {}
    terminals = [number for number in (1, 2) if os.isatty(number)]

    def ask(number: int, _frame: object) -> None:
        asked.append(number)
        if number == HANGUP and terminals:  # nobody reads there any more, and writing would fail
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for terminal in terminals:
                os.dup2(nowhere, terminal)
            os.close(nowhere)

    for number in STOPPING:
        if number == HANGUP and signal.getsignal(number) == signal.SIG_IGN:
            continue  # nohup
        with suppress(ValueError):  # not the main thread: the caller keeps its own handling
            kept[number] = signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in kept.items():
            # a launcher may pass on what the process got already: a second SIGTERM must not kill it at the end
            if not (number == signal.SIGTERM and number in asked and ranks.launched_world() > 1):
                signal.signal(number, handler)


def roll_back(out: Path, engine: Engine, saver: checkpoint.Saver, faults: Faults, looks: Looks, fault: RollBack) -> int:
    """Load the last checkpoint and leave the steps that failed out from now on; the step to go on with."""
    saver.finish()
    begun = ranks.on_first(lambda: bool(checkpoint.folders(out)))
    if not begun:
        faults.roll_back(fault, None)  # which ends the run
    step, folder = ranks.on_first(lambda: checkpoint.newest_sound(out))
    faults.roll_back(fault, step)
    engine.load(folder)
    looks.load(folder)
    return step


@dataclass
class Attempt:
    """Training until the end or until a task is finished: what it is made of, and how far it came.

    asked: filled by whoever wants it to stop (`stop_flag`). trackers: who is told besides the log, where there are any.
    """

    recipe: Recipe
    prepared: Prepared
    engine: Engine
    folder: RunFolder
    quiet: bool
    saver: checkpoint.Saver
    faults: Faults
    asked: list[int]
    looks: Looks
    method: Added | None = None
    trackers: Trackers | None = None

    def run(self, first: int) -> int:
        """Train from step `first` on; the step to go on with."""
        recipe, prepared, engine, out = self.recipe, self.prepared, self.engine, self.folder.out
        self.first = self.done = first
        self.whole, self.seen = True, ""
        tasks, self.every = prepared.tasks, recipe.checkpoint.every
        shares, mixed = [t.share for t in tasks.values()], recipe.sampling == "mixed"
        schedule = Schedule(list(tasks), shares, recipe.seed, mixed, self.looks.history.finished)
        accumulate = recipe.engine.accumulate
        steps = Steps(prepared.feeds(), schedule, recipe.seed, engine.rank, engine.world, accumulate, "skip")
        with checkpoint.kept(out):
            self.log = self._log()
        self.meter = meter_for(recipe.optimizer.interference, engine)
        self.bar = progress(self.quiet, total=recipe.steps, initial=first, unit="step")
        try:
            self._train(schedule, steps)
        except TasksFinished:
            if not self.looks.over:
                return self.done
        except WorkerLost as lost:
            if engine.world > 1 or self.done == first:
                raise
            self.save(self.done)  # between two steps: the state is that of the last one
            self.finish_saving()
            raise UserError(f"{lost}; saved after step {self.done}, go on with --resume") from lost
        finally:
            self.bar.close()
            if self.log is not None:
                with checkpoint.kept(out) if self.whole else suppress(OSError):
                    self.log.close()
        if self.meter is not None:
            self.meter.write(out)
        self.finish_saving()
        return self.done

    def _log(self) -> EventLog | None:
        if self.engine.rank:
            return None
        drawn = "tensorboard" in self.recipe.trackers
        return EventLog(self.folder.out, resume_at=self.first, tensorboard=drawn, trackers=self.trackers)

    def _train(self, schedule: Schedule, steps: Steps) -> None:
        recipe, engine, out, asked = self.recipe, self.engine, self.folder.out, self.asked
        if self.looks.due(self.done, recipe.steps) and not self.done:
            self.look()
        pin = engine.device.type == "cuda"
        batches = loader(steps, self.first, recipe.steps, recipe.workers, pin, self.faults.worker_lost)
        train(
            *profiled(engine, batches, out, recipe.profile),
            self.prepared.tasks,
            schedule,
            self.first,
            recipe.steps,
            recipe.optimizer.lr,
            recipe.optimizer.warmup,
            recipe.engine.accumulate,
            self.after,
            lambda: (bool(asked) or (engine.rank == 0 and stop_file.is_asked(out)), self.saver.poll()),
            self.faults.trusted,
            frozenset(self.faults.skip),
            self.method,
            rates(recipe.optimizer, recipe.steps),
        )
        if self.done < recipe.steps:  # the last steps were left out
            self.save(recipe.steps)
        self.done = recipe.steps

    def after(self, result: StepResult) -> None:
        """What follows a step: it is told, judged, looked at and saved where that is due."""
        self.tell(result)
        if result.saved:
            self.saver.finish()
        with checkpoint.kept(self.folder.out):
            self.faults.after(result)
        if self.method is not None:
            self.method.method.after(result.step, result.applied)
        if self.looks.average is not None and result.applied:
            self.looks.average.update()
        self.done, last = result.step + 1, self.recipe.steps
        finished = self.look() if self.looks.due(self.done, last) else []
        if result.stop or self.done == last or self.looks.over or (self.every and self.done % self.every == 0):
            self.save(self.done)
        if result.stop and self.done < last:
            self.finish_saving()
            raise Interrupted(self.done, self.asked[0] if self.asked else signal.SIGTERM)
        if finished and self.done < last:
            raise TasksFinished

    def tell(self, result: StepResult) -> None:
        """A step's line in the log and on the screen."""
        rate = result.samples / max(result.seconds, 1e-9)
        self.bar.set_postfix_str(f"{result.task} loss {result.loss:.3f} {rate:.0f} samples/s{self.seen}", refresh=False)
        self.bar.update(result.step + 1 - self.bar.n)
        if self.log is None:
            return
        extra: dict[str, Any] = {} if result.applied else {"applied": False}
        extra |= result.added | ({} if self.meter is None else self.meter.after(result.task))
        with checkpoint.kept(self.folder.out):
            self.log.write(
                result.step,
                result.task,
                loss=result.loss,
                gradient_norm=result.gradient_norm,
                lr=result.lr,
                samples_per_second=rate,
                seconds=result.seconds,
                waited=result.waited,
                **extra,
            )

    def look(self) -> list[str]:
        """Every task on its validation data; the tasks that are finished by it."""
        with checkpoint.kept(self.folder.out):
            told, finished = self.looks.look(self.done)
            if self.log is not None:
                self.log.write(max(0, self.done - 1), **told)
        self.seen = f", val {told['val/score']:.3f}"
        return finished

    def save(self, step: int) -> None:
        if self.log is not None:
            with checkpoint.kept(self.folder.out):
                self.log.flush()
        self.whole = self.folder.check()
        self.saver.save(step, sorted(self.faults.skip), self.looks)
        if not self.whole:
            self.finish_saving()

    def finish_saving(self) -> None:
        self.saver.finish()
        if self.engine.rank == 0:
            stop_file.answer(self.folder.out)
        if not self.whole:
            raise UserError(
                f"{self.folder.out} was removed while the run wrote in it; the state after step {self.done} is saved "
                "there again, go on with --resume"
            )
