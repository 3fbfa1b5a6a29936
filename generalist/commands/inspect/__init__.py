"""`generalist inspect RUN DATA --what heads errors similar`: a look inside a model while it answers these records."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="the folder that generalist train wrote, or a model folder")
    parser.add_argument("data", help="a folder, table, shards, hub:NAME or embedded:NAME with a label")
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE", help="settings of the task, such as target=price")
    parser.add_argument(
        "--what",
        nargs="+",
        default=["heads"],
        metavar="NAME",
        help="heads: each silenced in turn, and how far it looks; errors: the worst answers, classes confused, "
        "slices by any column, duplicates in training; similar: the training samples nearest to test samples",
    )
    parser.add_argument(
        "--training",
        dest="leakage",
        default="",
        metavar="TRAIN",
        help="training data to compare with (default: what the run's recipe says, or the data's own training split)",
    )
    parser.add_argument("--task", default="classify", metavar="NAME", help="a task of the model, or a kind")
    parser.add_argument("--split", default="test", help="train, val or test")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="settings of the data's source")
    parser.add_argument("--input", action="append", metavar="MODALITY=FIELD", help="what goes in (default image=image)")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="candidate names in the order of the labels")
    parser.add_argument("--limit", type=int, metavar="N", help="N records only, evenly spread")
    parser.add_argument("--out", type=Path, help="where inspect/WHAT.json goes (default: a run's own folder)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")


def run(args: argparse.Namespace) -> int:
    import json
    from functools import partial

    from generalist.commands.evaluate import USUAL, opened
    from generalist.commands.evaluate import training as compared
    from generalist.commands.tune import pair
    from generalist.evaluate.zero_shot import Asked, Judge, named, task_for
    from generalist.inspect.base import analyser, save
    from generalist.inspect.training import Training

    looks = {kind: analyser(kind) for kind in args.what}
    model, processor, records = opened(args)
    inputs = dict(pair(text) for text in args.input or [])
    asked = Asked(args.task, inputs, classes=args.classes, keys=list(args.keys), usual=USUAL)
    task = task_for(asked, model, processor, records)
    training = Training(args.run, bool(args.leakage), partial(compared, args, task))
    out = args.out or (args.run if (args.run / "recipe.json").is_file() else None)
    every = {}
    for kind, look in looks.items():
        every[kind] = look.run(task, named(task.answered(records)), Judge(model, task), training)
        if out is not None:
            save(out, kind, every[kind])
        if not args.json:
            print(look.table(every[kind]))
    if args.json:
        print(json.dumps(every if len(every) > 1 else every[args.what[0]], indent=1))
    return 0
