"""A run is asked to stop by a file in its folder, where no signal can reach it: `touch RUN/stop`.

The first process looks for it once a step. The run saves, removes the file and ends with 0, as on SIGTERM: a file that
was put there and is gone is the run's answer that its state is on the disk.
"""

from __future__ import annotations

from pathlib import Path

NAME = "stop"


def ask(out: Path) -> None:
    """Ask the run in this folder, which may not be there yet."""
    out.mkdir(parents=True, exist_ok=True)
    (out / NAME).touch()


def is_asked(out: Path) -> bool:
    """Also where the folder is gone: the run saves what it can still save."""
    return (out / NAME).exists() or not out.is_dir()


def answer(out: Path) -> None:
    """The run is saved; also: forget what an earlier one did not answer."""
    (out / NAME).unlink(missing_ok=True)
