"""A split for records that came without one: by a hash of the record's name, so that it never moves.

A record's split depends on its own name and the seed only; adding or removing others changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from data.errors import UserError, nearest

SPLITS = ("train", "val", "test")


def split_of(name: str, seed: int = 0, val: float = 0.1, test: float = 0.2) -> str:
    """The split of the record called `name`."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "little") / 2**64
    return "test" if place < test else "val" if place < test + val else "train"


def check_split(split: str, have: Iterable[str], what: str) -> None:
    """UserError when there is no such split."""
    valid = list(have)
    if split not in valid:
        raise UserError(f"{what}: no split {split!r}; {nearest(split, valid)}")


def check_fractions(val: float, test: float, what: str) -> None:
    if val < 0 or test < 0 or val + test >= 1:
        raise UserError(f"{what}: val={val} and test={test} must not be negative and must leave something to train on")


def places(names: Sequence[str], split: str, seed: int, val: float, test: float) -> list[int]:
    """The positions of the names that belong to `split`."""
    return [i for i, name in enumerate(names) if split_of(name, seed, val, test) == split]
