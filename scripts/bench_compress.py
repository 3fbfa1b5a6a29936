"""What every method of `generalist compress` costs and brings, on small models of sets of four modalities.

    python -m scripts.bench_compress DATA                                  # all sets and methods, seed 0
    python -m scripts.bench_compress DATA --sets adult --methods "int8" "slice:0.5 distil:steps=200"

DATA is a folder of sets as `generalist.recipes.all_sets` has them; a model has 4 layers of width 96 and is trained for
--steps steps. fashion_mnist's model looks at 4 large patches, of which few can be dropped; fashion_49 is the same set
in 49 patches of 4 x 4 pixels. Times are processor time, the least of many rounds in turn, so that what else runs on the
machine counts little. Methods in a row are one word with spaces. What is finished in --out is not run again, so
a stopped run goes on. Every table goes to scripts/bench_results/compress.json as soon as it is there.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from generalist.cli import main as command
from generalist.compress.costs import SIZES, inputs_of
from generalist.compress.questions import of_run
from generalist.data.base.errors import UserError
from generalist.hf.saved import read_model
from generalist.scripts.all_modalities import chosen, trained
from generalist.scripts.distillation import QUICK
from generalist.scripts.tables import columns

RESULT = Path(__file__).parent / "bench_results" / "compress.json"
SETS = ("fashion_mnist", "fsdd", "adult", "banking77")
OWN = {
    "fashion_49": ("fashion_mnist", ["modalities.image.size=28", "modalities.image.patch=4", "modalities.image.stem=0"])
}
STUDENT = "distil:width=48,steps=300,seconds=600"
METHODS = (
    "prune:0.3",
    "prune:0.3,scope=global",
    "int8",
    "slice:0.5",
    "slice:0.5,stem=1",
    "search:0.5,population=24,rounds=4,samples=96",
    "slice:0.5 distil:steps=150,seconds=600",
    "ia_red:steps=150,seconds=600",
    "ia_red:0.7,steps=150,seconds=3000",
    STUDENT,
    f"{STUDENT},weight=0,fresh=1",
)


def place(methods: str) -> str:
    """A row of methods as the name of a folder."""
    return methods.replace(" ", "+").replace(":", "-").replace(",", "-")


def compressed(run: Path, methods: str, out: Path) -> dict[str, Any] | str:
    """What compress.json says, from its folder where it is finished; the line that a method refuses a model with."""
    if not (out / "compress.json").is_file():
        words = ["compress", str(run), "--method", *methods.split(), "--out", str(out), "--json"]
        try:
            if command(words):
                return "refused"
        except UserError as error:
            return str(error)
    return json.loads((out / "compress.json").read_text(encoding="utf-8"))


@torch.no_grad()
def faster(run: Path, out: Path, seconds: float = 5.0) -> dict[str, float]:
    """How many times less processor time a sample takes, alone and among 64: inputs to features, on one thread."""
    before, processor = read_model(run / "model")
    question, models = of_run(run, processor)[0], (before, read_model(out)[0])
    found = {}
    for size in SIZES:
        inputs, begin = inputs_of(question, size), time.process_time()
        least = [float("inf")] * len(models)
        while time.process_time() - begin < seconds:  # as many rounds on a busy machine
            for number, model in enumerate(models):
                start = time.process_time()
                model.features(inputs)
                least[number] = min(least[number], time.process_time() - start)
        found[f"faster_{size}"] = least[0] / least[1]
    return found


def line(name: str, methods: str, found: dict[str, Any], times: dict[str, float]) -> dict[str, Any]:
    """The numbers of one table, and the times of this script."""
    (task,) = found["tasks"].values()
    before, after = task["before"], task["after"]
    ratios = {
        "bytes": found["after"]["weight_bytes"] / found["before"]["weight_bytes"],
        "parameters": found["after"]["parameters"] / found["before"]["parameters"],
        "multiply_adds": after["multiply_adds"] / before["multiply_adds"],
        "peak_bytes": after["peak_bytes"] / before["peak_bytes"],
        **times,
    }
    values = {"before": before["value"], "after": after["value"], "low": after["low"], "high": after["high"]}
    head = {"set": name, "methods": methods, "metric": task["metric"], "n": task["n"]}
    return head | values | ratios | {"told": found["methods"]}


def table(rows: list[dict[str, Any]]) -> str:
    """A line a set and row of methods."""
    head = ("set", "methods", "before", "after", "bytes", "multiply-adds", "faster 1", "faster 64")
    shown = [head]
    for row in rows:
        ratios = (
            "-" if row[key] is None else f"{row[key]:.2f}"
            for key in ("bytes", "multiply_adds", "faster_1", "faster_64")
        )
        shown.append((row["set"], row["methods"], f"{row['before']:.4f}", f"{row['after']:.4f}", *ratios))
    return columns(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--steps", type=int, default=450, help="of the model that is compressed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/compress"))
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    refused: dict[str, str] = {}
    if args.result.is_file() and (kept := json.loads(args.result.read_text()))["steps"] == args.steps:
        rows = {(row["set"], row["methods"]): row for row in kept["rows"]}
        refused = kept["refused"]
    for name in args.sets:
        home = args.out / f"{name}_{args.seed}"
        of, keys = OWN.get(name, (name, []))
        keys = [f"seed={args.seed}", "baseline=false", "engine.device=cpu", *QUICK.get(of, []), *keys]
        trained(chosen(args.data, args.steps, [of], keys=keys), home / "run")
        for methods in args.methods:
            found = compressed(home / "run", methods, home / place(methods))
            if isinstance(found, str):
                refused[f"{name}: {methods}"] = found
            else:
                times = faster(home / "run", home / place(methods))
                rows[name, methods] = line(name, methods, found, times)
            made = {"steps": args.steps, "seed": args.seed, "rows": [*rows.values()], "refused": refused}
            args.result.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(table([row for row in rows.values() if row["set"] in args.sets]))


if __name__ == "__main__":
    main()
