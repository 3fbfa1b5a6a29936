"""Is a confidence honest: accuracy in bins of confidence, and how far apart the two are."""

from __future__ import annotations

import numpy as np

BINS = 15  # of confidence, for the calibration error


def in_bins(confidence: np.ndarray) -> np.ndarray:
    return np.minimum((confidence * BINS).astype(int), BINS - 1)


def calibration_error(columns: dict[str, np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Expected calibration error (1706.04599, equation 3) in 15 equal bins."""
    gap = hit(columns) - columns["confidence"]
    return np.abs(sums_by(in_bins(columns["confidence"]), BINS, gap, weights)).sum(1) / weights.sum(1)


def reliability(columns: dict[str, np.ndarray]) -> list[dict[str, float]]:
    """The reliability diagram: answers by confidence in equal bins, with count, mean confidence and accuracy."""
    confidence, right, at = columns["confidence"], hit(columns), in_bins(columns["confidence"])
    return [
        {
            "count": int((at == b).sum()),
            "confidence": float(confidence[at == b].mean()),
            "accuracy": float(right[at == b].mean()),
        }
        for b in np.unique(at)
    ]


def sums_by(group: np.ndarray, count: int, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted sums of values [M] within groups 0..count-1: -> [R count]."""
    from scipy.sparse import csr_array

    table = csr_array((values.astype(float), (group, np.arange(len(group)))), shape=(count, len(group)))
    return (table @ weights.T).T


def hit(columns: dict[str, np.ndarray]) -> np.ndarray:
    return ((columns["label"] == columns["answer"]) & (columns["right"] > 0)).astype(float)
