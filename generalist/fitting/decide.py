"""Parts -> a recipe: sizes of the encoder by rows, rates, shares, and the steps that a measured step allows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from generalist.data.base.errors import UserError
from generalist.data.sources.tabular import ENDINGS
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.source import Records
from generalist.data.stream.stream import Steps, loader
from generalist.evaluate.heldout import validation
from generalist.fitting.defaults import (
    EMA,
    EPOCHS,
    HELD,
    LEAST,
    LITTLE,
    LOOKS,
    MEASURED,
    PATIENCE,
    TRAINING,
    WEIGHT_DECAY,
    size_for,
)
from generalist.fitting.files import coco_part, folder_part
from generalist.fitting.parts import Ask, House, Part
from generalist.fitting.series import forecast_part
from generalist.fitting.tables import pair_part, table_part
from generalist.recipe.json import from_json, to_json
from generalist.recipe.recipe import CheckpointSpec, EngineSpec, Recipe
from generalist.recipe.specs import ModelSpec, OptimizerSpec, ValidationSpec
from generalist.run.looks import FIXED, FORWARD, scored
from generalist.train.engines.base import seed_all
from generalist.train.engines.build import build_engine, device_of
from generalist.train.loop import StepResult, train
from generalist.train.prepare import Prepared, prepare

SEEN = (32, 32, 128)  # validation samples that tell what a look takes: the last of these that is reached
LONG = 0.2  # seconds of one, behind which no more are looked at
SURE = 20  # validation samples, below which no look is taken for the best


def part_of(ask: Ask, house: House) -> Part:
    """What one part of the data asks for. UserError in one line where it cannot be told."""
    if ask.detect or ask.data.startswith("coco:"):
        return coco_part(ask, house)
    path = Path(ask.data)
    if path.is_dir() and not (ask.label or ask.forecast or ask.retrieve):
        return folder_part(ask, house)
    if not path.exists():
        raise UserError(f"no data {ask.data}; give a table's file, a folder by class, or coco:FOLDER")
    if path.is_file() and not path.name.lower().endswith(ENDINGS):
        raise UserError(f"{ask.data} is no table; use one of {', '.join(ENDINGS[:5])} ..., a folder or coco:FOLDER")
    if ask.retrieve:
        return pair_part(ask, house)
    if ask.forecast:
        return forecast_part(ask, house)
    return table_part(ask, house)


def recipe_of(
    asks: Sequence[Ask], name: str, seed: int, seconds: float, encoders: bool = True
) -> tuple[Recipe, list[Part]]:
    """The joint recipe of all parts, its steps not yet decided. encoders: use pretrained ones that are here."""
    house = House(seconds, encoders)
    parts = [part_of(ask, house) for ask in asks]
    parts[-1].told += [f"  {line}" for line in dict.fromkeys(house.told)]
    parts[-1].encoding = house.encoding
    rows = max(part.rows for part in parts)
    size = size_for(rows)
    for part in parts:  # larger sets more often, in proportion to the root of their rows
        part.task.share = round((part.rows / rows) ** 0.5, 3) if len(parts) > 1 else 1.0
        part.task.scale = part.task.name  # a scale of its own, which calibration may move
    recipe = Recipe(
        name=name,
        about=", ".join(f"{p.task.name} ({p.task.kind})" for p in parts),
        steps=LEAST,
        modalities=house.modalities,
        tasks=[part.task for part in parts],
        seed=seed,
        model=ModelSpec(width=size.width, layers=size.layers, heads=4, hidden=4 * size.width, embedding_norm=False),
        optimizer=OptimizerSpec(kind="adamw", lr=size.lr, weight_decay=WEIGHT_DECAY, clip=1.0),
        engine=EngineSpec(threads=1 if size.width < 128 else 0),  # two threads of a small model wait for each other
        checkpoint=CheckpointSpec(every=0, keep=1),
        calibrate=True,
        combine=True,
        # the ordinary method looks at all samples, of which a short training has not encoded every one
        baseline_seconds=round(min(60.0, max(5.0, 0.2 * seconds)) + house.encoding, 1),
    )
    return recipe, parts


def copied(recipe: Recipe) -> Recipe:
    """The same values anew: what is learnt from data stays out of the original."""
    found = from_json(to_json(recipe), own=True)
    assert isinstance(found, Recipe)
    return found


def fix_steps(recipe: Recipe, parts: list[Part], began: float, seconds: float) -> Prepared:
    """Measure a few steps, and set steps, warm-up, checkpoints and `step_seconds` for the time that is left."""
    trial = copied(recipe)
    prepared = prepare(trial)
    each = measured(trial, prepared, min(20.0, max(0.5, MEASURED * seconds)))
    rows = {p.task.name: p.rows for p in parts}
    total = sum(t.share for t in recipe.tasks)
    held = sum((p.test or HELD * p.rows) / p.task.batch * each * FORWARD + p.encoding for p in parts)
    wanted = max(EPOCHS * rows[t.name] / t.batch * total / t.share for t in recipe.tasks)
    left = max(TRAINING * seconds - (time.monotonic() - began) - held, LITTLE * seconds)
    fits = max(1.0, left / each)
    recipe.steps = int(max(1, min(fits, max(LEAST, wanted))))
    recipe.step_seconds = float(f"{each:.2g}")
    recipe.optimizer.warmup = max(1, min(200, recipe.steps // 10))
    recipe.checkpoint.every = max(1, recipe.steps // 4)
    recipe.validation = ValidationSpec(every=max(1, recipe.steps // LOOKS), patience=PATIENCE)
    val = {task.name: found for task in recipe.tasks if (found := validation(task)[0]) is not None}
    if min(map(len, val.values()), default=0) < SURE:  # the best of many looks at a few is the luckiest
        recipe.validation.patience, recipe.validation.best = 0, False
    recipe.validation.cost = float(f"{recipe.validation.cost / looked(trial, prepared, val, each):.2g}")
    recipe.optimizer.ema = EMA if recipe.steps >= 10 / (1 - EMA) else 0.0
    return prepared


def looked(recipe: Recipe, prepared: Prepared, val: dict[str, Records], step: float) -> float:
    """How many times what is counted for a look (`generalist.run.looks.planned`) one takes; 1 where it takes less.

    val: validation data of the tasks that have some; step: seconds of a training step.
    """
    objective = prepared.objective(recipe)
    total, took, counted = sum(t.share for t in recipe.tasks), 0.0, FIXED * step
    for task in (task for task in recipe.tasks if task.name in val):
        last = 0.0
        for number, count in enumerate(SEEN):  # what is made once a sample is made by the first
            if number > 1 and last > LONG:
                break
            some, began = val[task.name].spread(count), time.monotonic()
            scored(task, some, objective)
            last = time.monotonic() - began
        took += last
        counted += step * FORWARD * len(some) / task.batch * total / task.share
    return max(1.0, took / counted)


def measured(recipe: Recipe, prepared: Prepared, seconds: float) -> float:
    """Seconds of a step: the median of those that fit into `seconds` behind the first of each task."""
    if recipe.engine.threads:
        import torch

        torch.set_num_threads(recipe.engine.threads)
    objective = prepared.objective(recipe)
    engine = build_engine(recipe, objective, device_of(recipe.engine.device))
    seed_all(recipe.seed + 1)
    tasks = prepared.tasks
    schedule = Schedule(list(tasks), [t.share for t in tasks.values()], recipe.seed)
    steps = Steps(prepared.feeds(), schedule, recipe.seed, corrupt="skip")
    took: dict[str, list[float]] = {name: [] for name in tasks}
    start = time.monotonic()

    def after(result: StepResult) -> None:
        took[result.task].append(result.seconds)

    last = next(n for n in range(2, 1_000_000) if {schedule.task_at(i) for i in range(n)} == set(tasks))
    rounds = 0
    while rounds < 200 and (time.monotonic() - start < seconds or rounds < 2):
        if rounds == 1:  # whatever is made once a sample is made now
            took = {name: [] for name in tasks}
        train(engine, loader(steps, 0, last), tasks, schedule, 0, last, 0.0, 1, after=after)
        rounds += 1
    shares = {name: schedule.share(name) for name in tasks}
    known = {name: median(times) for name, times in took.items()}
    usual = sum(shares[n] * t for n, t in known.items()) / sum(shares[n] for n in known)
    return max(1e-4, usual)
