"""Requests that wait at the same moment are answered by one pass of the model.

A thread owns the model. It takes what waits, up to `batch` requests, groups those that ask the same of it, and answers
each group in one packed pass; nothing is padded, so that pictures and texts of all sizes share it. A request that is
alone does not wait for company; while others are being read (`arriving`), or fewer are there than were answered just
now, a pass waits as long as one joins it every few milliseconds.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

MOMENT = 0.01  # seconds that a pass waits for the next of those that are being read

Answerer = Callable[[list[Any]], Sequence[Any]]


class Full(Exception):
    """More requests wait than are let in."""


@dataclass
class Waiting:
    """key: requests with the same are answered together, by `answer` of the first of them."""

    key: Hashable
    record: Any
    answer: Answerer
    since: float
    future: Future[Any] = field(default_factory=Future)


class Batcher:
    """batch: requests a pass; waiting: how many may queue; told(size, seconds): called after every pass."""

    def __init__(
        self, batch: int = 64, waiting: int = 1024, told: Callable[[int, float], None] = lambda size, seconds: None
    ) -> None:
        self.batch, self.told = batch, told
        self.queue: queue.Queue[Waiting | None] = queue.Queue(waiting)
        self.coming = 0
        self.thread = threading.Thread(target=self._run, name="model", daemon=True)
        self.thread.start()

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Around what is done before `ask`, always in one and the same thread: a request is on its way."""
        self.coming += 1
        try:
            yield
        finally:
            self.coming -= 1

    def ask(self, key: Hashable, record: Any, answer: Answerer) -> Future[Any]:
        """The future answer of a record. Full: too many wait."""
        one = Waiting(key, record, answer, time.monotonic())
        try:
            self.queue.put_nowait(one)
        except queue.Full as error:
            raise Full from error
        return one.future

    def close(self) -> None:
        """No more is answered than what already waits."""
        self.queue.put(None)
        self.thread.join()

    def _run(self) -> None:
        before = 1  # requests of the pass before: so many are about to ask again where clients ask one by one
        while (first := self.queue.get()) is not None:
            taken, more = [first], True
            while more and len(taken) < self.batch:
                try:
                    company = self.coming or len(taken) < before
                    one = self.queue.get(timeout=MOMENT) if company else self.queue.get_nowait()
                except queue.Empty:
                    break
                more = one is not None
                taken += [one] if one is not None else []
            before = len(taken)
            groups: dict[Hashable, list[Waiting]] = {}
            for one in taken:
                if one.future.set_running_or_notify_cancel():
                    groups.setdefault(one.key, []).append(one)
            for group in groups.values():
                self._answer(group)
            if not more:
                return

    def _answer(self, group: list[Waiting]) -> None:
        """One pass; where it fails, one by one, so that the fault of one request is nobody else's."""
        begun = time.monotonic()
        try:
            found = group[0].answer([one.record for one in group])
        except Exception as error:
            if len(group) == 1:
                group[0].future.set_exception(error)
                return
            for one in group:
                self._answer([one])
            return
        self.told(len(group), time.monotonic() - begun)
        for one, answer in zip(group, found, strict=True):
            one.future.set_result(answer)
