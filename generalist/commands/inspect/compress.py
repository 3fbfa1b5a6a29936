"""`generalist compress MODEL [DATA] --method NAME ... --out DIR`: a smaller copy of a model, measured beside it."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="the folder that generalist train wrote, or a model folder")
    parser.add_argument("data", nargs="?", help="other data to measure on (default: the run's own held-out data)")
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE", help="settings of the task, such as target=price")
    parser.add_argument(
        "--method",
        nargs="+",
        required=True,
        metavar="NAME",
        help="in order: prune:SHARE (becomes zero), lowrank:SHARE (of singular values kept), int8 (last)",
    )
    parser.add_argument("--out", type=Path, required=True, help="the new model folder")
    parser.add_argument("--task", default="", metavar="NAME", help="this task alone; with DATA a kind of task too")
    parser.add_argument("--split", default="test", help="of DATA: train, val or test")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="settings of the data's source")
    parser.add_argument(
        "--input", action="append", metavar="MODALITY=FIELD", help="what goes in, where no task says it"
    )
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="candidate names in the order of the labels")
    parser.add_argument("--limit", type=int, metavar="N", help="N records of DATA only, evenly spread")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")


def run(args: argparse.Namespace) -> int:
    import json

    from generalist.compress.methods import parsed
    from generalist.compress.run import compress, table

    found = compress(args.run, parsed(args.method), args.out, lambda *parts: questions(args, *parts))
    print(json.dumps(found, indent=1) if args.json else f"{table(found)}\n\nmodel {args.out}")
    return 0


def questions(args: argparse.Namespace, model: object, processor: object) -> list:
    """What both models are asked."""
    from generalist.commands.evaluate import USUAL
    from generalist.commands.tune import pair, source_of
    from generalist.compress.questions import of_run, on_data
    from generalist.data.base.errors import UserError
    from generalist.evaluate.zero_shot import Asked

    if args.data is None:
        if args.keys or args.input or args.classes or args.limit or args.set:
            raise UserError("a run is measured as its recipe says; give DATA to measure on other data")
        return of_run(args.run, processor, args.task)
    records = source_of(args, args.data).open(args.split)
    records = records.spread(args.limit) if args.limit else records
    inputs = dict(pair(text) for text in args.input or [])
    asked = Asked(args.task, inputs, classes=args.classes, keys=list(args.keys), usual=USUAL)
    return on_data(model, processor, records, asked, args.split)
