"""Training from a step on, asked to stop, saved, and rolled back where a fault asks for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
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
        if number == signal.SIGHUP and terminals:  # nobody reads there any more, and writing would fail
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for terminal in terminals:
                os.dup2(nowhere, terminal)
            os.close(nowhere)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
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


def attempt(
    recipe: Recipe,
    prepared: Prepared,
    engine: Engine,
    folder: RunFolder,
    first: int,
    quiet: bool,
    saver: checkpoint.Saver,
    faults: Faults,
    asked: list[int],
    looks: Looks,
    method: Added | None = None,
) -> int:
    """Train from step `first` on until the end or until a task is finished; the step to go on with."""
    out, tasks, every = folder.out, prepared.tasks, recipe.checkpoint.every
    shares, mixed = [t.share for t in tasks.values()], recipe.sampling == "mixed"
    schedule = Schedule(list(tasks), shares, recipe.seed, mixed, looks.history.finished)
    steps = Steps(prepared.feeds(), schedule, recipe.seed, engine.rank, engine.world, recipe.engine.accumulate, "skip")
    with checkpoint.kept(out):
        log = EventLog(out, resume_at=first) if engine.rank == 0 else None
    meter = meter_for(recipe.optimizer.interference, engine)
    bar = progress(quiet, total=recipe.steps, initial=first, unit="step")
    done, whole, seen = first, True, ""

    def save(step: int) -> None:
        nonlocal whole
        if log is not None:
            with checkpoint.kept(out):
                log.flush()
        whole = folder.check()
        saver.save(step, sorted(faults.skip), looks)
        if not whole:
            finish_saving()

    def finish_saving() -> None:
        saver.finish()
        if engine.rank == 0:
            stop_file.answer(out)
        if not whole:
            raise UserError(
                f"{out} was removed while the run wrote in it; the state after step {done} is saved there again, "
                "go on with --resume"
            )

    def look() -> list[str]:
        nonlocal seen
        with checkpoint.kept(out):
            told, finished = looks.look(done)
            if log is not None:
                log.write(max(0, done - 1), **told)
        seen = f", val {told['val/score']:.3f}"
        return finished

    def after(result: StepResult) -> None:
        nonlocal done
        rate = result.samples / max(result.seconds, 1e-9)
        bar.set_postfix_str(f"{result.task} loss {result.loss:.3f} {rate:.0f} samples/s{seen}", refresh=False)
        bar.update(result.step + 1 - bar.n)
        if log is not None:
            extra: dict[str, Any] = {} if result.applied else {"applied": False}
            extra |= result.added | ({} if meter is None else meter.after(result.task))
            with checkpoint.kept(out):
                log.write(
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
        if result.saved:
            saver.finish()
        with checkpoint.kept(out):
            faults.after(result)
        if method is not None:
            method.method.after(result.step, result.applied)
        if looks.average is not None and result.applied:
            looks.average.update()
        done = result.step + 1
        finished = look() if looks.due(done, recipe.steps) else []
        if result.stop or done == recipe.steps or looks.over or (every and done % every == 0):
            save(done)
        if result.stop and done < recipe.steps:
            finish_saving()
            raise Interrupted(done, asked[0] if asked else signal.SIGTERM)
        if finished and done < recipe.steps:
            raise TasksFinished

    try:
        if looks.due(done, recipe.steps) and not done:
            look()
        pin = engine.device.type == "cuda"
        batches = loader(steps, first, recipe.steps, recipe.workers, pin, faults.worker_lost)
        train(
            *profiled(engine, batches, out, recipe.profile),
            tasks,
            schedule,
            first,
            recipe.steps,
            recipe.optimizer.lr,
            recipe.optimizer.warmup,
            recipe.engine.accumulate,
            after,
            lambda: (bool(asked) or (engine.rank == 0 and stop_file.is_asked(out)), saver.poll()),
            faults.trusted,
            frozenset(faults.skip),
            method,
            rates(recipe.optimizer, recipe.steps),
        )
        if done < recipe.steps:  # the last steps were left out
            save(recipe.steps)
        done = recipe.steps
    except TasksFinished:
        if not looks.over:
            return done
    except WorkerLost as lost:
        if engine.world > 1 or done == first:
            raise
        save(done)  # between two steps: the state is that of the last one
        finish_saving()
        raise UserError(f"{lost}; saved after step {done}, go on with --resume") from lost
    finally:
        bar.close()
        if log is not None:
            with checkpoint.kept(out) if whole else suppress(OSError):
                log.close()
    if meter is not None:
        meter.write(out)
    finish_saving()
    return done
