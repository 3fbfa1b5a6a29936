"""What `generalist inspect` finds in small models of five sets, against the orderings that its sources report.

    python -m scripts.inspect_orderings DATA                 # DATA as `generalist.recipes.all_sets` has it
    python -m scripts.inspect_orderings DATA --sets canvas   # some of them

Each set trains a model of 3 layers of width 64 in under a minute of one idle core and is looked into. What is trained
in --out is not trained again, and each set's findings go to scripts/bench_results/inspect.json as soon as they are
there. canvas: scikit-learn's digits in one corner of 24 x 24 pixels, so that it is known where the answer stands.

    active        concepts active a token: natural < half shuffled < shuffled < noise, in how many of the layers; the
                  same of autoencoders that are taught longer, until the counts have settled
    fooled        share of right answers (numbers: medians that leave their 80 % range) that one token changes
    rise          what one token adds to -log p of the answer, in nats
    inside        T-TAME's mean mask in the digit's box over that outside
    AD            average drop at the mask's top half, of T-TAME and of the same values at random tokens
    heads         Spearman of what silencing each head costs, between two halves of the test records
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from generalist.data.stream.source import Records
from generalist.inspect.base import analyser
from generalist.inspect.heads import Heads
from generalist.model.objective import Objective
from generalist.recipe.keys import override
from generalist.recipe.recipe import Recipe
from generalist.run.results import load_run
from generalist.scripts.all_modalities import chosen, trained
from generalist.scripts.inspect_canvas import BOX, PATCH, SIZE, canvas, digits
from generalist.scripts.tables import columns
from generalist.tasks.base.task import Task

RESULT = Path(__file__).parent / "bench_results" / "inspect.json"
OWN = {"canvas": canvas, "digits": digits}
SETS = {"digits": 600, "canvas": 350, "fsdd": 300, "etth1": 120, "banking77": 450, "adult": 150}  # steps
SMALL = ["model.width=64", "model.layers=3", "model.heads=4", "model.hidden=128", "baseline=false", "engine.device=cpu"]
QUICK = {
    "fsdd": ["modalities.audio.windows=1"],
    # with the linear forecast under it a short training leaves the encoder nothing to say
    "etth1": ["tasks.etth1.linear=0", "modalities.slot.recent=0"],
}
RECORDS = 300  # of a test split
OF_CONCEPTS = 1024  # the same, of which one half trains the autoencoders
HALVES = 100  # records of each half for the heads
PLACES = {"adult": 14}  # tokens of a record that are disturbed: all cells of a row, for few of them decide it


def recipe(data: Path, name: str) -> Recipe:
    keys = [*SMALL, *QUICK.get(name, [])]
    if name not in OWN:
        return chosen(data, SETS[name], [name], keys=keys)
    made = OWN[name](SETS[name])
    override(made, *keys)
    return made


def ranks(found: dict[str, Any]) -> np.ndarray:
    lines = sorted(found["heads"], key=lambda line: (int(line["layer"]), line["head"]))
    return np.argsort(np.argsort([line[found["by"]] for line in lines]))


def heads(task: Task, records: Records, objective: Objective) -> float:
    """How alike two halves rank the heads (Spearman)."""
    halves = (records.only(list(range(start, len(records), 2))).spread(HALVES) for start in (0, 1))
    first, second = (ranks(Heads().run(task, half, objective)) for half in halves)
    return float(np.corrcoef(first, second)[0, 1])


def inside(found: dict[str, Any], records: Records) -> float:
    """Mean mask in the digit's box over that outside, of the records that are drawn."""
    of = {str(record.get("id", i)): record["corner"] for i, record in enumerate(records.rows)}
    side, own = SIZE // PATCH, BOX // PATCH
    within, without = [], []
    for one in found["samples"]:
        row, column = (side - own) * (of[one["id"]] // 2), (side - own) * (of[one["id"]] % 2)
        box = np.zeros((side, side), bool)
        box[row : row + own, column : column + own] = True
        mask = np.array(one["heats"][0]["values"]["T-TAME"]).reshape(side, side)
        within.append(mask[box].mean())
        without.append(mask[~box].mean())
    return float(np.mean(within) / np.mean(without))


def looked_into(name: str, run: Path) -> dict[str, Any]:
    """Every ordering of one set's model; of the canvas where the answer is found alone."""
    _, prepared, objective = load_run(run)
    task = prepared.tasks[name]
    records = task.open("test").spread(RECORDS)
    began = time.process_time()
    explain = analyser("explain").run(task, records, objective)
    drops = explain["measures"].items()
    found: dict[str, Any] = {
        "records": len(records),
        "AD": {method: {share: own["AD"] for share, own in shares.items()} for method, shares in drops},
    }
    if name == "canvas":
        found["inside"] = inside(explain, records)
        return found | {"seconds of a core": round(time.process_time() - began, 1)}
    found["robust"] = analyser("robust", temperature=1.5, places=PLACES.get(name, 4)).run(task, records, objective)
    del found["robust"]["samples"]
    concepts = analyser("concepts").run(task, task.open("test").spread(OF_CONCEPTS), objective)
    found["active"] = counts(concepts)
    settled = analyser("concepts", settled=True).run(task, task.open("test").spread(OF_CONCEPTS), objective)
    found["active, settled"] = counts(settled)
    found["predict"] = {"what": concepts["predict"]["what"], "layers": concepts["predict"]["layers"]}
    found["heads"] = heads(task, records, objective)
    return found | {"seconds of a core": round(time.process_time() - began, 1)}


def counts(concepts: dict[str, Any]) -> dict[str, list[float]]:
    """{layer: active concepts a token of each kind of input}."""
    return {line["layer"]: [round(v, 3) for v in line["active"].values()] for line in concepts["layers"]}


def rises(active: list[float]) -> bool:
    """Whether each kind of input has more active concepts than the one before."""
    return all(before < after for before, after in pairwise(active))


def row(name: str, found: dict[str, Any]) -> tuple[str, ...]:
    drops = [found["AD"][method]["50%"] for method in ("T-TAME", "random")]
    line = [name, f"{found['metric']} {found['value']:.3f}", f"{drops[0]:.1f} {drops[1]:.1f}"]
    if "robust" not in found:
        return (*line, f"{found['inside']:.2f}", "", "", "", "")
    robust, active = found["robust"], list(found["active"].values())
    kinds = ("natural", "adversarial")
    fooled, rise = (" ".join(f"{robust[kind][what]:.3f}" for kind in kinds) for what in ("fooled", "rise"))
    return (*line, "", fooled, rise, f"{sum(map(rises, active))} of {len(active)}", f"{found['heads']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--out", type=Path, default=Path("runs/inspect"))
    args = parser.parse_args()
    kept = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    for name in args.sets:
        began = time.process_time()
        line = trained(recipe(args.data, name), args.out / name)["tasks"][name]
        training = time.process_time() - began
        kept[name] = {"metric": line["metric"], "value": line["value"], **looked_into(name, args.out / name)}
        kept[name]["training, seconds of a core"] = round(training, 1)
        RESULT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    head = ("set", "result", "AD, random", "inside", "fooled", "rise", "active rises", "heads")
    print(columns([head, *(row(name, kept[name]) for name in args.sets)]))


if __name__ == "__main__":
    main()
