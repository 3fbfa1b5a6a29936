"""One sample seen several times: evaluation looks at every view and averages what it says.

Uni-Perceiver's Kinetics evaluation (spec 1.14): 32 frames split into 4 interleaved clips of 8, each cut three times
along its longer side: 12 views, whose probabilities are averaged.

    frames   0 1 2 3 4 5 6 7 ...      clip j of 4 = frames j, j + 4, j + 8 ...
    crops    [left|  |  ]  [ |middle| ]  [  |  |right]      of the short side's size

A long recording is seen as several windows, first to last; a cube of a satellite in its mirrored and turned forms.

A modality with views has `views`, their number, and `view`, the one that `span` shows; None is the ordinary one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generalist.data.base.errors import UserError


def views_of(modalities: Iterable[Any]) -> int:
    """How many views a sample of these modalities has: the most that one of them asks for."""
    return max((m.views for m in modalities), default=1)


@contextmanager
def seen_as(modalities: Iterable[Any], view: int) -> Iterator[None]:
    """Spans made inside are those of this view (counted from 0) where a modality has so many, else the last one."""
    own = [m for m in modalities if m.views > 1]
    try:
        for modality in own:
            modality.view = min(view, modality.views - 1)
        yield
    finally:
        for modality in own:
            modality.view = None


def read_once(modality: Any, raw: Any, make: Callable[[Any], Any]) -> Any:
    """make(raw); while a sample is looked at several times it is made for the first view and kept for the others."""
    if modality.view is None:
        modality.__dict__.pop("_seen", None)
        return make(raw)
    kept = modality.__dict__.get("_seen")
    if kept is None or kept[0] is not raw:
        kept = modality.__dict__["_seen"] = (raw, make(raw))
    return kept[1]


def begin(spare: int, number: int | None, count: int) -> int:
    """Where cut `number` of `count` begins, of spare + 1 places: evenly from the first to the last, alone amid."""
    return round(spare * number / (count - 1)) if number is not None and count > 1 else spare // 2


def stretch(value: Tensor, length: int, modality: Any, rng: torch.Generator | None) -> Tensor:
    """At most `length` of Float[t ...]: random with `rng`, else the modality's view of its `windows`, or the middle."""
    spare = len(value) - length
    if spare <= 0:
        return value
    first = (
        begin(spare, modality.view, modality.windows) if rng is None else torch.randint(spare + 1, (), generator=rng)
    )
    return value[int(first) : int(first) + length]


def check_windows(name: str, windows: int, key: str, length: float) -> None:
    """UserError for a number of windows that cannot be, `key` being the setting that holds their length."""
    if windows < 1 or (windows > 1 and not length):
        raise UserError(f"{name}: windows is {windows}; it is at least 1, and more than one need `{key}`, their length")


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


def crop(value: Tensor, sides: tuple[int, int], number: int, crops: int) -> Tensor:
    """Crop `number` along the side with more to spare, amid the other: Float[... H W] -> Float[... height width]."""
    spare = [have - side for have, side in zip(value.shape[-2:], sides, strict=True)]
    top, left = spare[0] // 2, spare[1] // 2
    if spare[0] > spare[1]:
        top = begin(spare[0], number, crops)
    else:
        left = begin(spare[1], number, crops)
    return value[..., top : top + sides[0], left : left + sides[1]]
