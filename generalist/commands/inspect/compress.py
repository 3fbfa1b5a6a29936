"""`generalist compress MODEL [DATA] --method NAME ... --out DIR`: a smaller copy of a model, measured beside it."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from generalist.compress.lessons import Lessons
    from generalist.compress.questions import Question
    from generalist.data.stream.source import Records
    from generalist.evaluate.zero_shot import Asked


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="the folder that generalist train wrote, or a model folder")
    parser.add_argument("data", nargs="?", help="other data to measure on (default: the run's own held-out data)")
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE", help="settings of the task, such as target=price")
    parser.add_argument(
        "--method",
        nargs="+",
        required=True,
        metavar="NAME",
        help="in order, such as slice:0.5 distil:seconds=60 int8 (the table: generalist/compress/README.md)",
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
    from generalist.compress.run import compress
    from generalist.compress.table import table

    asked, taught = partial(questions, args), partial(lessons, args)
    found = compress(args.run, parsed(args.method), args.out, asked, taught)
    print(json.dumps(found, indent=1) if args.json else f"{table(found)}\n\nmodel {args.out}")
    return 0


def questions(args: argparse.Namespace, model: Any, processor: Any) -> list[Question]:
    """What both models are asked."""
    from generalist.compress.questions import of_run, on_data
    from generalist.data.base.errors import UserError

    if args.data is None:
        if args.keys or args.input or args.classes or args.limit or args.set:
            raise UserError("a run is measured as its recipe says; give DATA to measure on other data")
        return of_run(args.run, processor, args.task)
    records, asked = opened(args, processor, args.split)
    records = records.spread(args.limit) if args.limit else records
    return on_data(model, processor, records, asked, args.split)


def lessons(args: argparse.Namespace, model: Any, processor: Any) -> Lessons:
    """What the model under way is taught on: the training split of what it is measured on."""
    from generalist.compress.lessons import of_run, on_data
    from generalist.compress.questions import tasks_on
    from generalist.evaluate.trained_on import recipe_of

    if args.data is None:
        recipe = recipe_of(args.run)
        assert recipe is not None  # the questions were read from it
        return of_run(args.run, recipe, processor, args.task)
    records, asked = opened(args, processor, "train")
    return on_data(processor, tasks_on(model, processor, records, asked), records)


def opened(args: argparse.Namespace, processor: Any, split: str) -> tuple[Records, Asked]:
    """A split of DATA, and what is asked of it."""
    from generalist.commands.evaluate import usual
    from generalist.commands.tune import pair, source_of
    from generalist.evaluate.zero_shot import Asked

    inputs = dict(pair(text) for text in args.input or [])
    records = source_of(args, args.data).open(split)
    asked = Asked(args.task, inputs, classes=args.classes, keys=list(args.keys), usual=usual(processor, records))
    return records, asked
