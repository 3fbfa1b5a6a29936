"""`generalist zero-shot MODEL DATA --classes NAME ...`: any saved model on any labelled data, nothing trained."""

from __future__ import annotations

import argparse
from pathlib import Path

from generalist.commands.tune import pair


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="a run's folder, or a model folder")
    parser.add_argument("data", help="a folder, table, shards, hub:NAME or embedded:NAME with a label")
    parser.add_argument("--split", default="test", help="train, val or test")
    parser.add_argument("--input", action="append", metavar="MODALITY=FIELD", help="what goes in (default image=image)")
    parser.add_argument("--label", default="label", help="the field with the class")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="candidate names in the order of the labels")
    parser.add_argument("--template", default="{}", help='what is asked for a name, such as "a photo of {}"')
    parser.add_argument("--scale", help="a logit scale of the model")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N records only")
    parser.add_argument("--cache", type=Path, help="where encoded candidates are kept (default: OUT/candidates)")
    parser.add_argument("--out", type=Path, help="where result.json, predictions.jsonl and reliability.svg go")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")


def run(args: argparse.Namespace) -> int:
    import json

    from data.places import source_at
    from data.source import Records
    from generalist.fewshot import Chosen
    from generalist.measures import table
    from generalist.predict import load_model
    from generalist.zero_shot import save_result, zero_shot

    model, processor = load_model(args.model)
    records = source_at(args.data).open(args.split)
    if args.limit:
        records = Records(Chosen(records.rows, list(range(min(args.limit, len(records))))), dict(records.info))
    inputs = dict(pair(text) for text in args.input or ["image"])
    cache = args.cache or (args.out / "candidates" if args.out else None)
    result, samples = zero_shot(
        model, processor, records, inputs, args.label, args.classes, args.template, args.scale, cache
    )
    if args.out:
        save_result(args.out, result, samples)
    print(json.dumps(result, indent=1) if args.json else table(result))
    return 0
