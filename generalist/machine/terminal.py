"""Tables as wide as the terminal: columns side by side where they fit, else a row's cells below one another."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

GAP = 2  # spaces between columns


def width() -> int:
    """Columns of the terminal (or of the variable COLUMNS); 0 where there is none: as wide as it needs to be."""
    return shutil.get_terminal_size((0, 0)).columns


def laid_out(rows: Sequence[Sequence[str]], widths: Sequence[int] | None = None, most: int | None = None) -> list[str]:
    """Lines of a table whose first row is the head. widths: of the columns, by default those of their widest cells;
    most: columns of the terminal, by default what `width` says.

    Where they do not fit, every row is its first cell, and the others below it beside what the head calls them.
    """
    widths = widths or [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    most = width() if most is None else most
    side_by_side = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    if not most or max(map(len, side_by_side)) <= most:
        return side_by_side
    head, *body = rows
    called = max(len(name) for name in head)
    lines = []
    for first, *rest in body:
        lines += textwrap.wrap(first, most) or [""]
        for name, cell in zip(head[1:], rest, strict=True):
            if cell:
                begin = " " * GAP + name.ljust(called) + " " * GAP
                lines += textwrap.wrap(cell, most, initial_indent=begin, subsequent_indent=" " * len(begin))
    return lines
