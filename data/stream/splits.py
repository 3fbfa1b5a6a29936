"""A split for records that came without one: by a hash of the record's name, so that it never moves.

A record's split depends on its own name and the seed only; adding or removing others changes nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

from generalist.data.base.errors import UserError, nearest

SPLITS = ("train", "val", "test")
NAMES = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validate", "dev", "development"),
    "test": ("test", "testing", "tst"),
}
# "Training", "test_set", "val2017", "train images"
_NAMED = re.compile(r"([a-z]+?)(?:[ _-]?(?:sets?|splits?|data|images))?(?:[ _-]?(?:19|20)\d\d)?")


def named_split(name: str) -> str | None:
    """The split that a folder or file of this name holds, in whatever case: "Training" -> "train"; None for others."""
    found = _NAMED.fullmatch(name.lower())
    return next((split for split, names in NAMES.items() if found and found[1] in names), None)


def split_of(name: str, seed: int = 0, val: float = 0.1, test: float = 0.2) -> str:
    """The split of the record called `name`."""
    place = _place(name, seed)
    return "test" if place < test else "val" if place < test + val else "train"


def _place(name: str, seed: int) -> float:
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


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


def divide(keys: Sequence[str], seed: int, val: float, test: float, asked: Sequence[bool] | None = None) -> list[str]:
    """The split of every row, equal keys together, each by the hash of its key.

    asked: rows that count (those with an answer). Where chance leaves a wanted split without any, the keys are ranked
    by their hash and cut, so that a small set has a row in each. UserError where there are too few for that.
    """
    wanted = [s for s, share in (("train", 1.0), ("val", val), ("test", test)) if share > 0]
    own = {key: split_of(key, seed, val, test) for key in dict.fromkeys(keys)}
    counted = dict.fromkeys(k for i, k in enumerate(keys) if asked is None or asked[i])
    if counted and {own[k] for k in counted} < set(wanted):
        if len(counted) < len(wanted):
            rows = "different rows with an answer" if asked is not None else "different rows"
            raise UserError(
                f"{len(counted)} {rows} are too few for {', '.join(wanted)}; give each a file (splits=...), or val=0"
            )
        ranked = sorted(counted, key=lambda k: _place(k, seed))
        tests = max(1, round(test * len(ranked))) if test else 0
        vals = max(1, round(val * len(ranked))) if val else 0
        tests, vals = (min(n, (len(ranked) - 1) // max(1, len(wanted) - 1)) for n in (tests, vals))
        for i, key in enumerate(ranked):
            own[key] = "test" if i < tests else "val" if i < tests + vals else "train"
    return [own[key] for key in keys]


def in_time(moments: Sequence[float], val: float, test: float) -> list[str]:
    """The split of every row by its moment: the newest are the test, those before them val; equal moments together."""
    order = sorted(range(len(moments)), key=moments.__getitem__)
    first = {"val": round(len(order) * (1 - val - test)), "test": round(len(order) * (1 - test))}
    out = ["train"] * len(order)
    before = None
    for place, row in enumerate(order):
        if before is not None and moments[row] == moments[before]:
            out[row] = out[before]
        else:
            out[row] = "test" if place >= first["test"] else "val" if place >= first["val"] else "train"
        before = row
    return out
