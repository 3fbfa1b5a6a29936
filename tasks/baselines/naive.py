"""Baselines that need no features: forecasts from the past alone, hidden words from their neighbours.

Results as in `generalist.tasks.baselines.baselines`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from generalist.data.batch.types import IGNORE
from generalist.tasks.baselines.methods import Result, result_of
from generalist.tasks.candidates import ridge

Window = tuple[np.ndarray, np.ndarray, np.ndarray]
RIDGE = "ridge regression on the past"


def forecasting_baseline(
    past: np.ndarray,
    future: np.ndarray,
    period: np.ndarray,
    val: Window | None = None,
    name: str = "",
    train: tuple[np.ndarray, np.ndarray] | None = None,
    units: str = "past",
) -> Result:
    """MAE of the last value, the last season again or, with training windows, a ridge regression on the past.

    past: [n, L], future: [n, H], period: Int[n], steps a season. `val` (of the same three) chooses the method, without
    it the last value stands. value_last and value_seasonal give both; chance: the past window's mean. units: "past",
    each window's error over its past's deviation, or "data".
    """
    matrix = None if train is None else linear_forecast(*train)

    def errors(past: np.ndarray, future: np.ndarray, period: np.ndarray) -> dict[str, float]:
        guesses = simple(past, future.shape[1], period)
        if matrix is not None:
            guesses[RIDGE] = (past - past[:, -1:]) @ matrix + past[:, -1:]
        if units == "data":
            return {method: float(np.abs(guess - future).mean()) for method, guess in guesses.items()}
        return {method: scaled_mae(guess, past, future) for method, guess in guesses.items()}

    found = errors(past, future, period)
    told = errors(*val) if val is not None else {"last value": 0.0}
    method = min((m for m in told if m != "mean"), key=told.__getitem__)
    metric = "MAE" if units == "data" else "MAE/std"
    result = result_of(name, metric, found[method], found["mean"], method, len(past), better="lower")
    return {**result, "value_last": found["last value"], "value_seasonal": found["seasonal naive"]}


def simple(past: np.ndarray, horizon: int, period: np.ndarray) -> dict[str, np.ndarray]:
    """What needs no fitting says of past [n, L], [n, horizon] each: {"last value", "seasonal naive", "mean"}."""
    seasonal = np.stack([np.resize(p[-s:], horizon) for p, s in zip(past, period, strict=True)])
    one = {"last value": past[:, -1:], "mean": past.mean(1, keepdims=True)}
    even = {name: np.repeat(value, horizon, axis=1) for name, value in one.items()}
    return {"last value": even["last value"], "seasonal naive": seasonal, "mean": even["mean"]}


def linear_forecast(past: np.ndarray, future: np.ndarray, strength: float = 10.0) -> np.ndarray:
    """[n, L], [n, H] -> [L, H]: ridge from the past minus its last value to the future minus it."""
    last = past[:, -1:]
    windows = zip(torch.from_numpy(past - last), torch.from_numpy(future - last), strict=True)
    return ridge.fit(windows, past.shape[1], strength).numpy()


def scaled_mae(guess: np.ndarray, past: np.ndarray, future: np.ndarray) -> float:
    """Mean absolute error of guess [n, H] or [n, 1] for future [n, H], each window over its past's std.

    The std is bounded below by a millionth of the past's largest value, for windows that do not move.
    """
    past, future = past.astype(float), future.astype(float)
    unit = np.maximum(past.std(1), 1e-6 * np.abs(past).max(1) + 1e-12)
    return float((np.abs(guess - future).mean(1) / unit).mean())


def masked_word_baseline(
    train: Iterable[np.ndarray],
    test: Iterable[tuple[np.ndarray, np.ndarray]],
    vocabulary: int,
    val: Iterable[tuple[np.ndarray, np.ndarray]] | None = None,
    name: str = "",
) -> Result:
    """Accuracy of guessing a hidden word piece from its two neighbours; chance: the most frequent piece.

    train: sequences of piece ids (Int[n], unmasked), each below `vocabulary`. test, val: pairs (ids,
    labels), Int[n] or Int[B, n] alike: labels hold the piece where the question is asked and IGNORE
    elsewhere; ids hold what the model saw there, and a position that is asked, or beyond an end, tells
    nothing as a neighbour. Give the model's own test batches, so that both answer the same questions.
    n_test: questions. The guess maximises p(piece | left) p(right | piece), both from bigram counts
    that back off to single counts; `val` chooses how strongly.
    """
    from scipy.sparse import coo_array

    train = [np.asarray(ids, dtype=np.int64).ravel() for ids in train]
    count = sum((np.bincount(ids, minlength=vocabulary) for ids in train), np.zeros(vocabulary, dtype=np.int64))
    alone = (count + 0.1) / (count + 0.1).sum()
    first, second = (np.concatenate([ids[cut] for ids in train]) for cut in (slice(None, -1), slice(1, None)))
    pairs = coo_array((np.ones(len(first)), (first, second)), shape=(vocabulary, vocabulary))
    rows, columns = pairs.tocsr(), pairs.tocsc()  # rows: what follows; columns: what comes before
    rows.sum_duplicates()
    columns.sum_duplicates()

    def dense(matrix: Any, i: int) -> np.ndarray:
        out = np.zeros(vocabulary)
        part = slice(matrix.indptr[i], matrix.indptr[i + 1])
        out[matrix.indices[part]] = matrix.data[part]
        return out

    def guess(left: int | None, right: int | None, strength: float) -> int:
        score = alone.copy()
        if left is not None:
            score = (dense(rows, left) + strength * alone) / (count[left] + strength)
        if right is not None:
            score = score * (dense(columns, right) + strength * alone[right]) / (count + strength)
        return int(score.argmax())

    def accuracy(questions: list[tuple[int | None, int | None, int]], strength: float) -> float:
        known: dict[tuple, int] = {}  # the same neighbours come back often
        for left, right, _ in questions:
            if (left, right) not in known:
                known[left, right] = guess(left, right, strength)
        return float(np.mean([known[left, right] == answer for left, right, answer in questions]))

    strength = 10.0
    if val is not None and (chosen := _questions(val)):
        strength = max((1.0, 10.0, 100.0), key=lambda s: accuracy(chosen, s))
    asked = _questions(test)
    value = accuracy(asked, strength) if asked else float("nan")
    chance = float(np.mean([answer == count.argmax() for *_, answer in asked])) if asked else float("nan")
    return result_of(name, "accuracy", value, chance, f"bigrams of both neighbours, back-off {strength:g}", len(asked))


def _questions(batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[tuple[int | None, int | None, int]]:
    """(left piece, right piece, answer) of every asked position; None where the neighbour is unknown."""
    found = []
    for ids, labels in batches:
        for row, asked in zip(np.atleast_2d(np.asarray(ids)), np.atleast_2d(np.asarray(labels)), strict=True):
            seen = [None if label != IGNORE else int(piece) for piece, label in zip(row, asked, strict=True)]
            around = [None, *seen, None]
            found += [(around[i], around[i + 2], int(asked[i])) for i in np.flatnonzero(asked != IGNORE)]
    return found
