"""`generalist fit DATA --label COLUMN`: your own data in one command."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", help="a table's file, a folder by class, or coco:FOLDER; more parts behind a +")
    parser.add_argument("--label", default="", metavar="COLUMN", help="the column with the answer")
    parser.add_argument("--test", default="", metavar="FILE", help="test rows; without it a fifth is set aside")
    parser.add_argument("--forecast", type=int, default=0, metavar="STEPS", help="a table of series: steps ahead")
    parser.add_argument("--date", default="", metavar="COLUMN", help="the column of time: the newest rows are the test")
    parser.add_argument("--group", default="", metavar="COLUMN", help="rows of a group stay together; one series each")
    parser.add_argument("--retrieve", nargs=2, default=(), metavar=("A", "B"), help="two columns that find each other")
    parser.add_argument("--detect", action="store_true", help="objects in the pictures of coco:FOLDER")
    parser.add_argument("--answer", default="", metavar="KIND", help="take the label for: classes, names or number")
    parser.add_argument("--time", default=None, metavar="TIME", help="about how long it may take: 90s, 10m, 2h (10m)")
    parser.add_argument("--out", type=Path, help="the run's folder (default: runs/DATA_LABEL)")
    parser.add_argument("--seed", type=int, default=None, help="of the weights and the order (0)")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that already stands in the folder")
    parser.add_argument("--no-baseline", action="store_true", help="no ordinary method beside the results")
    parser.add_argument("--model-only", action="store_true", help="answers without the ordinary method's help")
    parser.add_argument("--no-encoder", action="store_true", help="no pretrained encoders of texts, pictures, sounds")
    parser.add_argument("--quiet", action="store_true", help="say nothing before the table")
    parser.add_argument("--json", action="store_true", help="print metrics.json instead of the table")
    parser.set_defaults(joined=[])


def run(args: argparse.Namespace) -> int:
    import json

    from generalist.data.base.errors import UserError
    from generalist.evaluate.heldout import failed
    from generalist.fitting.api import seconds_of
    from generalist.fitting.parts import Ask
    from generalist.fitting.run import fit
    from generalist.machine.startup import check_environment
    from generalist.run.results import table

    for problem in check_environment():
        raise UserError(problem)
    every = [args, *args.joined]
    asks = [
        Ask(
            one.data,
            one.label,
            one.test,
            one.forecast,
            one.date,
            one.group,
            tuple(one.retrieve),
            one.detect,
            one.answer,
        )
        for one in every
    ]
    words = [one.time for one in every if one.time is not None]
    seeds = [one.seed for one in every if one.seed is not None]
    metrics, out = fit(
        asks,
        seconds=seconds_of(words[0]) if words else 600.0,
        out=next((one.out for one in every if one.out is not None), None),
        seed=seeds[0] if seeds else 0,
        overwrite=any(one.overwrite for one in every),
        quiet=any(one.quiet for one in every),
        baseline=not any(one.no_baseline for one in every),
        model_only=any(one.model_only for one in every),
        encoders=not any(one.no_encoder for one in every),
    )
    if any(one.json for one in every):
        print(json.dumps(metrics, indent=1))
    else:
        print(table(metrics))
        print(f"\nmodel {out / 'model'}   report {out / 'report.html'}   recipe {out / 'recipe.py'}")
        print("\n".join(onward(out, [bool(one.retrieve) for one in every])))
    return 1 if failed(metrics) else 0


def onward(out: Path, pairs: list[bool]) -> list[str]:
    """The commands that use the run in `out`. pairs: whether each part is of two columns that find each other."""
    search = f"search: generalist index {out / 'model'} FOLDER --out INDEX; generalist search INDEX --text WORDS"
    rows = f"new rows: generalist predict {out} NEW.csv --out answers.csv"
    return [search] * any(pairs) + [rows] * (not all(pairs))
