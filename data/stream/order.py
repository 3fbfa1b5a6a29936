"""The order of a task's samples: a pure function of seed and position, so no step repeats or loses one.

Position p of the endless stream of a task with n records is record `permutation(epoch)[p % n]` with
epoch = p // n. A change of world size or of loader workers changes who reads a position, never which
record stands there. Records in shards that must not be read here and there have a `ShardOrder`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from zlib import crc32

import numpy as np

from generalist.data.base.errors import UserError


@lru_cache(maxsize=64)
def permutation(seed: int, task: str, epoch: int, n: int) -> np.ndarray:
    """The order of epoch `epoch`: int64 [n]."""
    return _shuffled(seed, task, epoch, n, 0)


@lru_cache(maxsize=512)
def _window(seed: int, task: str, epoch: int, n: int, part: int) -> np.ndarray:
    """The order within one window of an epoch: int64 [n]."""
    return _shuffled(seed, task, epoch, n, part)


def _shuffled(seed: int, task: str, epoch: int, n: int, part: int) -> np.ndarray:
    key = [seed, crc32(task.encode())]
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, part, epoch])).permutation(n)


def records_at(seed: int, task: str, n: int, start: int, count: int) -> list[int]:
    """Record numbers at stream positions start..start+count-1 (across epoch borders)."""
    out: list[int] = []
    while len(out) < count:
        epoch, at = divmod(start + len(out), n)
        out += permutation(seed, task, epoch, n)[at : at + count - len(out)].tolist()
    return out


@dataclass(frozen=True)
class ShardOrder:
    """Shards shuffled, samples shuffled within windows of shards, so that a shard is needed once and not for long.

    sizes: samples of each shard; records are numbered through the shards. window: shards whose samples are mixed.
    lanes: the stream is cut lengthwise into so many lanes, each with its own shards: slots
    lane * batch / lanes ... of every batch. Processes that take equal slices of a batch then read different
    shards, as long as their number (times gradient accumulation) divides `lanes`.

        shuffled shards    c a | f b | e d            2 lanes of 3 shards, windows of 2 shards
        lane 0             c a | f                    slots 0..3 of each batch of 8
        lane 1             b e | d                    slots 4..7

    The order depends on seed, epoch, position, `batch` and these settings, and on nothing else.
    """

    sizes: tuple[int, ...]
    window: int = 16
    lanes: int = 1

    def __post_init__(self) -> None:
        if self.window < 1 or self.lanes < 1:
            raise UserError(f"shards: window={self.window} and lanes={self.lanes} must be at least 1")

    @cached_property
    def starts(self) -> np.ndarray:
        """The first record of each shard."""
        return np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.int64)

    def at(self, seed: int, task: str, start: int, count: int, batch: int) -> list[int]:
        """Record numbers at stream positions start..start+count-1; batch: positions a step."""
        return [self._record(seed, task, p, batch) for p in range(start, start + count)]

    def _record(self, seed: int, task: str, p: int, batch: int) -> int:
        n = int(self.starts[-1]) + self.sizes[-1]
        epoch = p // n
        lanes = _lanes(self.lanes, batch, epoch * n, n)
        lane = p % batch * min(self.lanes, batch) // batch
        first, last = lanes[lane]  # the lane's stretch of the shuffled shards
        index = first + _positions(lane, self.lanes, batch, p) - _positions(lane, self.lanes, batch, epoch * n)
        shuffled, ends = _shards(self.sizes, seed, task, epoch)
        begin = int(np.searchsorted(ends, first, side="right"))  # the lane's first shard
        own = int(np.searchsorted(ends, index, side="right"))
        edge = begin + (own - begin) // self.window * self.window
        low = max(first, int(ends[edge - 1]) if edge else 0)
        high = min(last, int(ends[min(edge + self.window, len(ends)) - 1]))
        index = low + int(_window(seed, task, epoch, high - low, low + 1)[index - low])
        own = int(np.searchsorted(ends, index, side="right"))
        shard = int(shuffled[own])
        return int(self.starts[shard]) + index - (int(ends[own - 1]) if own else 0)


@lru_cache(maxsize=64)
def _shards(sizes: tuple[int, ...], seed: int, task: str, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """The shards of an epoch in order, and where each ends: two int64 [shards]."""
    order = permutation(seed, task, epoch, len(sizes))
    return order, np.cumsum(np.asarray(sizes, dtype=np.int64)[order])


def _positions(lane: int, lanes: int, batch: int, p: int) -> int:
    """How many of the positions 0..p-1 belong to `lane`."""
    lanes = min(lanes, batch)
    low, high = -(-lane * batch // lanes), -(-(lane + 1) * batch // lanes)
    full, within = divmod(p, batch)
    return full * (high - low) + min(max(within - low, 0), high - low)


@lru_cache(maxsize=256)
def _lanes(lanes: int, batch: int, start: int, n: int) -> list[tuple[int, int]]:
    """Where each lane's samples lie in the epoch of n positions that begins at `start`."""
    found, at = [], 0
    for lane in range(min(lanes, batch)):
        size = _positions(lane, lanes, batch, start + n) - _positions(lane, lanes, batch, start)
        found.append((at, at + size))
        at += size
    return found
