"""The Uni-Perceiver v2 ablation in miniature (2211.09808, tables 2-4; spec 7.3): does its ordering show at this size?

    python -m scripts.ablation_v2 --detection FOLDER --steps 300 --seeds 3 --out runs/ablation_v2
    python -m scripts.ablation_v2 ... --minutes 10    # begins no further run after ten minutes; call again to go on

FOLDER holds instances_{train,val}.json and images/. Three tasks share one small encoder: detection on FOLDER, digits
named and glyphs retrieved. Four processes are played by four micro batches a step, so that one core suffices:

    mixed      every process draws its own task; retrieval sees its own process's negatives; AdamW
    unmixed    one task a step for all
    gathered   unmixed, negatives of all processes
    balanced   gathered, with task-balanced gradient normalisation
    global / regional   balanced, with only these tokens;   moe   balanced, with experts in every FFN

Writes results.json, table.md and ablation.png: mean and standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch

from data.coco import CocoObjects
from data.embedded import Embedded
from data.errors import UserError
from data.schedule import Schedule
from data.stream import Steps
from generalist import evaluate
from generalist.objective import Objective
from generalist.optimizer import BalancedAdamW, learning_rate, parameter_groups
from generalist.prepare import Prepared, prepare
from generalist.recipe import Recipe
from generalist.recipes.detect_tiny import detect_tiny
from tasks.classify import Classify
from tasks.retrieve import Retrieve

PROCESSES = 4
VARIANTS = ("mixed", "unmixed", "gathered", "balanced", "global", "regional", "moe")
MEASURES = {"cells": "AP50", "digits": "accuracy", "glyphs": "recall@1"}
ORDER = ("mixed", "unmixed", "gathered", "balanced")  # the paper's, worst first


def recipe(variant: str, folder: str, seed: int, steps: int, size: tuple[int, int] = (96, 128)) -> Recipe:
    """The three tasks with this variant's tokens and experts; size: (height, width) of the pictures in pixels."""
    made = detect_tiny(folder)
    made.seed, made.steps = seed, steps
    region: Any = made.modalities["region"]
    region.height, region.width = size
    region.mode = variant if variant in ("global", "regional") else "both"
    region.__post_init__()
    inputs = {"region": "image"}
    made.tasks = [
        *([] if variant == "global" else made.tasks),
        Classify(name="digits", source=Embedded("digits"), inputs=inputs, batch=16),
        Retrieve(name="glyphs", source=Embedded("glyphs"), inputs=inputs, batch=32),
    ]
    made.tasks[0].batch = 8 if variant != "global" else made.tasks[0].batch
    if variant == "moe":
        made.model.moe.placement, made.model.moe.parts = "all", "mlp"
    return made


def train(made: Recipe, variant: str, prepared: Prepared, objective: Objective, lr: float = 1e-3) -> None:
    """`made.steps` steps of four played processes."""
    names = list(prepared.tasks)
    mixed = variant == "mixed"
    whole = variant not in ("mixed", "unmixed")
    schedule = Schedule(names, [t.share for t in prepared.tasks.values()], made.seed, mixed)
    feeds = prepared.feeds()
    ranks = [Steps(feeds, schedule, made.seed, r, PROCESSES) for r in range(PROCESSES)]
    together = Steps(feeds, schedule, made.seed)
    groups = parameter_groups(objective, 0.01)
    balanced = whole and variant != "gathered"
    optimizer: Any = BalancedAdamW(groups, lr) if balanced else torch.optim.AdamW(groups, lr)
    objective.train()
    for step in range(made.steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * learning_rate(step, made.steps, min(30, made.steps // 5 + 1))
        # in-batch candidates are gathered by one batch of all processes; other tasks do not differ by it
        micro = [together[step]] if whole else [steps[step] for steps in ranks]
        count: dict[str, int] = {}
        for batch in micro:
            count[batch.task] = count.get(batch.task, 0) + batch.count
        for batch in micro:
            # of each task the mean over its answers; tasks of one step weigh by the processes that drew them
            part = sum(b.task == batch.task for b in micro) / len(micro)
            (part * objective(batch).sum() / count[batch.task]).backward()
        if balanced:
            optimizer.task(schedule.share(micro[0].task))
        else:
            torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def one(variant: str, folder: str, seed: int, steps: int, size: tuple[int, int] = (96, 128)) -> dict[str, float]:
    """Train and evaluate a variant: {task: value}, and the seconds of processor time it took."""
    began = time.process_time()
    made = recipe(variant, folder, seed, steps, size)
    prepared = prepare(made)
    model = prepared.model(made)
    objective = Objective(model, prepared.sets, prepared.modalities)
    train(made, variant, prepared, objective)
    out = {}
    for name, task in prepared.tasks.items():
        out[name] = evaluate.answer(task, task.source.open("test"), objective).metrics[MEASURES[name]]
    return {**out, "seconds": time.process_time() - began}


def before(path: Path, settings: dict[str, Any]) -> dict[str, list[dict[str, float]]]:
    """{variant: runs by seed} that an earlier call left there; UserError where it had other settings."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text())
    other = {k: found.get(k) for k in settings if found.get(k) != settings[k]}
    if other:
        raise UserError(f"{path} is of a call with {other}, not {settings}; give another --out or the same settings")
    return found["runs"]


def summary(results: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, tuple[float, float]]]:
    """{variant: {task: (mean, standard deviation)}}; a spread of one seed is NaN."""
    table: dict[str, dict[str, tuple[float, float]]] = {}
    for variant, runs in results.items():
        table[variant] = {}
        for task in MEASURES:
            values = [run[task] for run in runs if task in run]
            if values:
                spread = statistics.stdev(values) if len(values) > 1 else float("nan")
                table[variant][task] = (statistics.fmean(values), spread)
    return table


def verdict(table: dict[str, dict[str, tuple[float, float]]]) -> list[str]:
    """For every task: whether the paper's ordering shows, and by more than the spread."""
    said = []
    for task, measure in MEASURES.items():
        known = [(v, table[v][task]) for v in ORDER if task in table.get(v, {})]
        if len(known) < 2:
            continue
        values = [value for _, (value, _) in known]
        words = " <= ".join(f"{v} {value:.3f}" for v, (value, _) in known)
        gap = values[-1] - values[0]
        spread = max(s for _, (_, s) in known)
        if values != sorted(values):
            told = "the paper's order does not show"
        elif not gap > 2 * spread:  # also where the spread of one seed is unknown
            told = "the order is the paper's, but no larger than the spread of the seeds: not established"
        else:
            told = "the paper's order shows"
        said.append(f"{task} ({measure}): {told} ({words.replace(' <= ', ', ')}; largest spread {spread:.3f})")
    return said


def markdown(table: dict[str, dict[str, tuple[float, float]]]) -> str:
    head = "| variant | " + " | ".join(f"{t} {m}" for t, m in MEASURES.items()) + " |"
    lines = [head, "|---" * (len(MEASURES) + 1) + "|"]
    for variant, row in table.items():
        cells = [f"{row[t][0]:.3f} ± {row[t][1]:.3f}" if t in row else "-" for t in MEASURES]
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(table: dict[str, dict[str, tuple[float, float]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(MEASURES), figsize=(4 * len(MEASURES), 3.2))
    for axis, (task, measure) in zip(axes, MEASURES.items(), strict=True):
        names = [v for v in table if task in table[v]]
        spread = [0.0 if table[v][task][1] != table[v][task][1] else table[v][task][1] for v in names]
        axis.bar(names, [table[v][task][0] for v in names], yerr=spread, color="#2a7f62", capsize=3)
        axis.set_title(f"{task}: {measure}")
        axis.tick_params(axis="x", rotation=45)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The Uni-Perceiver v2 ablation in miniature.")
    parser.add_argument("--detection", required=True, help="a folder with instances_{train,val}.json and images/")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, nargs=2, default=[96, 128], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no further run after so long")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation_v2"))
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    CocoObjects(args.detection).open("val")  # a wrong folder is said before an hour has passed
    args.out.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {"steps": args.steps, "size": list(args.size)}
    path = args.out / "results.json"
    results = before(path, settings)
    began = time.monotonic()
    # the rows that the paper orders first, so that a call that ends early has all their seeds
    order = sorted(product(range(args.seeds), args.variants), key=lambda pair: pair[1] not in ORDER)
    for seed, variant in order:
        runs = results.setdefault(variant, [])
        if len(runs) > seed:
            continue
        if time.monotonic() - began > 60 * args.minutes:
            break
        runs.append(one(variant, args.detection, seed, args.steps, tuple(args.size)))
        print(f"seed {seed} {variant}: {runs[-1]}", file=sys.stderr, flush=True)
        path.write_text(json.dumps({**settings, "runs": results}, indent=1))
    table = summary(results)
    said = verdict(table)
    (args.out / "table.md").write_text("\n".join([markdown(table), "", *said, ""]))
    plot(table, args.out / "ablation.png")
    print("\n".join([markdown(table), *said]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
