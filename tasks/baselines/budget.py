"""A bound on the processor seconds of what may take too long, such as an ordinary baseline beside a result.

The clock is the process's own (all its threads), so that a busy machine changes nothing. It can stop work between two
Python instructions: a solver that calls back for every iteration, a loop over trees or records.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import threadpool_limits

from generalist.data.base.signals import known


class OutOfTime(Exception):
    """The budget is spent."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"did not end in {seconds:g} processor seconds")


class Rehearsed(Exception):
    """The data was found fit for the work, which is not done."""


class Clock:
    """What is left of a budget of processor seconds. rehearsal: nothing that takes long is to be done at all.

    strong: the best ordinary method is looked for, with features that take longer (`tasks.baselines.strong`).
    """

    def __init__(self, seconds: float, rehearsal: bool = False, strong: bool = False) -> None:
        self.seconds, self.end, self.rehearsal = seconds, time.process_time() + seconds, rehearsal
        self.strong = strong

    @property
    def left(self) -> float:
        return self.end - time.process_time()

    def check(self) -> None:
        """OutOfTime once the budget is spent."""
        if self.left <= 0:
            raise OutOfTime(self.seconds)

    def begin(self) -> None:
        """Called before something that takes long: OutOfTime as `check`, Rehearsed in a rehearsal."""
        if self.rehearsal:
            raise Rehearsed
        self.check()


_running: list[Clock] = []


def clock() -> Clock:
    """The innermost running budget; one without an end where there is none."""
    return _running[-1] if _running else Clock(float("inf"))


@contextmanager
def budget(seconds: float, strong: bool = False) -> Iterator[Clock]:
    """OutOfTime inside once `seconds` of the process's time are used, at most once; 0 or less: without an end.

    strong: as of `Clock`.

    Inside, libraries use one thread: several spend more processor time on the same work, most of it waiting.

    Outside the main thread, where no timer can interrupt, and where the system has none (Windows), only
    `Clock.check` raises.
    """
    if seconds <= 0:
        seconds = float("inf")
    own = Clock(seconds, strong=strong)
    timer = known("SIGPROF")
    if seconds == float("inf") or threading.current_thread() is not threading.main_thread():
        timer = None

    def ring(number: int, frame: Any) -> None:
        raise OutOfTime(seconds)

    before = None if timer is None else signal.signal(timer, ring)
    _running.append(own)
    try:
        if timer is not None:
            signal.setitimer(signal.ITIMER_PROF, seconds)
        with threadpool_limits(1):
            yield own
    finally:
        _running.pop()
        if timer is not None:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(timer, before)


@contextmanager
def rehearsal() -> Iterator[None]:
    """Inside, work goes as far as the first thing that takes long, and ends there without an error."""
    _running.append(Clock(float("inf"), rehearsal=True))
    try:
        yield
    except Rehearsed:
        pass
    finally:
        _running.pop()
