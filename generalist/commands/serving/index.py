"""`generalist index MODEL FOLDER --out DIR`: the vectors of everything in a folder, brought up to date."""

from __future__ import annotations

import argparse
from pathlib import Path

from generalist.commands.predict import precision_flag


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="a run's folder, or a model folder")
    parser.add_argument("folder", type=Path, help="pictures, sounds, clips and texts, in folders or not")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the index is, or will be")
    precision_flag(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    from generalist.data.base.errors import UserError
    from generalist.hf.predict import load_for_asking
    from generalist.machine.progress import progress
    from generalist.serve.index import Index

    if not args.folder.is_dir():
        raise UserError(f"no folder {args.folder}; give one with pictures, sounds, clips or texts")
    model, processor = load_for_asking(args.model)
    model.name_or_path = str(args.model.resolve() if args.model.exists() else args.model)  # a name stays one
    index = Index(args.out, model, processor, args.folder, args.precision)
    with progress(args.quiet, unit="item") as bar:
        told = index.update(bar.update)
    for file, why in list(told.unread.items())[:5]:
        print(f"  not read: {file}: {why}")
    unread = f", {len(told.unread)} that cannot be read" if told.unread else ""
    print(f"{len(index.items)} items in {args.out}: {told.made} new, {told.kept} kept, {told.gone} gone{unread}")
    return 0 if index.items else 1
