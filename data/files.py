"""Ordinary files: what can be read to its end, which a FIFO, a device and a socket cannot."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from data.errors import UserError, told


def is_regular(path: str | Path) -> bool:
    """Whether a path names an ordinary file, itself or through links; False for words that can name none."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):  # not there, a loop of links, too long, a null byte
        return False


def check_regular(path: str | Path, what: str) -> None:
    """UserError where there is no ordinary file."""
    if is_regular(path):
        return
    there = os.path.lexists(path) if "\0" not in str(path) and len(str(path)) < 4096 else False
    kind = "is no ordinary file (a folder, a pipe or a device)" if there else "no such file; check the path"
    raise UserError(f"{what} {told(str(path), 120)}: {kind}")


def read_bytes(path: str | Path, what: str) -> bytes:
    """The bytes of an ordinary file. UserError when it is none or cannot be read."""
    check_regular(path, what)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{what} {path}: cannot be read ({error.strerror})") from error
