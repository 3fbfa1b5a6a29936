"""The defaults of `generalist fit` against their neighbours, on validation data alone: one change at a time.

    python -m scripts.fit_search DATA --sets wine diabetes --steps 400      # a line a candidate, means over the sets

Every candidate trains the recipe that `fit` writes for a set, with one key changed, for the same number of steps, and
its score is that of the best look at validation data (`generalist.run.looks`); test data are not opened. What was found
is told in generalist/fitting/README.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from generalist.data.base.errors import UserError
from generalist.fitting.decide import recipe_of
from generalist.fitting.parts import Ask
from generalist.recipe.keys import override
from generalist.recipe.recipe import Recipe
from generalist.run import train as run
from generalist.run.looks import read
from scripts.fit_sets import written
from scripts.tables import columns

CANDIDATES: dict[str, list[str]] = {
    "as it is": [],
    "half the rate": ["optimizer.lr=HALF"],
    "twice the rate": ["optimizer.lr=TWICE"],
    "a layer less": ["model.layers=LESS"],
    "a layer more": ["model.layers=MORE"],
    "no noise": ["modalities.table.noise=0"],
    "noise .3": ["modalities.table.noise=0.3"],
    "no cells dropped": ["modalities.table.drop=0"],
    "a fifth dropped": ["modalities.table.drop=0.2"],
    "8 bins": ["modalities.table.bins=8"],
    "48 bins": ["modalities.table.bins=48"],
    "no average": ["optimizer.ema=0"],
    "wsd": ["optimizer.schedule=wsd"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=["wine", "breast_cancer", "diabetes", "abalone"])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--only", nargs="+", default=list(CANDIDATES), metavar="CANDIDATE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, help="a JSON file of every score")
    args = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {}
    vars(run)["finish"] = lambda *a, **k: {}  # nothing is measured on test data
    with tempfile.TemporaryDirectory() as scratch:
        for name in args.sets:
            words = written(name, args.data.resolve(), Path(scratch) / name)
            for candidate in args.only:
                found.setdefault(candidate, {})[name] = [
                    score(words, candidate, args.steps, seed, Path(scratch) / "run") for seed in args.seeds
                ]
                print(f"{name}, {candidate}: {fmean(found[candidate][name]):.4f}", flush=True)
                if args.out is not None:
                    args.out.write_text(
                        json.dumps({"steps": args.steps, "seeds": args.seeds, "scores": found}, indent=1)
                    )
    rows = [("candidate", *args.sets)]
    rows += [(c, *(f"{fmean(scores[n]):.4f}" for n in args.sets)) for c, scores in found.items()]
    print(columns(rows))


def score(words: list[str], candidate: str, steps: int, seed: int, out: Path) -> float:
    """The best look's score of a recipe with a candidate's keys."""
    given: dict[str, Any] = dict(zip(words[1::2], words[2::2], strict=True))
    ask = Ask(words[0], given.get("--label", ""), given.get("--test", ""))
    recipe, _ = recipe_of([ask], "search", seed, 600.0)
    recipe.steps, recipe.optimizer.warmup, recipe.baseline = steps, steps // 10, False
    recipe.optimizer.ema = 0.98
    override(
        recipe, *changed(recipe, CANDIDATES[candidate]), f"validation.every={max(1, steps // 20)}", "checkpoint.every=0"
    )
    run.train_run(recipe, out, overwrite=True, quiet=True)
    history = read(out)
    best = history.best()
    if best is None:
        raise UserError("the set has no validation data")
    return next(look for look in history.looks if look.step == best).score("")[0]


def changed(recipe: Recipe, keys: list[str]) -> list[str]:
    """Keys with what they are relative to filled in."""
    rate, layers = recipe.optimizer.lr, recipe.model.layers
    known = {"HALF": rate / 2, "TWICE": 2 * rate, "LESS": max(1, layers - 1), "MORE": layers + 1}
    return [key.replace(word, str(value)) for key in keys for word, value in known.items() if word in key] or keys


if __name__ == "__main__":
    main()
