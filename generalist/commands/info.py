"""`generalist info`: what is installed and what there is to choose from."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# what the keys model.mixers, model.channel_mixers, model.steps (stages) and model.readout may name
PARTS = {
    "mixers": ("generalist.nn.mixers.table", "TOKEN_MIXERS"),
    "channel_mixers": ("generalist.nn.mixers.table", "CHANNEL_MIXERS"),
    "stages": ("generalist.nn.steps.base", "STAGES"),
    "readouts": ("generalist.nn.readout", "POOLINGS"),
}
DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "C:/Windows/System32/nvcuda.dll")  # Linux, ROCm, WSL, Windows


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


def sections() -> Iterator[tuple[str, dict[str, Any]]]:
    """Titles and what stands below them, one by one, without importing what they are of."""
    from generalist.machine.unimported import about, literal, table

    yield "versions", versions()
    yield "devices", devices()
    yield "modalities", modalities()
    yield "sources", sources()
    tasks = table("generalist.tasks.registry.table", "TASKS")
    yield "tasks", {name: about(path, whole=True) for name, path in tasks.items()}
    for title, (module, name) in PARTS.items():
        yield title, {part: about(path) for part, path in table(module, name).items()}
    yield "recipes", literal("generalist.recipe.load", "ABOUT")


def devices() -> dict[str, str]:
    """What a run could stand on; torch is asked only where there is a driver of a GPU."""
    import os

    found = {"cpu": f"{os.cpu_count()} cores"}
    if any(Path(driver).exists() for driver in DRIVERS):
        import torch

        for i in range(torch.cuda.device_count()):
            found[f"cuda:{i}"] = torch.cuda.get_device_name(i)
    return found


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


def sources() -> dict[str, str]:
    """Where data may come from: the word of a command line, or the class of a recipe, and what it is."""
    from generalist.machine.unimported import about, literal

    found = literal("generalist.data.sources.places", "SOURCES")
    paths = {f"{word} ({name})": f"generalist.data.sources.{module}:{name}" for word, (module, name) in found.items()}
    return {title: about(path, whole=True) for title, path in paths.items()}


def modalities() -> dict[str, dict[str, str]]:
    from generalist.machine.unimported import table, value

    found = table("generalist.tokenizers_mod.base.modalities", "MODALITIES")
    return {name: {"raw": value(path, "raw"), "tokens": value(path, "count")} for name, path in found.items()}
