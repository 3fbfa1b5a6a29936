"""`generalist info`: what is installed and what there is to choose from."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterator
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--modalities", action="store_true", help="only the modalities, with raw formats and token counts"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    import json

    from generalist.machine import terminal

    found = iter([("modalities", modalities())]) if args.modalities else sections()
    if args.json:
        print(json.dumps(dict(found), indent=1))
        return 0
    most = min(110, terminal.width() or 110)
    for title, values in found:
        print(title, flush=True)  # what is known already is told while the rest is imported
        width = max((len(name) for name in values), default=0) + 2
        for name, value in values.items():
            lines = [f"{key}: {text}" for key, text in value.items()] if isinstance(value, dict) else [value]
            for i, line in enumerate(lines):
                first = f"  {name if i == 0 else '':<{width}}"
                print(textwrap.fill(line, most, initial_indent=first, subsequent_indent=" " * (width + 4)))
    return 0


def about(kind: type) -> str:
    """What a class is, from the first line of its file."""
    return (sys.modules[kind.__module__].__doc__ or "").strip().splitlines()[0]


def sections() -> Iterator[tuple[str, dict[str, Any]]]:
    """Titles and what stands below them, one by one; the versions without importing what they are of."""
    yield "versions", versions()
    import torch

    from generalist.recipe.load import RECIPES, load_recipe
    from generalist.tasks.registry.table import TASKS

    devices = {"cpu": f"{torch.get_num_threads()} threads"}
    for i in range(torch.cuda.device_count()):
        devices[f"cuda:{i}"] = torch.cuda.get_device_name(i)
    yield "devices", devices
    yield "modalities", modalities()
    yield "sources", sources()
    yield "tasks", {name: about(kind) for name, kind in TASKS.items()}
    yield from encoder_parts().items()
    yield "recipes", {name: load_recipe(name).about for name in RECIPES}


def versions() -> dict[str, str]:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    packages = {"python": platform.python_version()}
    for name in (
        "generalist",
        "torch",
        "torchvision",
        "transformers",
        "tokenizers",
        "deepspeed",
        "datasets",
        "webdataset",
    ):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    return packages


def encoder_parts() -> dict[str, dict[str, str]]:
    """What the keys model.mixers, model.channel_mixers, model.steps (stages) and model.readout may name."""
    from generalist.nn.mixers.table import CHANNEL_MIXERS, TOKEN_MIXERS, mixer_class
    from generalist.nn.readout import POOLINGS
    from generalist.nn.steps.base import STAGES

    tables: dict[str, Any] = {
        "mixers": TOKEN_MIXERS,
        "channel_mixers": CHANNEL_MIXERS,
        "stages": STAGES,
        "readouts": POOLINGS,
    }
    return {
        title: {name: (mixer_class(table, name).__doc__ or "").strip().partition("\n")[0] for name in table}
        for title, table in tables.items()
    }


def sources() -> dict[str, str]:
    """Where data may come from: the word of a command line, or the class of a recipe, and what it is."""
    from importlib import import_module

    from generalist.data.sources.places import SOURCES

    return {
        f"{word} ({name})": about(vars(import_module(f"generalist.data.sources.{module}"))[name])
        for word, (module, name) in SOURCES.items()
    }


def modalities() -> dict[str, dict[str, str]]:
    from generalist.tokenizers_mod.base.modalities import MODALITIES, modality_class

    classes = {name: modality_class(name) for name in MODALITIES}
    return {name: {"raw": kind.raw, "tokens": kind.count} for name, kind in classes.items()}
