"""`generalist train RECIPE [key=value ...]`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a recipe's name (generalist info lists them), a .py file or a recipe.json")
    parser.add_argument("keys", nargs="*", metavar="key=value", help="changes to the recipe, such as optimizer.lr=1e-3")
    parser.add_argument("--out", type=Path, help="the run's folder (default: runs/RECIPE)")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the run's folder")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that already stands in the folder")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--json", action="store_true", help="print metrics.json instead of the table")


def run(args: argparse.Namespace) -> int:
    import json

    from data.errors import UserError
    from generalist.recipe import load_recipe, override
    from generalist.run import Interrupted, table, train_run
    from generalist.startup import check_environment

    if args.resume and args.overwrite:
        raise UserError("--resume goes on with a run and --overwrite removes it; give one of them")
    for problem in check_environment():
        raise UserError(problem)
    recipe = load_recipe(args.recipe)
    override(recipe, *args.keys)
    out = args.out or Path("runs") / recipe.name
    try:
        metrics = train_run(recipe, out, args.resume, args.overwrite, args.quiet)
    except Interrupted as stop:
        keys = " ".join([args.recipe, *args.keys])
        print(f"stopped after step {stop.args[0]}, saved; go on with: generalist train {keys} --out {out} --resume")
        return 130
    if args.json:
        print(json.dumps(metrics, indent=1))
        return 0
    print(table(metrics))
    print(f"\nmodel {out / 'model'}   report {out / 'report.html'}   {metrics['seconds']['train']:.0f} s of training")
    return 0
