"""Weights stored smaller than they are used: as int8 with a scale a row, or as two factors; whole again when read.

    encoder.0.weight::int8 + encoder.0.weight::scale       int8 [out in], fp32 [rows]: w = int8 · scale
    encoder.0.weight::left + encoder.0.weight::right       [out r], [r in]: w = left @ right; each may be int8 itself

The names say it, so that nothing else must: whoever reads a model's file gets the tensors that the model has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

INT8, SCALE, LEFT, RIGHT = "::int8", "::scale", "::left", "::right"
SHORTEST = 32  # numbers that share a scale: with fewer, the scales take more than an eighth of what is saved


def is_small(names: Iterable[str]) -> bool:
    """Whether some of these names are of tensors that are stored smaller."""
    return any(name.endswith((INT8, LEFT)) for name in names)


def rows_of(value: Tensor) -> Tensor | None:
    """The numbers that share a scale, Float[rows n]: those along the last axis, or all behind the first where that is
    short; None for a tensor that is better left as it is."""
    if value.ndim < 2 or not value.is_floating_point():
        return None
    wide = value.shape[-1] >= SHORTEST
    rows = value.reshape(-1, value.shape[-1]) if wide else value.reshape(value.shape[0], -1)
    return rows if rows.shape[1] >= SHORTEST else None


def as_int8(name: str, value: Tensor) -> dict[str, Tensor]:
    """A tensor as int8 and its scales, largest / 127 a row, under their names; as it is where `rows_of` says so."""
    rows = rows_of(value)
    if rows is None:
        return {name: value}
    rows = rows.float()
    scale = rows.abs().amax(1) / 127
    small = (rows / scale.clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(1)).round().clamp(-127, 127)
    return {name + INT8: small.to(torch.int8).reshape(value.shape), name + SCALE: scale}


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor under the model's own name, with the numbers that the model has."""
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name.endswith(INT8):
            own = name.removesuffix(INT8)
            scale = tensors[own + SCALE]
            found[own] = (value.reshape(len(scale), -1).float() * scale.unsqueeze(1)).reshape(value.shape)
        elif not name.endswith(SCALE):
            found[name] = value
    for name in [name for name in found if name.endswith(LEFT)]:
        own = name.removesuffix(LEFT)
        found[own] = found.pop(name).float() @ found.pop(own + RIGHT).float()
    return found


def read_small(files: Iterable[str | Path]) -> dict[str, Tensor] | None:
    """All tensors of a model's files made whole; None where they are stored as they are used (the headers are read)."""
    places = [str(file) for file in files]
    if not all(place.endswith(".safetensors") for place in places):
        return None
    names: list[str] = []
    for place in places:
        with safe_open(place, "pt") as opened:
            names += opened.keys()
    return whole({k: v for place in places for k, v in load_file(place).items()}) if is_small(names) else None
