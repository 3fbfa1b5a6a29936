"""What a table of log-likelihoods says: accuracy, macro-F1, calibration, recall@k, each with a bootstrap interval.

Everything is derived from log_p Float[n K] and labels Int[n], which are saved, so that every number can be had again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

BINS = 15
RESAMPLES = 1000


def accuracy(p: np.ndarray, labels: np.ndarray) -> float:
    return float((p.argmax(1) == labels).mean())


def macro_f1(p: np.ndarray, labels: np.ndarray) -> float:
    """F1 of every class that occurs in labels or answers, averaged."""
    answers, k = p.argmax(1), p.shape[1]
    hits = np.bincount(labels[answers == labels], minlength=k).astype(float)
    said, true = np.bincount(answers, minlength=k), np.bincount(labels, minlength=k)
    seen = (said + true) > 0
    return float((2 * hits[seen] / (said + true)[seen]).mean())


def recall_at(k: int) -> Callable[[np.ndarray, np.ndarray], float]:
    """Share of samples whose label is among the k likeliest; ties count against."""

    def recall(p: np.ndarray, labels: np.ndarray) -> float:
        own = p[np.arange(len(p)), labels]
        return float(((p >= own[:, None]).sum(1) <= k).mean())

    return recall


def reliability(p: np.ndarray, labels: np.ndarray, bins: int = BINS) -> list[dict[str, float]]:
    """The reliability diagram: samples by confidence in `bins` equal bins, with count, mean confidence and accuracy."""
    confidence, right = p.max(1), p.argmax(1) == labels
    at = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {
            "count": int((at == b).sum()),
            "confidence": float(confidence[at == b].mean()),
            "accuracy": float(right[at == b].mean()),
        }
        for b in range(bins)
        if (at == b).any()
    ]


def calibration_error(p: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error (1706.04599, equation 3) in 15 equal bins."""
    lines = reliability(p, labels)
    return sum(line["count"] * abs(line["accuracy"] - line["confidence"]) for line in lines) / len(p)


def nll(p: np.ndarray, labels: np.ndarray) -> float:
    """Mean -log p of the label, in nats."""
    return float(-np.log(np.maximum(p[np.arange(len(p)), labels], 1e-38)).mean())


def measure(log_p: np.ndarray, labels: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Any]:
    """{name: {value, low, high}} with 95 % percentile bootstrap intervals over samples, chance lines, reliability."""
    p = np.exp(log_p.astype(np.float64))
    n, k = p.shape
    measures: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
        "accuracy": accuracy,
        "macro-F1": macro_f1,
        "ECE": calibration_error,
        "nll": nll,
    }
    measures |= {f"recall@{r}": recall_at(r) for r in (1, 5, 10) if r < k}
    rng = np.random.default_rng(seed)
    draws = [rng.integers(0, n, n) for _ in range(resamples)]
    out: dict[str, Any] = {}
    for name, one in measures.items():
        again = np.sort([one(p[d], labels[d]) for d in draws])
        low, high = np.quantile(again, [0.025, 0.975])
        out[name] = {"value": one(p, labels), "low": float(low), "high": float(high)}
    return {
        "n": n,
        "classes": k,
        "measures": out,
        "chance": {"uniform": 1 / k, "most common class": float(np.bincount(labels, minlength=k).max() / n)},
        "reliability": reliability(p, labels),
    }


def table(result: dict[str, Any]) -> str:
    """The measures as text, one a line, with their intervals."""
    lines = [f"{'measure':12} {'value':>8}  95 % interval over {result['n']} samples, {result['classes']} candidates"]
    for name, one in result["measures"].items():
        lines.append(f"{name:12} {one['value']:8.4f}  {one['low']:.4f} .. {one['high']:.4f}")
    chance = result["chance"]
    lines.append(f"chance: {chance['uniform']:.4f} uniform, {chance['most common class']:.4f} the most common class")
    return "\n".join(lines)
