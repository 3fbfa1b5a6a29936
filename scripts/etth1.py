"""ETTh1, horizon 96: number tokens behind future slots against the closed-form ridge, on all 2785 test windows.

    python -m scripts.etth1 DATA            # DATA holds etth1/ETTh1.csv.gz; about five minutes on one idle core

Standard split, standardised by training rows, look-back 512, mean over the 7 series (`spec/numbers.md`). The
checkpoint with the lowest validation error is kept; nothing is chosen by test data. The answers are what a closed-form
ridge leaves over (`--linear 0` = none). 240 steps, seeds 0, 1, 2: MSE .3650 .3668 .3675, MAE of the median .3908 .3916
.3920, 80 % interval covers .80 - .83; ridge alone on 336 values .3702 / .3914, on 512 .3672 / .3913.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from generalist.data.sources.windows import Windows
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.source import Records
from generalist.data.stream.stream import Steps, loader
from generalist.evaluate import answer as evaluate
from generalist.model.objective import Objective
from generalist.recipe.recipe import Recipe
from generalist.recipe.specs import ModelSpec, OptimizerSpec
from generalist.tasks.baselines.baselines import linear_forecast
from generalist.tasks.kinds.forecast import Forecast
from generalist.tokenizers_mod.numbers.number import Number
from generalist.tokenizers_mod.numbers.series import Series
from generalist.tokenizers_mod.numbers.slot import Slot
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.train.optimizer import learning_rate, parameter_groups
from generalist.train.prepare import prepare

ROWS = {"train": [0, 8640], "val": [8640, 11520], "test": [11520, 14400]}
CONTEXT, HORIZON = 512, 96


def windows(data: Path, context: int) -> Windows:
    return Windows(str(data / "etth1/ETTh1.csv.gz"), ROWS, context, HORIZON)


def recipe(data: Path, steps: int, auxiliary: float, linear: float, seed: int) -> Recipe:
    source = windows(data, CONTEXT)
    task = Forecast(
        name="etth1",
        source=source,
        batch=128,
        horizon=HORIZON,
        bins=128,
        auxiliary=auxiliary,
        linear=linear,
        units="data",
    )
    modalities = {
        "summary": Summary(),
        "text": Text(),
        "series": Series(),
        "slot": Slot(recent=CONTEXT),
        "number": Number(),
    }
    return Recipe(
        name="etth1",
        about="ETTh1, horizon 96",
        steps=steps,
        modalities=modalities,
        tasks=[task],
        seed=seed,
        model=ModelSpec(width=64, layers=2, heads=4, hidden=128, embedding_norm=False),
        optimizer=OptimizerSpec(kind="adamw", lr=2e-3, weight_decay=0.01, warmup=max(1, steps // 5)),
    )


def errors(task: Any, records: Records, objective: Objective, every: int = 1) -> dict[str, float]:
    """Squared error of the expectation, absolute error of the median and the band's coverage, in standardised units."""
    rows = [records[i] for i in range(len(records)) if (i // 7) % every == 0]
    found = evaluate.answer(task, Records(rows), objective).metrics
    return {name: found[name] for name in ("mse", "mae", "coverage of 80% interval")}


def ridge_alone(data: Path, context: int, strength: float = 10.0) -> dict[str, float]:
    """The closed form: the last `context` values minus the last one to the next 96, one matrix for all series."""
    source = windows(data, context)
    train, test = source.open("train"), source.open("test")
    past, future = (np.array([record[key] for record in train.rows]) for key in ("past", "future"))
    matrix = linear_forecast(past, future, strength)
    squared = absolute = 0.0
    for record in test.rows:
        wrong = (record["past"] - record["past"][-1]) @ matrix + record["past"][-1] - record["future"]
        squared, absolute = squared + (wrong**2).mean(), absolute + np.abs(wrong).mean()
    return {"mse": squared / len(test), "mae": absolute / len(test)}


def run(data: Path, steps: int, auxiliary: float, linear: float, seed: int, checks: int) -> dict[str, Any]:
    """Train, keep the best of `checks` validations, and evaluate on all test windows."""
    made = recipe(data, steps, auxiliary, linear, seed)
    prepared = prepare(made)
    task = prepared.tasks["etth1"]
    objective = Objective(prepared.model(made), prepared.sets, prepared.modalities)
    spec = made.optimizer
    optimizer = torch.optim.AdamW(parameter_groups(objective, spec.weight_decay), spec.lr, spec.betas)
    batches = loader(Steps(prepared.feeds(), Schedule(["etth1"], [1.0]), seed), 0, steps)
    val, test = task.open("val"), task.open("test")
    best: tuple[float, dict[str, Any]] = (float("inf"), {})
    began = time.time()
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = spec.lr * learning_rate(step, steps, spec.warmup)
        objective.train()
        loss = objective(batch) / batch.count
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        if (step + 1) % max(1, steps // checks) == 0:
            found = errors(task, val, objective, every=24)["mse"]
            seconds = time.time() - began
            print(f"step {step + 1}  loss {float(loss.detach()):.3f}  val MSE {found:.3f}  {seconds:.0f} s", flush=True)
            if found < best[0]:
                best = (found, {k: v.clone() for k, v in objective.state_dict().items()})
    objective.load_state_dict(best[1])
    result = {"validation mse": best[0], **errors(task, test, objective), "seconds": round(time.time() - began)}
    return result | {"steps": steps, "auxiliary": auxiliary, "linear": linear, "seed": seed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--auxiliary", type=float, default=1.0)
    parser.add_argument("--linear", type=float, default=1000.0, help="ridge strength under the answers, 0 = none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checks", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for context in (336, CONTEXT):
        print(f"ridge on {context} values", json.dumps(ridge_alone(args.data, context)), flush=True)
    print("slots", json.dumps(run(args.data, args.steps, args.auxiliary, args.linear, args.seed, args.checks)))


if __name__ == "__main__":
    main()
