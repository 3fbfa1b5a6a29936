"""Samples as the bytes that a source holds, in the order of a stream, read by threads of the process that wants them.

What has not to be decoded needs no other process: to hand a picture's bytes over takes longer than to read them. What
is decoded is the stream's (`generalist.data.stream.stream`), whose workers read for themselves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from queue import SimpleQueue
from typing import Protocol, runtime_checkable

from generalist.data.base.errors import UserError
from generalist.data.stream.source import Records

AHEAD = 4  # batches a thread that are read before they are asked for

Raw = tuple[str, dict[str, bytes]]  # a sample's key in its shard, and its members' bytes


@runtime_checkable
class ReadsRaw(Protocol):
    """Rows that are bytes; a copy of them reads beside them."""

    def raw(self, number: int) -> Raw:
        """A sample's key and bytes."""


def raw_batches(
    records: Records, batch: int, first: int, last: int, seed: int = 0, name: str = "raw", threads: int = 2
) -> Iterator[list[Raw]]:
    """Batches first..last-1 of an endless shuffled stream, each a function of its number, seed and name alone: who
    starts at a batch goes on as one that came there. threads: 0 reads when asked. UserError: rows that are no bytes.
    """
    rows = records.rows
    if not isinstance(rows, ReadsRaw):
        raise UserError(f"raw samples are read from shards; {type(rows).__name__} holds none (generalist data shard)")
    copies: SimpleQueue[ReadsRaw] = SimpleQueue()
    for _ in range(max(1, threads)):
        copies.put(copy(rows) if threads else rows)

    def read(step: int) -> list[Raw]:
        own = copies.get()
        try:
            return [own.raw(number) for number in records.at(seed, name, step * batch, batch, batch)]
        finally:
            copies.put(own)

    if not threads:
        yield from map(read, range(first, last))
        return
    pool = ThreadPoolExecutor(threads, "raw")
    waiting: deque[Future[list[Raw]]] = deque()
    try:
        for step in range(first, last):
            waiting.append(pool.submit(read, step))
            if len(waiting) > AHEAD * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
