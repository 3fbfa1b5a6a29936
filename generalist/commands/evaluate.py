"""`generalist eval RUN`: the held-out table of a trained run. `generalist eval MODEL DATA`: any model on any data."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from generalist.commands.tune import pair, source_of, tell

MODES = """Four ways, told apart by what is given:

  eval RUN                               the held-out data of the run's recipe, all tasks, beside ordinary methods
  eval MODEL DATA --task TASK            a task of the model, on data of yours
  eval MODEL DATA --task KIND key=value  a task that the model was never taught: classify, retrieve (info lists them)
  eval MODEL DATA --any-to-any           retrieval between every two of the data's modalities (--input M=FIELD)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = MODES
    parser.add_argument("run", type=Path, help="the folder that generalist train wrote, or a model folder with DATA")
    parser.add_argument("data", nargs="?", help="other data: a folder, table, shards, hub:NAME or embedded:NAME")
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE", help="settings of the task, such as target=price")
    parser.add_argument(
        "--task", default="classify", metavar="NAME", help="with DATA: a task of the model, or a kind (info lists them)"
    )
    data_arguments(parser)
    parser.add_argument("--partner", action="append", metavar="MODALITY=FIELD", help="the other side of a retrieval")
    parser.add_argument(
        "--any-to-any", action="store_true", help="with DATA: retrieval between every two of its modalities (--input)"
    )
    parser.add_argument("--write", action="store_true", help="write captions out and measure BLEU-4 and CIDEr")
    parser.add_argument("--no-baseline", action="store_true", help="of a run: no ordinary method beside the results")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")


def data_arguments(parser: argparse.ArgumentParser) -> None:
    """What an evaluation on data of one's own takes."""
    parser.add_argument("--split", default="test", help="train, val or test")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="settings of the data's source")
    parser.add_argument(
        "--input",
        action="append",
        metavar="MODALITY=FIELD",
        help="what goes in (default: what reads its files, or image=image)",
    )
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="candidate names in the order of the labels")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="the labels, one a line, where the data has none")
    parser.add_argument("--template", default="{}", help='what is asked for a name, such as "a photo of {}"')
    parser.add_argument("--scale", help="a logit scale of the model")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="tuned prompts (prompts.safetensors) to put on")
    parser.add_argument("--limit", type=int, metavar="N", help="N records only, evenly spread")
    parser.add_argument(
        "--leakage",
        nargs="?",
        const="",
        metavar="TRAIN",
        help="look for the samples in this training data and measure without; without TRAIN in what the run trained on",
    )
    parser.add_argument("--cache", type=Path, help="where encoded candidates are kept (default: OUT/candidates)")
    parser.add_argument("--out", type=Path, help="where result.json, predictions.jsonl and reliability.svg go")


def run(args: argparse.Namespace) -> int:
    import json

    from generalist.data.base.errors import UserError
    from generalist.evaluate.heldout import failed
    from generalist.evaluate.leakage import said
    from generalist.run.results import evaluate_run, load_run, table

    if args.data is not None:
        return any_to_any(args) if args.any_to_any else on_data(args, args.task)
    if args.keys or args.out or args.any_to_any:
        raise UserError("a run is evaluated as its recipe says; give DATA to evaluate on other data")
    if args.leakage:
        raise UserError("a run is compared with its own training data: give --leakage alone, or DATA to evaluate on")
    recipe, prepared, objective = load_run(args.run)
    recipe.baseline &= not args.no_baseline
    leaks = args.leakage is not None
    metrics = evaluate_run(recipe, prepared, objective, args.run, args.quiet, write=args.write, leaks=leaks)
    print(json.dumps(metrics, indent=1) if args.json else table(metrics))
    for name, line in metrics["tasks"].items() if leaks and not args.json else ():
        if "leakage" in line:
            print(f"{name}: {said(line['leakage'], line['metric'])}")
    return 1 if failed(metrics) else 0


def on_data(args: argparse.Namespace, kind: str, **more: Any) -> int:
    """Evaluate as `kind`, print the table and, with --out, save everything."""
    import json

    from generalist.data.stream.source import from_sound
    from generalist.evaluate.leakage import leakage, said
    from generalist.evaluate.measures import table
    from generalist.evaluate.unread import Unread
    from generalist.evaluate.written import measured
    from generalist.evaluate.zero_shot import Asked, evaluate_on, result_of, save_result

    model, processor, records = opened(args)
    label = next((key.partition("=")[2] for key in args.keys if key.startswith("label=")), "label")
    records = with_labels(args, records, label)
    inputs = dict(pair(text) for text in args.input or [])
    partners = dict(pair(text) for text in vars(args).get("partner") or [])
    asked = Asked(
        kind, inputs, partners, args.classes, args.template, args.scale, list(args.keys), usual(processor, records)
    )
    cache = args.cache or (args.out / "candidates" if args.out else None)
    unread = Unread(args.split, mismatches=False)
    with worn(model, args.prompts):
        answers, columns = evaluate_on(model, processor, records, asked, cache, unread)
        result = result_of(answers, columns)
        tell(**{args.split: answers.records})
        if answers.records.notes:
            result["notes"] = answers.records.notes
        if unread.lines:
            result["unread"] = unread.lines
        if vars(args).get("write", False):
            result["measures"] |= measured(model, answers, args.out and args.out / "captions.jsonl")
    if args.leakage is not None:
        known, fields, where = training(args, answers.task)
        look = partial(leakage, answers.task.line_kind, columns, records=answers.records, fields=fields)
        result["leakage"] = from_sound(lambda sound: look(training=sound), known)
        result["leakage"]["compared"]["with"] = where
    if args.out:
        save_result(args.out, result, answers, columns)
    print(json.dumps(result, indent=1) if args.json else table(result))
    if unread.lines and not args.json:
        print(unread.said)
    if "leakage" in result and not args.json:
        print(said(result["leakage"], result["metric"]))
    return 0


def any_to_any(args: argparse.Namespace) -> int:
    """The matrix of retrieval between the data's modalities; saved in --out, or in the run's folder for its report."""
    import json

    from generalist.evaluate.any_to_any import ask, save, table

    model, processor, records = opened(args)
    tell(**{args.split: records})
    with worn(model, args.prompts):
        result, columns = ask(model, processor, records, dict(pair(text) for text in args.input or []))
    out = args.out or (args.run if (args.run / "recipe.json").is_file() else None)
    if out is not None:
        save(out, result, [str(records[i].get("id", i)) for i in range(len(records))], columns)
    print(json.dumps(result, indent=1) if args.json else table(result))
    return 0


def training(args: argparse.Namespace, task: Any) -> tuple[Any, set[str], str]:
    """The training records to compare with, the fields, and where they come from.

    Those of --leakage TRAIN, or of the run's recipe; of a model without a recipe, the data's own training split.
    """
    from generalist.evaluate.leakage import compared_fields
    from generalist.evaluate.trained_on import trained_on

    fields = compared_fields(task)
    if args.leakage:
        return source_of(args, args.leakage).open("train"), fields, args.leakage
    found = trained_on(args.run, task.inputs | task.other_side()) if fields else None
    if found is not None:
        return *found, "what the run was trained on (recipe.json)"
    own = "the training split of the same data, for no recipe.json says what the model was trained on"
    return source_of(args, args.data).open("train"), fields, own


def opened(args: argparse.Namespace) -> tuple[Any, Any, Any]:
    """The model, its processor and the records of the data's split."""
    from generalist.hf.predict import load_for_asking

    model, processor = load_for_asking(args.run)
    records = source_of(args, args.data).open(args.split)
    if args.limit:
        records = records.spread(args.limit)
    return model, processor, records


def usual(processor: Any, records: Any) -> dict[str, str]:
    """What goes in where neither --input nor the task says it: {modality: field}, by the ending of the first file."""
    from generalist.data.media.kinds import ending
    from generalist.serve.index import modalities_of_files

    reads = modalities_of_files(processor)
    files = {name: value for name, value in records[0].items() if isinstance(value, str | Path)}
    found = {reads[end]: name for name, value in files.items() if (end := ending(Path(value))) in reads}
    return found or {"image": "image"}


def with_labels(args: argparse.Namespace, records: Any, label: str) -> Any:
    from generalist.evaluate.zero_shot import read_labels

    return records if args.labels is None else read_labels(args.labels, records, label)


def worn(model: Any, prompts: Path | None) -> Any:
    """The model with tuned prompts put on while it is asked."""
    from contextlib import nullcontext

    from generalist.adapt.kept import read_part, wearing

    return nullcontext() if prompts is None else wearing(model, read_part(prompts, model))
