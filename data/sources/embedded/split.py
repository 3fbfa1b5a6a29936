"""Splitting rows into train, val and test without leakage: drop repeated content first, then deal by seed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from generalist.data.stream.source import Record, Records

SPLITS = ("train", "val", "test")


def digest(value: Any) -> str:
    """A hash of a record's content: arrays by dtype, shape and bytes, tables by key, the rest by repr."""
    if isinstance(value, np.ndarray):
        head = f"{value.dtype}{value.shape}".encode()
        return hashlib.sha1(head + np.ascontiguousarray(value).tobytes()).hexdigest()
    if isinstance(value, dict):
        value = [(key, digest(item)) for key, item in sorted(value.items())]
    return hashlib.sha1(repr(value).encode()).hexdigest()


def unique(rows: Sequence[Record], field: str) -> list[Record]:
    """The rows whose `field` was not seen in an earlier row."""
    seen: dict[str, Record] = {}
    for row in rows:
        seen.setdefault(digest(row[field]), row)
    return list(seen.values())


def deal(rows: Sequence[Record], seed: int, val: float = 0.1, test: float = 0.2, by: str | None = None) -> dict:
    """Rows shuffled by `seed` and cut into {"train", "val", "test"} lists.

    val, test: fractions of the rows. by: a field (the label) whose values keep these fractions each,
    so that small tables have every class in every split.
    """
    rng = np.random.default_rng(seed)
    strata: dict[Any, list[Record]] = {}
    for row in rows:
        strata.setdefault(row[by] if by else None, []).append(row)
    parts: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for _, members in sorted(strata.items(), key=lambda item: str(item[0])):
        order = [members[i] for i in rng.permutation(len(members))]
        n_test, n_val = round(len(order) * test), round(len(order) * val)
        parts["test"] += order[:n_test]
        parts["val"] += order[n_test : n_test + n_val]
        parts["train"] += order[n_test + n_val :]
    return {split: [part[i] for i in rng.permutation(len(part))] for split, part in parts.items()}


def records(parts: Mapping[str, Sequence[Record]], **info: Any) -> dict[str, Records]:
    """{"train": rows, ...} as Records that share what is known of them."""
    return {split: Records(rows, dict(info)) for split, rows in parts.items()}
