"""`fit`: look, decide, say it, write it as a recipe, train it, and leave a table, also where it is stopped."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
from generalist.fitting.decide import copied, fix_steps, recipe_of
from generalist.fitting.defaults import LEAST, TRAINING
from generalist.fitting.inputs.beginning import better
from generalist.fitting.inputs.large import thinned
from generalist.fitting.parts import Ask, Part, plain_word
from generalist.fitting.source_code import save
from generalist.hf.saved import read_model
from generalist.model.objective import Objective
from generalist.recipe.recipe import Recipe
from generalist.run.attempt import Interrupted
from generalist.run.folder import check_free
from generalist.run.train import finish, train_run, with_best
from generalist.train.checkpoints import checkpoint
from generalist.train.prepare import Prepared, restore

FILE = "recipe.py"
FEW = 50  # steps, below which a model has hardly begun


def fit(
    asks: Sequence[Ask],
    seconds: float = 600.0,
    out: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
    quiet: bool = False,
    baseline: bool = True,
    model_only: bool = False,
    encoders: bool = True,
) -> tuple[dict[str, Any], Path]:
    """Train on one's own data within about `seconds`: what metrics.json holds, and the run's folder.

    Ctrl-C ends the training; what was learnt until then is saved and measured. UserError: the data, in one line.
    """
    began = time.monotonic()
    name = named(asks)
    out = out or Path("runs") / name
    check_free(out, overwrite)
    if (out / FILE).exists() and not overwrite:
        raise UserError(f"{out / FILE} is there already, and may be yours; --overwrite or another --out starts anew")
    thin = [thinned(ask.data, out) for ask in asks]
    asks = [replace(ask, data=file) for ask, (file, _) in zip(asks, thin, strict=True)]
    recipe, parts = recipe_of(asks, name, seed, seconds, encoders)
    recipe.baseline, recipe.combine = baseline, baseline and not model_only
    if encoders:
        found = better(recipe, parts, seconds)
        recipe, parts[-1].told = found.recipe, [*parts[-1].told, *([f"  {found.told}"] if found.told else [])]
        parts[-1].task = recipe.tasks[-1]
    prepared = fix_steps(recipe, parts, began, seconds)
    told = [*(line for _, line in thin if line), *explained(recipe, parts, prepared, out, seconds)]
    save(recipe, told, out / FILE)
    if not quiet:
        print("\n".join(told), file=sys.stderr, flush=True)
    recipe = copied(recipe)
    try:
        return train_run(recipe, out, overwrite=overwrite, quiet=quiet), out
    except Interrupted as stop:
        step, _ = stop.args
        print(f"stopped after step {step} of {recipe.steps}; what was learnt is measured", file=sys.stderr, flush=True)
        return so_far(copied(recipe), out, quiet), out


def so_far(recipe: Recipe, out: Path, quiet: bool) -> dict[str, Any]:
    """The table, model folder and report of the newest checkpoint of a run that was stopped."""
    _, folder = checkpoint.newest_sound(out)
    model, processor = read_model(folder / "model")
    prepared = restore(recipe, processor)
    objective = Objective(model, prepared.sets, prepared.modalities)
    with_best(recipe, prepared, objective, out)
    return finish(recipe, prepared, objective, out, quiet, 0.0)


def named(asks: Sequence[Ask]) -> str:
    """The recipe's name, by which its folder goes too: the data's, and the label's."""
    if not asks:
        raise UserError("no data given; example: generalist fit train.csv --label price")
    words = [asks[0].stem, asks[0].label] if len(asks) == 1 else [ask.stem for ask in asks]
    return "_".join(dict.fromkeys(plain_word(w) for w in words if w)) or "own"


def explained(recipe: Recipe, parts: list[Part], prepared: Prepared, out: Path, seconds: float) -> list[str]:
    """What was found and decided, in about ten lines."""
    lines = [line for part in parts for line in part.told]
    for part in parts:
        task = prepared.tasks[part.task.name]
        candidates = task.candidates
        among = (
            "the batch's own partners" if candidates is None else f"{len(candidates.labels(task.modalities))} answers"
        )
        lines.append(f"  {task.name}: chosen among {among}, measured by {task.metric}, batches of {task.batch}")
    model, objective = recipe.model, prepared.objective(recipe)
    size = sum(p.numel() for p in objective.parameters())
    minutes = recipe.steps * recipe.step_seconds
    lines += [
        f"model: width {model.width}, {model.layers} layers, {size / 1e6:.2f} M parameters; modalities "
        + ", ".join(name for name in recipe.modalities if name != "summary"),
        *little(recipe, seconds),
        f"training: {recipe.steps:,} steps of {1000 * recipe.step_seconds:.3g} ms, about {spoken(minutes)} of the "
        f"{spoken(seconds)} given; learning rate {recipe.optimizer.lr:g}",
        f"written: {out / FILE} - edit it, then: generalist train {out / FILE} --out ANOTHER",
    ]
    return lines


def little(recipe: Recipe, seconds: float) -> list[str]:
    """What to say where hardly a step fits into the time."""
    if recipe.steps >= FEW:
        return []
    minutes = math.ceil((seconds + (LEAST - recipe.steps) * recipe.step_seconds / TRAINING) / 60)
    return [f"ONLY {recipe.steps} STEPS fit into the time: the model itself will know little; try --time {minutes}m"]


def spoken(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
