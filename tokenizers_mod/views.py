"""One sample seen several times: evaluation looks at every view and averages what it says.

Uni-Perceiver's Kinetics evaluation (spec 1.14): 32 frames split into 4 interleaved clips of 8, each cut three times
along its longer side: 12 views, whose probabilities are averaged.

    frames   0 1 2 3 4 5 6 7 ...      clip j of 4 = frames j, j + 4, j + 8 ...
    crops    [left|  |  ]  [ |middle| ]  [  |  |right]      of the short side's size

A modality with views has `views`, their number, and `view`, the one that `span` shows; None is the ordinary one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor


def views_of(modalities: Iterable[Any]) -> int:
    """How many views a sample of these modalities has: the most that one of them asks for."""
    return max((getattr(m, "views", 1) for m in modalities), default=1)


@contextmanager
def seen_as(modalities: Iterable[Any], view: int) -> Iterator[None]:
    """Spans made inside are those of this view (counted from 0) where a modality has so many, else the last one."""
    own = [m for m in modalities if getattr(m, "views", 1) > 1]
    try:
        for modality in own:
            modality.view = min(view, modality.views - 1)
        yield
    finally:
        for modality in own:
            modality.view = None


def clip(value: Tensor, number: int, clips: int, most: int) -> Tensor:
    """Interleaved clip `number` of a film: Float[T ...] -> Float[t ...], t <= most (0 = any); short films whole."""
    if len(value) < clips:
        return value
    frames = range(number, len(value), clips)
    return value[[frames[i] for i in spread(len(frames), most)]]


def spread(count: int, most: int) -> list[int]:
    """`most` indices of `count`, first and last among them, evenly spread; all of them where most is 0 or larger."""
    if not most or count <= most:
        return list(range(count))
    return [int(i) for i in np.linspace(0, count - 1, most).round()]


def crop(value: Tensor, size: int, number: int, crops: int) -> Tensor:
    """Crop `number` along the longer side, in the middle of the shorter one: Float[... H W] -> Float[... size size]."""
    h, w = value.shape[-2:]
    share = number / (crops - 1) if crops > 1 else 0.5
    top, left = (h - size) // 2, (w - size) // 2
    if h > w:
        top = round((h - size) * share)
    else:
        left = round((w - size) * share)
    return value[..., top : top + size, left : left + size]
