"""Inputs as they are kept for a report: small enough that a page of them opens at once."""

from __future__ import annotations

from typing import Any

import numpy as np

SIDE = 96  # pixels of a picture's longer side
DIGITS = 4


def small(given: dict[str, Any]) -> dict[str, Any]:
    """An `input` entry with fewer pixels and digits; what it says is the same."""
    return {name: _pixels(value) if name == "pixels" else _short(value) for name, value in given.items()}


def _pixels(value: Any) -> Any:
    """Means of blocks, so that the longer side is at most SIDE."""
    pixels = np.asarray(value, dtype=np.float64)
    step = -(-max(pixels.shape[:2]) // SIDE)
    high, wide = (side // step * step for side in pixels.shape[:2])
    if min(high, wide) and step > 1:
        blocks = pixels[:high, :wide].reshape(high // step, step, wide // step, step, *pixels.shape[2:])
        pixels = blocks.mean((1, 3))
    return pixels.round(3).tolist()


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {name: _short(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_short(one) for one in value]
    return value
