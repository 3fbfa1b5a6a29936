"""`generalist train`: a recipe from its first step to its report, stopped and resumed without a difference.

The same on one process and on many: rank 0 alone writes, every rank trains.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from data.errors import UserError
from data.schedule import Schedule
from data.stream import Steps, WorkerLost, loader
from generalist import checkpoint, control, grown, manifest, ranks, stop_file
from generalist.compiled import compile_layers
from generalist.engine import Engine, LocalEngine, recompute_activations, seed_all
from generalist.events import EventLog, read_log
from generalist.faults import Faults, RollBack, read_skip
from generalist.initial import load_initial
from generalist.interference import meter_for
from generalist.loop import StepResult, train
from generalist.objective import Objective
from generalist.optimizer import build_optimizer
from generalist.preflight import preflight
from generalist.prepare import Prepared, prepare
from generalist.profile import profiled
from generalist.recipe import Recipe, to_json
from generalist.results import evaluate_run, exporter, load_run, save_model, table, write_json
from generalist.run_folder import RunFolder

__all__ = ["Interrupted", "evaluate_run", "load_run", "save_model", "table", "train_run", "write_json"]


class Interrupted(Exception):
    """The run was asked to stop and has saved: (step, the signal's number)."""


def train_run(
    recipe: Recipe, out: Path, resume: bool = False, overwrite: bool = False, quiet: bool = False, trust: bool = False
) -> dict:
    """Train, evaluate, write the run's folder. Returns what metrics.json holds; {} on every rank but the first.

    trust: a resume also reads a checkpoint of an earlier version, whose files can run code.
    """
    folder = RunFolder(out)
    try:
        return _run(recipe, folder, resume, overwrite, quiet, trust)
    finally:
        folder.release()


def _run(recipe: Recipe, folder: RunFolder, resume: bool, overwrite: bool, quiet: bool, trust: bool) -> dict:
    out = folder.out
    recipe.check()
    control.check_control(recipe, ranks.launched_world())
    if recipe.engine.threads:
        torch.set_num_threads(recipe.engine.threads)
    device = device_of(recipe.engine.device)
    distributed = needs_group(recipe)
    if distributed:
        ranks.join(device, recipe.engine.timeout)
    as_given = to_json(recipe)  # before anything is learnt from data: a resume compares it with what it is given
    try:
        ranks.agree(as_given)
        world = ranks.launched_world()
        first, start = ranks.on_first(lambda: folder.open(recipe, resume, overwrite, trust, world))
        began = time.time()
        prepared = prepare(recipe)
        notes = ranks.on_first(lambda: preflight(prepared, recipe))
        if not quiet and ranks.is_first():
            print("\n".join([prepared.describe(recipe), *notes]), file=sys.stderr, flush=True)
        if start and (note := grown.check_same(prepared, out, start / "model")) and ranks.is_first():
            print(note, file=sys.stderr, flush=True)
        elif start is None and ranks.is_first():
            write_json(out / grown.COUNTS, grown.counts(prepared))
        objective = prepared.objective(recipe)
        if recipe.init and not resume:
            start_from(recipe, objective, out)
        engine = build_engine(recipe, objective, device)
        seed_all(recipe.seed + 1 + engine.rank)
        if start is not None:
            engine.load(start, trust and manifest.is_old(start))
        _train(recipe, as_given, prepared, objective, engine, folder, first, quiet or engine.rank > 0)
        weights = engine.weights() if distributed else None
        ranks.barrier()  # nobody parts while another still reads
        is_first = engine.rank == 0
    finally:
        if distributed:
            ranks.leave()
    if not is_first:
        return {}
    if weights is not None:
        objective = prepared.objective(recipe)
        objective.load_state_dict(weights)
    seconds = time.time() - began
    if recipe.model.control:
        _train_control(as_given, out, resume, quiet)
    return finish(recipe, prepared, objective, out, quiet, seconds)


def _train_control(as_given: dict[str, Any], out: Path, resume: bool, quiet: bool) -> None:
    """The run on a random encoder, in a folder of its own; one that is finished is not trained again on a resume."""
    folder = out / control.FOLDER
    if resume and (folder / "metrics.json").is_file():
        return
    going_on = resume and bool(checkpoint.folders(folder))
    train_run(control.control_recipe(as_given), folder, going_on, not going_on, quiet)


def start_from(recipe: Recipe, objective: Objective, out: Path) -> None:
    """Take the weights of `recipe.init`; what was taken is told and written beside the run."""
    report = load_initial(objective.model, Path(recipe.init))
    if ranks.is_first():
        print(report, file=sys.stderr, flush=True)
        write_json(out / "init.json", asdict(report))


def finish(
    recipe: Recipe, prepared: Prepared, objective: Objective, out: Path, quiet: bool, train_seconds: float
) -> dict[str, Any]:
    """The trained model's folder, its held-out results and the report."""
    from generalist.report import write_report

    save_model(prepared, objective.model, out)
    metrics = evaluate_run(recipe, prepared, objective, out, quiet, train_seconds)
    write_report(out)
    return metrics


# --- what a run is made of ---


def needs_group(recipe: Recipe) -> bool:
    """Whether this run trains with DeepSpeed: asked for, or launched as several processes."""
    kind = recipe.engine.kind
    if kind == "local" and ranks.launched_world() > 1:
        raise UserError(f"engine.kind=local is one process, and {ranks.launched_world()} were launched; use deepspeed")
    return kind == "deepspeed" or (kind == "auto" and ranks.launched_world() > 1)


def build_engine(recipe: Recipe, objective: Objective, device: torch.device) -> Engine:
    spec = recipe.engine
    if spec.compile:
        compile_layers(objective)
    if needs_group(recipe):
        from generalist.deepspeed_engine import DeepSpeedEngine

        return DeepSpeedEngine(objective, recipe, device)
    if spec.deepspeed or spec.offload != "none":
        raise UserError("engine.deepspeed and engine.offload need engine.kind=deepspeed (or several processes)")
    if spec.activation_checkpointing:
        recompute_activations(objective)
    return LocalEngine(objective, build_optimizer(recipe, objective), device, spec.precision, recipe.optimizer.clip)


def device_of(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"engine.device={name!r} is not a device; use auto, cpu or cuda") from error
    if device.type == "cuda" and device.index is None:  # every rank of a machine has its own
        return torch.device("cuda", ranks.local_rank())
    return device


# --- asked to stop ---


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


# --- training ---


def _train(
    recipe: Recipe,
    as_given: dict[str, Any],
    prepared: Prepared,
    objective: Objective,
    engine: Engine,
    folder: RunFolder,
    first: int,
    quiet: bool,
) -> None:
    """Steps first..recipe.steps-1, from the last checkpoint again where a fault asks for it."""
    spec, out = recipe.checkpoint, folder.out
    saver = checkpoint.Saver(out, engine, as_given, spec.keep, spec.asynchronous, exporter(prepared, objective.model))
    events, skip = ranks.on_first(lambda: (read_log(out), read_skip(out)))
    faults = Faults(out, recipe, engine.rank, first, [e for e in events if e["step"] < first], skip)
    with stop_flag() as asked:
        while first < recipe.steps:
            try:
                _attempt(recipe, prepared, engine, folder, first, quiet, saver, faults, asked)
                return
            except RollBack as fault:
                first = _roll_back(out, engine, saver, faults, fault)


def _roll_back(out: Path, engine: Engine, saver: checkpoint.Saver, faults: Faults, fault: RollBack) -> int:
    """Load the last checkpoint and leave the steps that failed out from now on; the step to go on with."""
    saver.finish()
    begun = ranks.on_first(lambda: bool(checkpoint.folders(out)))
    if not begun:
        faults.roll_back(fault, None)  # which ends the run
    step, folder = ranks.on_first(lambda: checkpoint.newest_sound(out))
    faults.roll_back(fault, step)
    engine.load(folder)
    return step


def _attempt(
    recipe: Recipe,
    prepared: Prepared,
    engine: Engine,
    folder: RunFolder,
    first: int,
    quiet: bool,
    saver: checkpoint.Saver,
    faults: Faults,
    asked: list[int],
) -> None:
    out, tasks, every = folder.out, prepared.tasks, recipe.checkpoint.every
    schedule = Schedule(list(tasks), [t.share for t in tasks.values()], recipe.seed, recipe.sampling == "mixed")
    steps = Steps(prepared.feeds(), schedule, recipe.seed, engine.rank, engine.world, recipe.engine.accumulate, "skip")
    with checkpoint.kept(out):
        log = EventLog(out, resume_at=first) if engine.rank == 0 else None
    meter = meter_for(recipe.optimizer.interference, engine)
    bar = tqdm(total=recipe.steps, initial=first, unit="step", disable=quiet, file=sys.stderr, dynamic_ncols=True)
    done, whole = first, True

    def save(step: int) -> None:
        nonlocal whole
        if log is not None:
            with checkpoint.kept(out):
                log.flush()
        whole = folder.check()
        saver.save(step, sorted(faults.skip))
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

    def after(result: StepResult) -> None:
        nonlocal done
        rate = result.samples / max(result.seconds, 1e-9)
        bar.set_postfix_str(f"{result.task} loss {result.loss:.3f} {rate:.0f} samples/s", refresh=False)
        bar.update(result.step + 1 - bar.n)
        if log is not None:
            extra: dict[str, Any] = {} if result.applied else {"applied": False}
            extra |= {} if meter is None else meter.after(result.task)
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
        done = result.step + 1
        if result.stop or done == recipe.steps or (every and done % every == 0):
            save(done)
        if result.stop and done < recipe.steps:
            finish_saving()
            raise Interrupted(done, asked[0] if asked else signal.SIGTERM)

    try:
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
            recipe.optimizer.floor,
        )
        if meter is not None:
            meter.write(out)
        if done < recipe.steps:  # the last steps were left out
            save(recipe.steps)
        finish_saving()
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
