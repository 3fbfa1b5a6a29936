"""`generalist train`: a recipe from its first step to its report, stopped and resumed without a difference.

The same on one process and on many: rank 0 alone writes, every rank trains.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch

from generalist.data.base.errors import UserError
from generalist.evaluate.calibration import calibrate
from generalist.hf.processor import GeneralistProcessor
from generalist.machine import ranks
from generalist.model.objective import Objective
from generalist.recipe.json import to_json
from generalist.recipe.recipe import Recipe
from generalist.run import control, grown
from generalist.run.attempt import Attempt, roll_back, stop_flag
from generalist.run.folder import METHOD, RunFolder
from generalist.run.looks import Looks, load_weights
from generalist.run.looks import read as read_history
from generalist.run.preflight import preflight
from generalist.run.results import evaluate_run, exporter, save_model, write_json
from generalist.shipped import names
from generalist.train.average import average_of
from generalist.train.checkpoints import checkpoint, manifest
from generalist.train.engines.base import Engine, seed_all
from generalist.train.engines.build import build_engine, device_of, needs_group
from generalist.train.events import read_log
from generalist.train.faults import Faults, RollBack, read_skip
from generalist.train.methods.base import Added
from generalist.train.methods.table import build_method
from generalist.train.prepare import Prepared, check_model, prepare, restore
from generalist.train.start.initial import load_initial
from generalist.train.trackers import check_trackers, opened


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
    check_model(recipe)
    check_trackers(recipe.trackers)
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
        old = start is not None and manifest.is_old(start)  # an earlier version learnt words and columns its own way
        if start is not None and old:
            prepared = restore(recipe, GeneralistProcessor.from_pretrained(start / "model"))
        else:
            prepared = prepare(recipe)
        notes = ranks.on_first(lambda: preflight(prepared, recipe))
        if not quiet and ranks.is_first():
            print("\n".join([prepared.describe(recipe), *notes]), file=sys.stderr, flush=True)
        if start and not old and (note := grown.check_same(prepared, out, start / "model")) and ranks.is_first():
            print(note, file=sys.stderr, flush=True)
        elif start is None and ranks.is_first():
            write_json(out / grown.COUNTS, grown.counts(prepared))
        objective = prepared.objective(recipe)
        if recipe.init and not resume:
            start_from(recipe, objective, out)
        method = with_method(recipe, objective, out, start is not None)
        engine = build_engine(recipe, objective, device)
        seed_all(recipe.seed + 1 + engine.rank)
        looks = Looks(recipe, out, prepared.tasks, objective, engine, average_of(recipe, objective))
        if start is not None:
            engine.load(start, trust and old)
            looks.load(start)
        _train(recipe, as_given, prepared, objective, engine, folder, first, quiet or engine.rank > 0, looks, method)
        with looks.shown():
            weights = engine.weights() if distributed or looks.average is not None else None
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
    with_best(recipe, prepared, objective, out)
    seconds = time.time() - began
    if recipe.model.control:
        _train_control(as_given, out, resume, quiet)
    return finish(recipe, prepared, objective, out, quiet, seconds)


def with_best(recipe: Recipe, prepared: Prepared, objective: Objective, out: Path) -> None:
    """Give the objective the weights of the run's best look, and write those of each task's own best beside them."""
    history = read_history(out)
    if not (history.looks and recipe.validation.best):
        return
    run = history.best()
    assert run is not None
    objective.eval()  # training is over: from here on temperatures count
    for name in history.looks[0].scores:
        own = history.best(name)
        if own is not None and own != run:
            load_weights(objective, out, own)
            if recipe.calibrate:
                calibrate({name: prepared.tasks[name]}, objective, recipe.faults.bad_rate)
            save_model(prepared, objective.model, out, f"best/{quote(name, safe='')}")
    objective.model.config.temperatures = {}
    load_weights(objective, out, run)


def _train_control(as_given: dict[str, Any], out: Path, resume: bool, quiet: bool) -> None:
    """The run on a random encoder, in a folder of its own; one that is finished is not trained again on a resume."""
    folder = out / control.FOLDER
    if resume and (folder / "metrics.json").is_file():
        return
    going_on = resume and bool(checkpoint.folders(folder))
    train_run(control.control_recipe(as_given), folder, going_on, not going_on, quiet)


def start_from(recipe: Recipe, objective: Objective, out: Path) -> None:
    """Take the weights of `recipe.init`; what was taken is told, of a model that comes with the package in one line,
    and written beside the run."""
    report = load_initial(objective.model, Path(recipe.init))
    if ranks.is_first():
        print(report.brief if recipe.init in names() else report, file=sys.stderr, flush=True)
        write_json(out / "init.json", asdict(report))


def with_method(recipe: Recipe, objective: Objective, out: Path, resumed: bool) -> Added | None:
    """The recipe's method, at work on the objective; what it is made of is written beside the run, or found there."""
    method = build_method(recipe, objective)
    if method is None:
        return None
    about, path = {"kind": method.method.name, **method.method.about()}, out / METHOD

    def hold() -> None:
        if resumed and (not path.is_file() or json.loads(path.read_text()) != about):
            raise UserError(f"{out} was trained with another model or method than now ({path} says with which)")
        write_json(path, about)

    ranks.on_first(hold)
    return method


def finish(
    recipe: Recipe, prepared: Prepared, objective: Objective, out: Path, quiet: bool, train_seconds: float
) -> dict[str, Any]:
    """The trained model's folder, its held-out results and the report."""
    from generalist.report.report import write_report

    objective.eval()  # training is over: from here on temperatures count
    if recipe.calibrate:
        notes = calibrate(prepared.tasks, objective, recipe.faults.bad_rate)
        if notes and not quiet:
            print("\n".join(f"  {note}" for note in notes), file=sys.stderr, flush=True)
    save_model(prepared, objective.model, out)
    metrics = evaluate_run(recipe, prepared, objective, out, quiet, train_seconds)
    write_report(out)
    return metrics


def _train(
    recipe: Recipe,
    as_given: dict[str, Any],
    prepared: Prepared,
    objective: Objective,
    engine: Engine,
    folder: RunFolder,
    first: int,
    quiet: bool,
    looks: Looks,
    method: Added | None = None,
) -> None:
    """Steps first..recipe.steps-1, from the last checkpoint again where a fault asks for it."""
    spec, out = recipe.checkpoint, folder.out
    saver = checkpoint.Saver(out, engine, as_given, spec.keep, spec.asynchronous, exporter(prepared, objective.model))
    events, skip = ranks.on_first(lambda: (read_log(out), read_skip(out)))
    sizes = {name: len(records) for name, records in prepared.records.items()}
    faults = Faults(out, recipe, engine.rank, first, [e for e in events if e["step"] < first], skip, sizes)
    with stop_flag() as asked, opened(recipe, out, engine.rank) as trackers:
        attempt = Attempt(recipe, prepared, engine, folder, quiet, saver, faults, asked, looks, method, trackers)
        while first < recipe.steps and not looks.over:
            try:
                first = attempt.run(first)
            except RollBack as fault:
                first = roll_back(out, engine, saver, faults, looks, fault)
