"""`generalist eval RUN`: the held-out table of a trained run, computed anew."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="the folder that generalist train wrote")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--json", action="store_true", help="print metrics.json instead of the table")


def run(args: argparse.Namespace) -> int:
    import json

    from generalist.run import evaluate_run, load_run, table

    recipe, prepared, objective = load_run(args.run)
    metrics = evaluate_run(recipe, prepared, objective, args.run, args.quiet)
    print(json.dumps(metrics, indent=1) if args.json else table(metrics))
    return 0
