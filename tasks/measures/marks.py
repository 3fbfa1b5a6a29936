"""Several names a record: a kept line for each record and name (truth, p), and the measures of these lines.

label: the name's number; truth: 1 where it is right; p: the probability that it is. A name counts as said from p = .5.
"""

from __future__ import annotations

import numpy as np

Columns = dict[str, np.ndarray]
SAID = 0.5


def average_precision(truth: np.ndarray, p: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AP of one name in each of R resamples: truth [n] 0 or 1, p [n], weights [R n] -> [R]; NaN without a right one.

    Among equal p the wrong come first, so that a tie is no success.
    """
    order = np.lexsort((truth, -p))
    right, w = truth[order].astype(float), weights[:, order]
    hits = np.cumsum(w * right, axis=1)
    precision = np.divide(hits, np.cumsum(w, axis=1), out=np.zeros_like(hits), where=w.cumsum(1) > 0)
    total = hits[:, -1]
    gained = (w * right * precision).sum(1)
    return np.divide(gained, total, out=np.full(len(w), np.nan), where=total > 0)


def f1(right: np.ndarray, said: np.ndarray, both: np.ndarray) -> np.ndarray:
    return np.divide(2 * both, right + said, out=np.zeros_like(both), where=right + said > 0)


def measures(columns: Columns, weights: np.ndarray) -> dict[str, np.ndarray]:
    """mAP over the names, F1 over all lines and averaged over names, and records whose names are all right."""
    truth, said = columns["truth"].astype(float), (columns["p"] >= SAID).astype(float)
    parts, scores = [], []
    for number in np.unique(columns["label"]):
        at = columns["label"] == number
        t, s, w = truth[at], said[at], weights[:, at]
        parts.append(average_precision(t, columns["p"][at], w))
        scores.append(f1(w @ t, w @ s, w @ (t * s)))
    found = np.array(parts)
    known = ~np.isnan(found)
    total = np.where(known, found, 0).sum(0)
    mean = np.divide(total, known.sum(0), out=np.full(len(weights), np.nan), where=known.any(0))
    _, first, owner = np.unique(columns["record"], return_index=True, return_inverse=True)
    whole = np.bincount(owner, truth != said) == 0
    drawn = weights[:, first]
    return {
        "mAP": mean,
        "micro-F1": f1(weights @ truth, weights @ said, weights @ (truth * said)),
        "macro-F1": np.array(scores).mean(0),
        "exact match": drawn @ whole / drawn.sum(1),
    }


def chance(columns: Columns) -> dict[str, float]:
    """The mean share of records that have a name: mAP of any order; F1 of saying every name."""
    shares = [float(columns["truth"][columns["label"] == n].mean()) for n in np.unique(columns["label"])]
    share = float(columns["truth"].mean())
    return {"mAP": float(np.mean([s for s in shares if s] or [0.0])), "micro-F1": 2 * share / (1 + share)}
