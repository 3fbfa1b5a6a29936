"""What one sample may cost before it is refused: a small file can stand for more than a machine holds.

Each is a setting: GENERALIST_LIMITS="picture_mb=1000,json_depth=500" in the environment changes those it names, for
this process and for those that it starts. Who is over a limit is refused in one line that names the sample, the limit
and this variable.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from functools import lru_cache

from generalist.data.base.errors import UserError, nearest

VARIABLE = "GENERALIST_LIMITS"
MB = 1_000_000


@dataclass(frozen=True)
class Limits:
    """The defaults, and in the comments what they hold."""

    picture_mb: int = 200  # a decoded picture at four bytes a pixel; a larger JPEG is decoded at 1/2, 1/4 or 1/8
    picture_side: int = 65_535  # pixels of a picture's longer side: resized one axis at a time, a line is a bomb too
    clip_mb: int = 400  # the frames taken of a film, likewise
    sound_mb: int = 128  # a decoded sound, one channel of float32, at its own rate and at the model's
    low_hz: int = 1_000  # sampling rates of sounds
    high_hz: int = 1_000_000
    text_mb: int = 100  # a text file; of a long text no more is tokenised than the model reads
    array_mb: int = 500  # an array in a .npy, .npz or .mat, unpacked, eight bytes a number
    member_mb: int = 1_000  # a member of a shard
    json_depth: int = 100  # brackets inside brackets
    json_mb: int = 1_000  # a JSON file
    columns: int = 20_000  # of a table
    cell_mb: int = 10  # a cell of a table
    table_mb: int = 4_000  # a table, unpacked
    horizon: int = 65_536  # steps of a forecast
    smiles: int = 10_000  # characters of a molecule
    shards: int = 1_000_000  # addresses that one pattern stands for
    http_kb_s: int = 10  # what a server must send on average, beside a minute that is its own
    download_gb: int = 100  # a fetched file


@lru_cache(maxsize=8)
def _read(words: str) -> Limits:
    changed = {}
    for word in filter(None, (w.strip() for w in words.split(","))):
        key, _, value = word.partition("=")
        valid = [f.name for f in fields(Limits)]
        if key not in valid:
            raise UserError(f"{VARIABLE}: no limit {key!r}; {nearest(key, valid)}")
        if not value.isascii() or not value.isdigit() or not 0 < int(value) < 2**53:
            raise UserError(f"{VARIABLE}: {key}={value!r}; it is a whole number, at least 1")
        changed[key] = int(value)
    return replace(Limits(), **changed)


def limits() -> Limits:
    """Those that hold now. UserError when the environment's are misspelt."""
    return _read(os.environ.get(VARIABLE, ""))


def over(what: str, name: str, found: str) -> UserError:
    """The error of a sample called `what` that is over the limit `name`; found: how much there is of it, in words."""
    value = vars(limits())[name]
    unit = {"mb": " MB", "gb": " GB", "hz": " Hz", "s": " kB/s"}.get(name.rpartition("_")[2], "")
    return UserError(f"{what}: {found}, over the limit of {value:,}{unit}; mend it or set {VARIABLE}={name}=...")
