"""Examples of the modalities with a pretrained encoder (`generalist.tokenizers_mod.base.examples`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.vision.examples import unreadable


def heard() -> Examples:
    rng = np.random.default_rng(0)
    waves = [(rng.normal(size=n).astype(np.float32) * 0.1, 16000) for n in (16000, 4000, 24000)]
    silent: list[tuple[Any, str]] = [((np.zeros(0), 16000), r"empty|shorter"), ("no_such.wav", r"no_such.wav")]
    return Examples({"backbone": "test_efficientnet", "size": 64}, waves, silent, [(waves[1], 4)])


def backbone() -> Examples:
    rng = np.random.default_rng(0)
    return Examples(
        {"backbone": "test_convnext", "size": 64},
        [rng.random((20, 33)), rng.random((7, 5, 3)), rng.random((1, 1))],
        [(np.zeros((0, 5)), r"at least one pixel"), *unreadable()],
        [(np.full((1, 1), 0.5), 4)],
    )


def sentence() -> Examples:
    return Examples(
        {},
        ["a cat", "two dogs on a mat"],
        [("", r"empty"), (" \n\t ", r"empty"), (5, r"expected a str")],
        [("no", 1)],
        [({}, "a photo of two dogs", {})],
    )
