"""Which of many numbers lie far from all the others: one such value must not set the scale of the rest."""

from __future__ import annotations

import numpy as np

LEAST = 8  # values below which nothing is said
FAR = 10.0  # spreads from the median
EXTREME = 1e4  # spreads beyond which a float32 keeps nothing of the others


def inside(values: np.ndarray, reach: float = FAR) -> np.ndarray:
    """Bool[n], False where a value lies more than `reach` spreads from the median. All True where nothing spreads.

    The spread is the range of the middle half, or half that of the middle nine tenths where it is larger.
    """
    if len(values) < LEAST:
        return np.ones(len(values), dtype=bool)
    low, first, middle, third, high = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
    spread = max(third - first, (high - low) / 2)
    return np.abs(values - middle) <= reach * spread if spread > 0 else np.ones(len(values), dtype=bool)
