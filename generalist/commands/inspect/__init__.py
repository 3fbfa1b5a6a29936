"""`generalist inspect MODEL [DATA] --what NAME ...`: a look inside a model while it answers these records."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="the folder that generalist train wrote, or a model folder")
    parser.add_argument(
        "data",
        nargs="?",
        help="a folder, table, shards, hub:NAME or embedded:NAME (default: the run's own held-out data)",
    )
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE", help="settings of the task, such as target=price")
    parser.add_argument(
        "--what",
        nargs="+",
        default=["heads"],
        metavar="NAME",
        help="heads: each silenced in turn, and how far it looks; errors: the worst answers, classes confused, "
        "slices by any column, duplicates in training; similar: the training samples nearest to test samples; "
        "explain: which tokens an answer rests on; robust: one token disturbed, by noise and on purpose; concepts: "
        "sparse features of every layer, more of them active the stranger the input; paths: what every residual "
        "branch adds; keep: which tokens go on",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="with robust: attention at softmax(scores / T) beside the plain one",
    )
    parser.add_argument(
        "--training",
        dest="leakage",
        default="",
        metavar="TRAIN",
        help="training data to compare with (default: what the run's recipe says, or the data's own training split)",
    )
    parser.add_argument(
        "--task", default="", metavar="NAME", help="a task of the model, or with DATA a kind (default classify)"
    )
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

    from generalist.commands.evaluate import training as compared
    from generalist.data.base.errors import UserError
    from generalist.evaluate.zero_shot import Judge
    from generalist.inspect.base import analyser, save
    from generalist.inspect.training import Training

    if args.temperature is not None and "robust" not in args.what:
        raise UserError("--temperature is of --what robust; add it, or leave --temperature out")
    hot = {} if args.temperature is None else {"temperature": args.temperature}
    looks = {kind: analyser(kind, **(hot if kind == "robust" else {})) for kind in args.what}
    model, task, records = question(args, any(look.needs_answers for look in looks.values()))
    training = Training(args.run, bool(args.leakage), partial(compared, args, task))
    out = args.out or (args.run if (args.run / "recipe.json").is_file() else None)
    every = {}
    for kind, look in looks.items():
        every[kind] = look.run(task, records, Judge(model, task), training)
        if out is not None:
            save(out, kind, every[kind], look.files())
        if not args.json:
            print(look.table(every[kind]))
    if args.json:
        print(json.dumps(every if len(every) > 1 else every[args.what[0]], indent=1))
    return 0


def question(args: argparse.Namespace, answered: bool) -> tuple[Any, Any, Any]:
    """The model, a task and records: DATA, where `answered` those with a right answer, or the run's test split."""
    from generalist.commands.evaluate import opened, usual
    from generalist.commands.tune import pair
    from generalist.compress.questions import of_run
    from generalist.data.base.errors import UserError
    from generalist.evaluate.trained_on import recipe_of
    from generalist.evaluate.zero_shot import Asked, named, task_for
    from generalist.hf.predict import load_model
    from generalist.recipe.load import read_recipe

    if args.data is not None:
        model, processor, records = opened(args)
        inputs = dict(pair(text) for text in args.input or [])
        asked = Asked(
            args.task or "classify", inputs, classes=args.classes, keys=list(args.keys), usual=usual(processor, records)
        )
        task = task_for(asked, model, processor, records)
        return model, task, named(task.answered(records) if answered else records)
    if args.keys or args.input or args.classes or args.set:
        raise UserError("a run is asked as its recipe says; give DATA to ask it of other data")
    place = recipe_of(args.run)
    names = [task.name for task in read_recipe(place).tasks] if place is not None else []
    if len(names) > 1 and not args.task:
        raise UserError(f"this run has the tasks {', '.join(names)}; choose one with --task")
    model, processor = load_model(args.run)
    (found,) = of_run(args.run, processor, args.task, "inspect")
    return model, found.task, found.records.spread(args.limit) if args.limit else found.records
