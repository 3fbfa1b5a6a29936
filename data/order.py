"""The order of a task's samples: a pure function of seed and position, so no step repeats or loses one.

Position p of the endless stream of a task with n records is record `permutation(epoch)[p % n]` with
epoch = p // n. A change of world size or of loader workers changes who reads a position, never which
record stands there.
"""

from __future__ import annotations

from functools import lru_cache
from zlib import crc32

import numpy as np


@lru_cache(maxsize=64)
def permutation(seed: int, task: str, epoch: int, n: int) -> np.ndarray:
    """The order of epoch `epoch`: int64 [n]."""
    key = [seed, crc32(task.encode())]
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, epoch])).permutation(n)


def records_at(seed: int, task: str, n: int, start: int, count: int) -> list[int]:
    """Record numbers at stream positions start..start+count-1 (across epoch borders)."""
    out: list[int] = []
    while len(out) < count:
        epoch, at = divmod(start + len(out), n)
        out += permutation(seed, task, epoch, n)[at : at + count - len(out)].tolist()
    return out
