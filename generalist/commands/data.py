"""`generalist data shard|validate|stats`: data sets into shards, and what is wrong with them or in them."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from generalist.data.stream.source import Records, Source
    from generalist.data.tools.alike import Looks

SOURCE = "a folder, a table, a folder or address of shards, .tar files, hub:NAME or embedded:NAME"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="data_command", metavar="ACTION", required=True)

    shard = commands.add_parser("shard", help="write tar shards with an index and checksums; goes on after a kill")
    _source(shard)
    shard.add_argument("out", type=Path, metavar="OUT", help="folder of the shards, one folder a split")
    shard.add_argument("--per", type=int, default=1000, help="samples a shard (default 1000)")
    shard.add_argument("--workers", type=int, default=1, help="processes that write (default 1)")
    shard.add_argument("--seed", type=int, default=0, help="shuffles the samples (default 0)")
    shard.add_argument("--in-order", action="store_true", help="keep the source's order")
    shard.add_argument("--skip", action="store_true", help="leave out samples that cannot be read, and list them")
    shard.add_argument("--overwrite", action="store_true", help="replace shards of another source or plan")

    validate = commands.add_parser("validate", help="counts, decodes, finds repeats, blanks, imbalance and leakage")
    _source(validate)
    validate.add_argument(
        "--against", action="append", default=[], metavar="SRC", help="an evaluation set to keep apart"
    )

    stats = commands.add_parser("stats", help="what is in it, in numbers and plots")
    _source(stats)
    stats.add_argument("--out", type=Path, help="folder for stats.json and stats.png (default: only the table)")
    stats.add_argument("--limit", type=int, default=0, help="look at so many samples a split, evenly spread")


def _source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help=SOURCE)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="settings, such as label=income"
    )
    parser.add_argument("--splits", nargs="+", metavar="SPLIT", help="default: those of train, val and test that exist")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
    )


def run(args: argparse.Namespace) -> int:
    return {"shard": shard, "validate": validate, "stats": stats}[args.data_command](args)


def open_splits(args: argparse.Namespace) -> tuple[Source, dict[str, Records]]:
    """The source and its splits; a split that was asked for must exist."""
    from generalist.data.base.errors import Unfinished, UserError
    from generalist.data.sources.places import source_at
    from generalist.data.sources.settings import from_words
    from generalist.data.stream.splits import SPLITS

    source = source_at(args.source, from_words(args.set))
    found, errors = {}, []
    for split in args.splits or SPLITS:
        try:
            records = source.open(split)
        except UserError as error:
            if args.splits or isinstance(error, Unfinished):
                raise
            errors.append(error)
            continue
        if len(records) or args.splits:
            found[split] = records
    if not found:
        raise errors[0] if errors else UserError(f"{args.source}: every split is empty")
    return source, found


def bar(args: argparse.Namespace, total: int, what: str, unit: str) -> Any:
    from generalist.machine.progress import progress

    return progress(args.quiet, total=total, desc=what, unit=unit)


def _show(shown: Any, done: int, of: int) -> None:
    shown.update(done - shown.n)


def shard(args: argparse.Namespace) -> int:
    from generalist.data.tools.shard_writer import Plan, write_split

    source, splits = open_splits(args)
    lines = {}
    for split, records in splits.items():
        plan = Plan(source, split, args.out, args.per, None if args.in_order else args.seed, args.skip)
        with bar(args, -(-len(records) // args.per), split, "shard") as shown:
            index = write_split(plan, args.workers, args.overwrite, partial(_show, shown))
        lines[split] = {
            "samples": sum(s["nsamples"] for s in index["shardlist"]),
            "shards": len(index["shardlist"]),
            "bytes": sum(s["filesize"] for s in index["shardlist"]),
            "skipped": index["skipped"],
        }
    if args.json:
        print(json.dumps(lines, indent=1, ensure_ascii=False))
        return 0
    for split, line in lines.items():
        print(f"{split:<6} {line['samples']} samples in {line['shards']} shards, {line['bytes'] / 1e6:.1f} MB")
        for text in line["skipped"]:
            print(f"       left out: {text}")
    print(f"read it with: Shards({str(args.out)!r})")
    return 0


def validate(args: argparse.Namespace) -> int:
    from generalist.data.base.errors import UserError
    from generalist.data.sources.places import source_at
    from generalist.data.tools.check import SHOWN, check, check_shards

    source, splits = open_splits(args)
    marks: dict[str, set[str]] = {}
    looks: dict[str, Looks] = {}
    for place in args.against:
        other = source_at(place)
        for split in ("test", "val"):
            try:
                held = other.open(split)
            except UserError:
                continue
            found, marks[f"{place} ({split})"] = check(held, split)
            looks[f"{place} ({split})"] = found.looks
        if not any(name.startswith(f"{place} (") for name in marks):
            raise UserError(f"--against {place}: it has neither a test nor a val split")
    reports = []
    # held-out splits first, so that training data is compared with them
    for split in sorted(splits, key=lambda s: s == "train"):
        with bar(args, len(splits[split]), split, "sample") as shown:
            report, own = check(splits[split], split, marks, shown.update, looks)
        folder = Path(vars(source).get("path") or "", split)
        if (folder / "index.json").is_file():
            report.problems["checksum"] += check_shards(folder)
        marks[split], looks[split] = own, report.looks
        reports.append(report)
    if args.json:
        print(json.dumps([r.as_json() for r in reports], indent=1, ensure_ascii=False))
    else:
        for report in reports:
            print(f"{report.split}: {report.read} of {report.samples} samples read; fields {', '.join(report.fields)}")
            if report.classes:
                shown_classes = ", ".join(f"{n} {c}" for n, c in report.classes.most_common(12))
                print(f"  classes ({len(report.classes)}): {shown_classes}")
            print("".join(f"  {note}\n" for note in report.notes), end="")
            for kind, names in report.problems.items():
                if names:
                    print(f"  {kind}: {len(names)}")
                    print("".join(f"    {name}\n" for name in names[:SHOWN]), end="")
        print("valid" if all(r.valid for r in reports) else "not valid: broken, repeated or leaked samples")
    return 0 if all(r.valid for r in reports) else 1


def stats(args: argparse.Namespace) -> int:
    from generalist.data.tools.statistics import gather, plot

    _, splits = open_splits(args)
    found = {}
    for split, records in splits.items():
        with bar(args, min(len(records), args.limit or len(records)), split, "sample") as shown:
            found[split] = gather(records, shown.update, args.limit)
    plots = 0
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        plots = plot(found, args.out / "stats.png", args.source)
    for held in found.values():
        del held["_values"]
    if args.out:
        (args.out / "stats.json").write_text(json.dumps(found, indent=1, ensure_ascii=False))
    if args.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return 0
    for name, held in found.items():
        print(f"{name}: {held['samples']} samples, {held['broken']} broken")
        print("".join(f"  {note}\n" for note in held["notes"]), end="")
        if held["classes"]:
            print("  classes: " + ", ".join(f"{n} {c}" for n, c in list(held["classes"].items())[:12]))
        for what, count in held["odd"].items():
            print(f"  {what}: {count}")
        for field, count in held["missing"].items():
            print(f"  {field}: {count} missing")
        for measure, s in held["measures"].items():
            if s["count"]:
                middle, low, high, most = (s[k] for k in ("median", "5%", "95%", "most"))
                print(f"  {measure:<28} median {middle:.4g}, 5..95 % {low:.4g}..{high:.4g}, most {most:.4g}")
    if args.out:
        print(f"written: {args.out / 'stats.json'}" + (f", {args.out / 'stats.png'} ({plots} plots)" if plots else ""))
    return 0
