"""The Uni-Perceiver v2 ablation in miniature (2211.09808, tables 2-4; spec 7.3): does its ordering show at this size?

    python -m scripts.ablation_v2 DATA --steps 300 --seeds 3 --out runs/ablation_v2
    python -m scripts.ablation_v2 DATA ... --minutes 10    # begins no further run after ten minutes; call again

DATA holds bccd_detection/ (blood cells) and easy_vqa/ (pictures of one coloured shape). Three tasks share one small
encoder and one region tokenizer: cells found and named, handwritten digits classified, shapes retrieved by their
description ("blue circle"). As in the paper the region tokenizer has learnt to detect before (here: the cells, once a
seed); all variants of a seed begin with it. Four processes are played by four micro batches, so that a core suffices:

    mixed      every process draws its own task; retrieval sees its own process's negatives; AdamW
    unmixed    one task a step for all
    gathered   unmixed, negatives of all processes
    balanced   gathered, with task-balanced gradient normalisation
    global / regional   balanced, with only these tokens;   moe   balanced, with experts in every FFN
    alone      gathered, a model for every task, each with its third of the steps

`global` cannot detect, so that its two tasks have half of the steps each.

Writes results.json, table.md and ablation.png: mean and standard deviation over seeds, and differences within
a seed beside the paper's. The defaults (24 runs) took 22 minutes of processor time; the README's results say what they
show.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from generalist.data.base.errors import UserError
from generalist.data.sources.coco import CocoObjects
from generalist.data.sources.embedded import Embedded
from generalist.data.sources.local import Arrays
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.source import Records
from generalist.data.stream.stream import Steps
from generalist.evaluate import answer as evaluate
from generalist.model.objective import Objective
from generalist.recipe.recipe import Recipe
from generalist.recipes.detect_tiny import detect_tiny
from generalist.scripts.ablation_table import MEASURES, SAMPLING, agreement, claims, markdown, plot, summary, verdict
from generalist.scripts.timing import keep, machine
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.regions.detect import Detect
from generalist.tasks.kinds.retrieve import Retrieve
from generalist.train.optimizer import BalancedAdamW, learning_rate, parameter_groups
from generalist.train.prepare import Prepared, prepare

PROCESSES = 4
VARIANTS = ("mixed", "unmixed", "gathered", "balanced", "moe", "global", "regional", "alone")
# Tried for AdamW on one seed of `gathered`: 3e-4 and 5e-4 are equal, 1e-3 learns the digits and shapes half as well. At
# the same rate MT-AdamW moves sqrt(1 / share) times as far (its m and n both grow by 1 / share), hence the root below.
RATE = 4e-4
FIRST_RATE = 1e-3  # of the region tokenizer's own training
PROPOSALS = 32  # no picture has more cells
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
FORMS = ("circle", "rectangle", "triangle")


@dataclass
class Shapes:
    """The pictures of easy_vqa whose answers tell colour and form: {"id", "image", "text": such as "blue circle"}."""

    folder: str

    def open(self, split: str) -> Records:
        fields = {"image": "picture:image_png", "answers": "answers"}
        found = Arrays(f"{self.folder}/{{split}}.parquet", fields).open(split)
        rows = []
        for record in (found[i] for i in range(len(found))):
            said = [next((w for w in words if w in record["answers"]), None) for words in (COLOURS, FORMS)]
            if None not in said:
                rows.append({"id": record["id"], "image": record["image"], "text": " ".join(map(str, said))})
        return Records(rows, {"synthetic": True, "about": "pictures of one coloured shape and its description"})


def recipe(
    variant: str, data: Path, seed: int, steps: int, size: tuple[int, int] = (64, 64), only: tuple[str, ...] = ()
) -> Recipe:
    """The three tasks (or `only` some) with this variant's tokens and experts; size: of pictures, (height, width)."""
    made = detect_tiny(str(data / "bccd_detection"))
    made.seed, made.steps = seed, steps
    region: Any = made.modalities["region"]
    region.height, region.width = size
    region.mode = variant if variant in ("global", "regional") else "both"
    region.proposals = region.config["num_queries"] = PROPOSALS
    # pictures of three kinds: no running statistics, and no kind's own mean and deviation
    region.norm, region.mean, region.std = "group", [0.6] * 3, [0.25] * 3
    region.__post_init__()
    inputs = {"region": "image"}
    tasks = [
        Detect(name="cells", source=CocoObjects(str(data / "bccd_detection")), inputs=inputs, batch=8),
        Classify(name="digits", source=Embedded("digits"), inputs=inputs, batch=16),
        Retrieve(name="shapes", source=Shapes(str(data / "easy_vqa")), inputs=inputs, batch=32),
    ]
    wanted = only or tuple(MEASURES)
    made.tasks = [t for t in tasks if t.name in wanted and not (t.name == "cells" and variant == "global")]
    if variant == "moe":
        made.model.moe.placement, made.model.moe.parts = "all", "mlp"
    return made


def build(made: Recipe, regions: dict[str, torch.Tensor] | None = None) -> tuple[Prepared, Objective]:
    """A fresh model; regions: weights that its region tokenizer begins with, where it has such parts."""
    prepared = prepare(made)
    model = prepared.model(made)
    if regions is not None:
        own = model.tokenizers["region"].state_dict()
        model.tokenizers["region"].load_state_dict({k: v for k, v in regions.items() if k in own}, strict=False)
    return prepared, Objective(model, prepared.sets, prepared.modalities)


def train(made: Recipe, variant: str, prepared: Prepared, objective: Objective, rate: float = RATE) -> None:
    """`made.steps` steps of four played processes."""
    names = list(prepared.tasks)
    mixed = variant == "mixed"
    whole = variant not in ("mixed", "unmixed")
    schedule = Schedule(names, [t.share for t in prepared.tasks.values()], made.seed, mixed)
    feeds = prepared.feeds()
    ranks = [Steps(feeds, schedule, made.seed, r, PROCESSES) for r in range(PROCESSES)]
    together = Steps(feeds, schedule, made.seed)
    groups = parameter_groups(objective, 0.01)
    balanced = whole and variant not in ("gathered", "alone")
    lr = rate * min(schedule.shares) ** 0.5 if balanced else rate
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


def measured(prepared: Prepared, objective: Objective) -> dict[str, float]:
    """{task: value} on the held-out pictures."""
    tested = ((name, task, task.open("test")) for name, task in prepared.tasks.items())
    return {name: evaluate.answer(task, test, objective).metrics[MEASURES[name]] for name, task, test in tested}


def first(data: Path, seed: int, steps: int, size: tuple[int, int], path: Path) -> dict[str, torch.Tensor]:
    """The weights of a region tokenizer that has learnt to detect the cells; read from `path` where they lie there."""
    if not path.exists():
        made = recipe("gathered", data, seed, steps, size, only=("cells",))
        prepared, objective = build(made)
        train(made, "gathered", prepared, objective, FIRST_RATE)
        found: Any = objective.model.tokenizers["region"].state_dict()
        save_file({k: v.contiguous() for k, v in found.items()}, path)
        print(f"seed {seed} region tokenizer: {measured(prepared, objective)}", file=sys.stderr, flush=True)
    return load_file(path)


def one(
    variant: str,
    data: Path,
    seed: int,
    steps: int,
    size: tuple[int, int] = (64, 64),
    regions: dict[str, torch.Tensor] | None = None,
) -> dict[str, float]:
    """Train and evaluate a variant: {task: value}, and the seconds of processor time it took."""
    began = time.process_time()
    parts: list[tuple[str, ...]] = [(name,) for name in MEASURES] if variant == "alone" else [tuple(MEASURES)]
    out: dict[str, float] = {}
    for only in parts:
        made = recipe(variant, data, seed, steps // len(parts), size, only)
        prepared, objective = build(made, regions)
        train(made, variant, prepared, objective)
        out |= measured(prepared, objective)
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


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The Uni-Perceiver v2 ablation in miniature.")
    parser.add_argument("data", type=Path, help="a folder that holds bccd_detection/ and easy_vqa/")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--first", type=int, default=200, help="steps in which the region tokenizer learns to detect")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, nargs=2, default=[64, 64], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no further run after so long")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation_v2"))
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="results with date and machine, and the plot, too")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    CocoObjects(str(args.data / "bccd_detection")).open("val")  # a wrong folder is said before an hour has passed
    Shapes(str(args.data / "easy_vqa")).open("test")
    args.out.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {"steps": args.steps, "first": args.first, "size": list(args.size)}
    path = args.out / "results.json"
    results = before(path, settings)
    began = time.monotonic()
    # the rows that the paper orders first, so that a call that ends early has all their seeds
    order = sorted(product(range(args.seeds), args.variants), key=lambda pair: pair[1] not in SAMPLING)
    size = tuple(args.size)
    for seed, variant in order:
        runs = results.setdefault(variant, [])
        if len(runs) > seed:
            continue
        if time.monotonic() - began > 60 * args.minutes:
            break
        regions = first(args.data, seed, args.first, size, args.out / f"regions{seed}.safetensors")
        runs.append(one(variant, args.data, seed, args.steps, size, regions))
        print(f"seed {seed} {variant}: {runs[-1]}", file=sys.stderr, flush=True)
        path.write_text(json.dumps({**settings, "runs": results}, indent=1))
    results = {variant: results[variant] for variant in VARIANTS if results.get(variant)}
    table = summary(results)
    found = claims(results)
    said = [markdown(table, found), "", *verdict(table), *([agreement(found)] if found else [])]
    (args.out / "table.md").write_text("\n".join([*said, ""]))
    plot(table, args.out / "ablation.png")
    print("\n".join(said))
    if args.keep is not None:
        about = {"date": time.strftime("%Y-%m-%d %H:%M"), "machine": machine(), **settings}
        keep({**about, "runs": results, "said": said[2:]}, args.keep, "ablation-v2")
        plot(table, args.keep / "ablation_v2.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
