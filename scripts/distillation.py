"""A student of half the width, alone and with a teacher that ranks the same candidates (`distill.teacher`).

    python -m scripts.distillation DATA                         # four sets, two seeds each
    python -m scripts.distillation DATA --sets banking77 --seeds 0 1 2 --steps 600

DATA is a folder of sets as `generalist.recipes.all_sets` has them. Teacher: 4 layers of width 96, twice the
steps; students: width 48, the same data, order and seed, one with distill.weight=1 and distill.temperature=2 (the
defaults, chosen on none of the sets). What is finished in --out is not run again. One JSON of every value goes to
scripts/bench_results/distillation.json.

Measured (accuracy on test, means over seeds 0 and 1; cifar10 seed 0 alone):

    set             teacher   alone    taught
    fashion_mnist   .831      .755     .770
    banking77       .809      .531     .570
    cifar10         .454      .367     .390
    fsdd            .973      .977     .970     300 clips: one to three of them; the student alone is no worse than the
                                                teacher, from whom it has nothing to learn (its nll falls, .157 to .149)
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from generalist.scripts.all_modalities import chosen, trained
from generalist.scripts.tables import columns

RESULT = Path(__file__).parent / "bench_results" / "distillation.json"
STUDENT = ["model.width=48", "model.hidden=192"]
# one look at every test sample: nine would cost more than the training; results and baselines as in training
QUICK = {
    "cifar10": ["modalities.image.views=1"],
    "fashion_mnist": ["modalities.image.views=1"],
    "fsdd": ["modalities.audio.windows=1"],
}


def value(data: Path, name: str, steps: int, seed: int, keys: list[str], out: Path) -> dict[str, Any]:
    """The line of metrics.json that one training on one set ends with."""
    common = [f"seed={seed}", "baseline=false", "engine.device=cpu", *QUICK.get(name, [])]
    return trained(chosen(data, steps, [name], keys=[*common, *keys]), out)["tasks"][name]


def compared(data: Path, name: str, steps: int, seed: int, out: Path) -> dict[str, Any]:
    """Teacher, student alone and student taught on one set from one seed."""
    home = out / f"{name}_{seed}"
    lines = {
        "teacher": value(data, name, 2 * steps, seed, [], home / "teacher"),
        "alone": value(data, name, steps, seed, STUDENT, home / "alone"),
    }
    keys = [*STUDENT, f"distill.teacher={home / 'teacher'}"]
    lines["taught"] = value(data, name, steps, seed, keys, home / "taught")
    first = lines["alone"]
    about = {"set": name, "seed": seed, "steps": steps, "metric": first["metric"], "n_test": first["n_test"]}
    nll = {f"{part} nll": line["extra"]["nll"] for part, line in lines.items() if "nll" in line["extra"]}
    return about | {part: line["value"] for part, line in lines.items()} | nll


def table(rows: list[dict[str, Any]]) -> str:
    """Means over seeds, a line a set."""
    shown = [("set", "metric", "teacher", "alone", "taught", "seeds")]
    for name in dict.fromkeys(row["set"] for row in rows):
        own = [row for row in rows if row["set"] == name]
        means = (f"{mean(row[part] for row in own):.4f}" for part in ("teacher", "alone", "taught"))
        shown.append((name, own[0]["metric"], *means, str(len(own))))
    return columns(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=["fashion_mnist", "banking77", "fsdd", "cifar10"])
    parser.add_argument("--steps", type=int, default=300, help="of a student; a teacher takes twice as many")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/distillation"))
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [compared(args.data, name, args.steps, seed, args.out) for name in args.sets for seed in args.seeds]
    args.result.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
