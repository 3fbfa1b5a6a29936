"""Ordinary files: what can be read to its end, which a FIFO, a device and a socket cannot."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from generalist.data.base.errors import UserError


def is_regular(path: str | Path) -> bool:
    """Whether a path names an ordinary file, itself or through links; False for words that can name none."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):  # not there, a loop of links, too long, a null byte
        return False


def shown_path(path: str | Path) -> str:
    """A path in an error: one line, and of a very long one its two ends."""
    name = plain_name(str(path))
    return name if len(name) <= 150 else f"{name[:60]}...{name[-80:]}"


def check_regular(path: str | Path, what: str) -> None:
    """UserError where there is no ordinary file."""
    if is_regular(path):
        return
    there = os.path.lexists(path) if "\0" not in str(path) and len(str(path)) < 4096 else False
    kind = "is no ordinary file (a folder, a pipe or a device)" if there else "no such file; check the path"
    raise UserError(f"{what} {shown_path(path)}: {kind}")


def walk(base: Path, skipped: list[str] | None = None) -> Iterator[tuple[str, list[str], list[str]]]:
    """os.walk through links, every folder once wherever links lead, and of the files the ordinary ones.

    skipped: takes the paths of what is no ordinary file (a FIFO, a device, a link to nothing), relative to `base`.
    """
    seen: set[tuple[int, int]] = set()
    for folder, below, names in os.walk(base, followlinks=True):
        state = os.stat(folder)
        if (state.st_dev, state.st_ino) in seen:  # a link led back here
            below.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        below.sort()  # so that of several ways to a folder it is always the same that counts
        whole = [name for name in names if is_regular(os.path.join(folder, name))]
        if skipped is not None and len(whole) < len(names):
            skipped += [os.path.relpath(os.path.join(folder, n), base) for n in sorted(set(names) - set(whole))]
        yield folder, below, whole


def plain_name(name: str) -> str:
    """A file's or member's name as it may stand in a list or an error: one line, valid text."""
    if name.isascii() and name.isprintable():
        return name
    name = name.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
