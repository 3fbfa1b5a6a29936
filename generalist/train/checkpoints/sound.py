"""Checkpoints as they are found: which are complete, which are sound, and what one holds, tensor by tensor."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.machine.ranks import first_line
from generalist.train.checkpoints import manifest
from generalist.train.engines.base import read_meta
from generalist.train.engines.portable import load

NAME = re.compile(r"step-(\d{8})$")


def folders(run: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every checkpoint that was once whole, oldest first."""
    found = (run / "checkpoints").glob("step-*")
    return sorted((int(m.group(1)), p) for p in found if (m := NAME.match(p.name)) and p.is_dir())


def checkpoints(run: Path) -> list[tuple[int, Path]]:
    """Complete checkpoints of a run, oldest first; whether their files are sound is not looked at."""
    return [(step, p) for step, p in folders(run) if (p / manifest.NAME).exists() or manifest.is_old(p)]


def latest(run: Path) -> tuple[int, Path]:
    """The newest complete checkpoint. UserError when the run has none."""
    found = checkpoints(run)
    if not found:
        raise UserError(f"{run} holds no checkpoint to resume from; start it without --resume")
    return found[-1]


def newest_sound(run: Path, trust: bool = False) -> tuple[int, Path]:
    """The newest checkpoint that holds what was written, every byte read; damaged ones before it are told of.

    trust: one of an earlier version, which has no checksums, counts where its files can be read. UserError when none
    is sound, which names what is wrong with the newest.
    """
    found, wrong = folders(run), []
    if not found:
        raise UserError(f"{run} holds no checkpoint to resume from; start it without --resume")
    for step, folder in reversed(found):
        try:
            check(folder, step, trust)
        except UserError as error:
            wrong.append(str(error))
            continue
        for line in wrong:
            print(f"{line}; going on from the checkpoint before it, after step {step}", file=sys.stderr, flush=True)
        return step, folder
    more = f", and so with the {len(wrong) - 1} before it" if len(wrong) > 1 else ""
    raise UserError(f"{run} holds no sound checkpoint: {wrong[0]}{more}; train anew with --overwrite or another --out")


def check(folder: Path, step: int, trust: bool = False) -> None:
    """Every file is what was written, byte by byte. UserError names the first that is not."""
    if not manifest.is_old(folder):
        manifest.check(folder, step)
    elif trust:
        verify(folder, trust)
    else:
        raise UserError(
            f"{folder} was written by an earlier version, without checksums; --trust reads it (its files may run code)"
        )


def verify(folder: Path, trust: bool = False) -> dict[str, Any]:
    """Read every file of a checkpoint. UserError names the first that is missing or broken; else what it holds.

    trust: an earlier version's, which has no checksums, is read too, objects and all.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (manifest.is_old(folder) and trust):
        try:
            check(folder, int(folder.name.removeprefix("step-")))
        except UserError as error:
            raise UserError(f"{error}; train --resume goes on from the checkpoint before it") from error
    meta = read_meta(folder)
    tensors = numbers = files = 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            if path.suffix == ".safetensors":
                held: Any = load_file(path)
            elif path.suffix == ".pt":
                held = load(path, trust and manifest.is_old(folder))
            elif path.suffix == ".json":
                held = json.loads(path.read_text())
            else:
                continue
        except UserError as error:
            raise UserError(f"{error}; resume from an older checkpoint: remove {folder}") from error
        except (OSError, ValueError, SafetensorError) as error:
            raise UserError(
                f"{path} is broken ({first_line(error)}); resume from an older checkpoint: remove {folder}"
            ) from error
        files += 1
        for tensor in tensors_of(held):
            tensors, numbers = tensors + 1, numbers + tensor.numel()
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise UserError(
                    f"{path} holds numbers that are not finite; resume from an older checkpoint: remove {folder}"
                )
    for name in ("recipe.json", "skip.json", "model/config.json"):
        if not (folder / name).is_file():
            raise UserError(f"{folder} lacks {name}; resume from an older checkpoint: remove {folder}")
    return {"files": files, "tensors": tensors, "numbers": numbers} | {k: meta[k] for k in ("engine", "world", "stage")}


def tensors_of(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    return [t for part in parts for t in tensors_of(part)]
