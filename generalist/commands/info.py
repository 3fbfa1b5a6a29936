"""`generalist info`: what is installed and what there is to choose from."""

from __future__ import annotations

import argparse
import sys
import textwrap
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--modalities", action="store_true", help="only the modalities, with raw formats and token counts"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    import json

    found = {"modalities": modalities()} if args.modalities else everything()
    if args.json:
        print(json.dumps(found, indent=1))
        return 0
    for title, values in found.items():
        print(title)
        width = max((len(name) for name in values), default=0) + 2
        for name, value in values.items():
            lines = [f"{key}: {text}" for key, text in value.items()] if isinstance(value, dict) else [value]
            for i, line in enumerate(lines):
                first = f"  {name if i == 0 else '':<{width}}"
                print(textwrap.fill(line, 110, initial_indent=first, subsequent_indent=" " * (width + 4)))
    return 0


def about(kind: type) -> str:
    """What a class is, from the first line of its file."""
    return (sys.modules[kind.__module__].__doc__ or "").strip().splitlines()[0]


def everything() -> dict[str, Any]:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from generalist.recipe.load import RECIPES, load_recipe
    from generalist.tasks.registry.table import TASKS

    packages = {}
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
    devices = {"cpu": f"{torch.get_num_threads()} threads"}
    for i in range(torch.cuda.device_count()):
        devices[f"cuda:{i}"] = torch.cuda.get_device_name(i)
    return {
        "versions": {"python": platform.python_version(), **packages},
        "devices": devices,
        "modalities": modalities(),
        "tasks": {name: about(kind) for name, kind in TASKS.items()},
        **encoder_parts(),
        "recipes": {name: load_recipe(name).about for name in RECIPES},
    }


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


def modalities() -> dict[str, dict[str, str]]:
    from generalist.tokenizers_mod.base.modalities import MODALITIES, modality_class

    classes = {name: modality_class(name) for name in MODALITIES}
    return {name: {"raw": kind.raw, "tokens": kind.count} for name, kind in classes.items()}
