"""Columns that name a row instead of describing it, and columns that give the answer away."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

LEAST = 8  # rows below which nothing can be said
RUN = 50  # rows from which whole numbers in one unbroken run are taken for row numbers, whatever they are called
CALLED = re.compile(
    r"(?:^|[^a-z])(?:ids?|uuid|guid|index|idx|row|key|unnamed: ?\d+|nr|no|num|number|serial|code)(?:[^a-z]|$)"
    r"|id$|column 1$",
    re.IGNORECASE,
)
WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])")  # PassengerId
FILLED = 0.9  # of the rows must have a value
LONG = 40  # characters of a text that says something


def names_rows(name: str, values: list[Any]) -> bool:
    """Whether a column is another one for every row and tells nothing else: row numbers, keys, file names.

    Measured numbers may be unique too, and stay; so do long texts.
    """
    present = [v for v in values if v is not None]
    if len(present) < max(LEAST, FILLED * len(values)) or len(set(map(str, present))) < len(present):
        return False
    if is_key(name, present):
        return True
    if all(isinstance(v, int) and not isinstance(v, bool) for v in present):
        return len(present) >= RUN and max(present) - min(present) == len(present) - 1
    return all(isinstance(v, str) and len(v) <= LONG for v in present)


def is_key(name: str, values: list[Any]) -> bool:
    """Whether a column is called as keys are, and holds whole numbers or words."""
    called = CALLED.search(WORDS.sub(" ", name).replace("_", " ")) is not None
    return called and not any(isinstance(v, bool | float) for v in values)


def tells(values: list[Any], answers: list[Any]) -> float:
    """How much of a column of answers (classes) one column tells alone: 0 nothing beyond the commonest, 1 all.

    Measured on the other half of the rows: words by the commonest answer beside them, numbers by a small tree.
    """
    rows = [(v, a) for v, a in zip(values, answers, strict=True) if v is not None and a is not None]
    if len(rows) < 4 * LEAST:
        return 0.0
    order = np.random.default_rng(0).permutation(len(rows))[:4000]
    y = np.unique([str(rows[i][1]) for i in order], return_inverse=True)[1]
    given = [rows[i][0] for i in order]
    half = len(order) // 2
    common = np.bincount(y[:half]).argmax()
    guess = float((y[half:] == common).mean())
    if all(isinstance(v, int | float) for v in given):
        from sklearn.tree import DecisionTreeClassifier

        x = np.array(given, dtype=float).clip(-1e30, 1e30)[:, None]
        least = max(2, half // 200)
        tree = DecisionTreeClassifier(max_depth=8, min_samples_leaf=least, random_state=0).fit(x[:half], y[:half])
        found = float((tree.predict(x[half:]) == y[half:]).mean())
    else:
        votes: dict[str, np.ndarray] = {}
        for value, answer in zip(given[:half], y[:half], strict=True):
            votes.setdefault(str(value), np.zeros(y.max() + 1))[answer] += 1
        best = [votes[str(v)].argmax() if str(v) in votes else common for v in given[half:]]
        found = float((np.array(best) == y[half:]).mean())
    return max(0.0, (found - guess) / (1 - guess)) if guess < 1 else 0.0
