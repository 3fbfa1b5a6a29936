"""Signals that not every system has: Windows has none of a closed terminal, a child's end, a timer."""

from __future__ import annotations

import signal


def known(name: str) -> signal.Signals | None:
    """The signal of that name, None where the system has none."""
    return signal.Signals.__members__.get(name)


HANGUP = known("SIGHUP")
STOPPING = tuple(found for name in ("SIGINT", "SIGTERM", "SIGHUP") if (found := known(name)) is not None)
