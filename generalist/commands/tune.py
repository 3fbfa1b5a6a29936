"""`generalist tune MODEL DATA --input image=image`: adapt a trained model with little labelled data."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

CURVE = [0.01, 0.02, 0.05, 0.1, 1.0]


def pair(text: str) -> tuple[str, str]:
    """ "modality=field", or "modality" where the field has the same name."""
    modality, _, name = text.partition("=")
    return modality, name or modality


def source_of(args: argparse.Namespace, place: str) -> Any:
    """The source at a place with the settings of --set.

    A folder's files go by a modality asked without a field; what is asked of a table is no part of its rows.
    """
    from generalist.data.sources.places import source_at
    from generalist.data.sources.settings import from_words

    asked = [pair(text) for text in [*(args.input or []), *(vars(args).get("partner") or [])]]
    keys = dict(pair(text) for text in vars(args).get("keys", []))
    answer = vars(args).get("label", "") or keys.get("label") or keys.get("target") or ""
    if vars(args).get("labels") is not None:  # they lie in a file of their own
        answer = ""
    return source_at(place, from_words(args.set), [name for modality, name in asked if modality == name], answer)


def tell(**records: Any) -> None:
    """What is odd in the records of a split and what was made of it, as training says it before its first step."""
    said = dict.fromkeys(f"  {name}: {note}" for name, found in records.items() for note in found.notes)
    print("".join(f"{line}\n" for line in said), end="", file=sys.stderr)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="a run's folder, or a model folder")
    parser.add_argument("data", help="a folder, table, shards, hub:NAME or embedded:NAME with a label")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="settings of the data's source")
    parser.add_argument("--input", action="append", metavar="MODALITY=FIELD", help="what goes in (default image=image)")
    parser.add_argument("--label", default="label", help="the field with the class")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="class names in order, where the data has none")
    parser.add_argument("--method", nargs="+", default=["prompts"], help="zero-shot, prompts, probe, lora, full")
    parser.add_argument("--shots", type=int, nargs="+", metavar="N", help="training records a class")
    parser.add_argument("--fraction", type=float, nargs="+", metavar="F", help="share of the training records")
    parser.add_argument(
        "--curve",
        action="store_true",
        help="1, 2, 5, 10 and 100 %% of the training records (generalist report draws it)",
    )
    parser.add_argument(
        "--control",
        action="store_true",
        help="the same on an encoder of random weights too, for every method that holds the encoder fixed",
    )
    parser.add_argument("--draws", type=int, default=1, help="independent draws, for mean and spread")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.0, help="0 takes the method's default")
    parser.add_argument("--prompts", type=int, default=10, metavar="P", help="prompt vectors a layer")
    parser.add_argument("--rank", type=int, default=8, help="rank of LoRA's updates")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, metavar="N", help="score N test records only, evenly spread")
    parser.add_argument(
        "--out",
        type=Path,
        help="where the table, every draw's answers, the last tuned model and its prompts or LoRA weights are saved",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")


def run(args: argparse.Namespace) -> int:
    import json

    from generalist.adapt.curve import curve, with_controls
    from generalist.adapt.kept import Keeper, save_tuned
    from generalist.adapt.methods import FROZEN, METHODS, Tuning, bind, zero_shot
    from generalist.data.base.errors import UserError
    from generalist.evaluate.answer import readable
    from generalist.evaluate.unread import Unread
    from generalist.hf.predict import load_model
    from generalist.tasks.candidates.names import Names
    from generalist.tasks.kinds.classify import Classify

    model, processor = load_model(args.model)
    source = source_of(args, args.data)
    inputs = dict(pair(text) for text in args.input or ["image"])
    task = Classify(name="tuned", source=source, inputs=inputs, label=args.label, classes=args.classes)
    training, test = task.open("train"), task.open("test")
    tell(train=training, test=test)
    if args.limit:
        test = test.spread(args.limit)
    unread = Unread("test", mismatches=False)
    bind(model, processor.built, task, training)
    test = readable(task, test, unread)
    unread.check(len(test))
    if args.curve:
        if args.shots or args.fraction:
            raise UserError("--curve sets the fractions; give it without --shots and --fraction")
        args.fraction = CURVE
    sizes: list[dict[str, Any]] = [{"shots": n} for n in args.shots or []] + [
        {"fraction": f} for f in args.fraction or []
    ]
    shared = {"steps": args.steps, "batch": args.batch, "lr": args.lr, "prompts": args.prompts, "rank": args.rank}
    settings = [
        Tuning(method, seed=args.seed, **shared, **size)
        for method in args.method
        # what trains nothing is the same at every size
        for size in (sizes[:1] if METHODS.get(method) is zero_shot else sizes) or [{}]
    ]
    settings = with_controls(settings) if args.control else settings
    if args.curve and args.out is None and (args.model / "recipe.json").is_file():
        args.out = args.model / "tuning" / Path(args.data.rstrip("/")).name.replace(":", "-")
    keeper = Keeper(args.out, task, [str(test[i].get("id", i)) for i in range(len(test))])
    lines = curve(model, processor.built, task, training, test, settings, args.draws, keeper)
    for line, how in zip(lines, settings, strict=True):
        line["classes"] = len(task.among_kind(Names).names)
        line["measures"] = mean_and_spread(keeper.measures[how.place])
    if args.out:
        save_tuned(args.out, lines, keeper, processor)
    print(json.dumps(lines, indent=1) if args.json else table(lines))
    if said := unread.write(args.out) if args.out else unread.said:
        print(said, file=sys.stderr if args.json else sys.stdout)
    if not args.control and not args.json and (bare := [m for m in args.method if m in FROZEN]):
        print(f"{', '.join(bare)} without the control of a random encoder; add --control")
    return 0


def mean_and_spread(draws: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Every measure over the draws: {"mean", "std"}."""
    import numpy as np

    found = {name: [one[name] for one in draws] for name in draws[0]}
    return {
        name: {"mean": float(np.mean(v)), "std": float(np.std(v, ddof=1)) if len(v) > 1 else 0.0}
        for name, v in found.items()
    }


def table(lines: list[dict[str, Any]]) -> str:
    """The results as a text table."""
    rows = [("method", "data", "samples", "trained", "accuracy", "std over draws", "n test")]
    for line in lines:
        data = f"{line['shots']} shots" if line["shots"] else f"{line['fraction']:.1%}" if line["fraction"] else "all"
        size = ("-", "0") if not line["trained"] else (data, str(line["samples"]))
        spread = f"{line['std']:.4f} ({len(line['draws'])})"
        rows.append(
            (line["method"], *size, f"{line['trained']:,}", f"{line['accuracy']:.4f}", spread, str(line["n_test"]))
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)
