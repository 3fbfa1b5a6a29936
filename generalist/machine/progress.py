"""How far a run is: one moving line on a terminal, elsewhere (a log file, a job's output) a plain line now and then."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from tqdm import tqdm

SECONDS = 30.0  # between two lines where there is no terminal


class Lines:
    """A stream on which a bar that is drawn over and over becomes lines, one below the other."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        if text := text.strip("\r\n \x1b[A"):
            self.stream.write(text + "\n")

    def flush(self) -> None:
        self.stream.flush()


def progress(quiet: bool = False, **about: Any) -> Any:
    """tqdm(**about) on stderr. Without a terminal it says nothing for the first 30 seconds and then a line every 30."""
    if sys.stderr.isatty():
        return tqdm(disable=quiet, file=sys.stderr, dynamic_ncols=True, **about)
    # tqdm writes, flushes and asks for nothing else of a file
    plain: Any = Lines(sys.stderr)
    return tqdm(
        disable=quiet, file=plain, mininterval=SECONDS, delay=SECONDS, ncols=100, ascii=" .", **about | {"leave": True}
    )
