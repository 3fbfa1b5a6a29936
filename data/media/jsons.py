"""JSON of strangers: measured before it is parsed, for a parser that recurses ends the process and not the record."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError, one_line
from generalist.data.base.files import check_regular
from generalist.data.base.limits import MB, limits, over

PIECE = 16 * MB
BACKSLASH = ord("\\")
KINDS = np.zeros(256, dtype=np.int8)  # what a byte does to the depth, and 2 for a quote
KINDS[[ord(c) for c in "{["]], KINDS[[ord(c) for c in "}]"]], KINDS[ord('"')] = 1, -1, 2


def loads(raw: bytes | str, what: str) -> Any:
    """json.loads within the limits. UserError: too deep, or no JSON."""
    data = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
    check_depth(data, what)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{what}: not JSON ({one_line(error)})") from error


def load(path: Path, what: str) -> Any:
    """The value of a JSON file. UserError: no ordinary file, too large, too deep, or no JSON."""
    check_regular(path, what)
    size = path.stat().st_size
    if size > limits().json_mb * MB:
        raise over(f"{what} {path}", "json_mb", f"{size / MB:,.0f} MB")
    return loads(path.read_bytes(), f"{what} {path}")


def pieces(path: Path) -> Iterator[bytes]:
    """The bytes of a file in whole lines, unpacked where its name ends in .gz. UserError for a line over `json_mb`."""
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    kept = b""
    with opened(path, "rb") as file:
        while piece := file.read(PIECE):
            whole, newline, rest = piece.rpartition(b"\n")
            if newline:
                yield kept + whole + newline
                kept = rest
            else:
                kept += piece
            if len(kept) > limits().json_mb * MB:
                raise over(str(path), "json_mb", f"a line of more than {len(kept) / MB:,.0f} MB")
    if kept:
        yield kept


def check_depth(raw: bytes, what: str) -> None:
    """UserError where brackets outside strings lie inside brackets more than `json_depth` deep."""
    most = limits().json_depth
    if raw.count(b"{") + raw.count(b"[") <= most:
        return
    depth, inside, start = 0, False, 0
    while start < len(raw):
        end = min(start + PIECE, len(raw))
        while end < len(raw) and raw[end - 1] == BACKSLASH:  # it belongs to what follows
            end += 1
        depth, deepest, inside = _measured(raw[start:end], depth, inside)
        if deepest > most:
            raise over(what, "json_depth", f"JSON nested {deepest:,} deep")
        start = end


def _measured(piece: bytes, depth: int, inside: bool) -> tuple[int, int, bool]:
    """(depth at the end, the deepest, whether it ends inside a string) of a piece that begins behind no backslash."""
    values = np.frombuffer(piece, dtype=np.uint8)
    kinds = KINDS[values]
    places = np.flatnonzero(kinds)  # few beside the letters
    kinds = kinds[places]
    quote = kinds == 2
    marks = places[quote]
    real = np.ones(len(marks), dtype=bool)
    for number in np.flatnonzero(values[marks - 1] == BACKSLASH).tolist():
        run = at = int(marks[number])
        while run > 0 and piece[run - 1] == BACKSLASH:
            run -= 1
        real[number] = (at - run) % 2 == 0
    quote[quote] = real
    string = np.bitwise_xor.accumulate(quote) ^ inside if len(quote) else np.array([inside])
    step = np.where(string[: len(kinds)] | (kinds == 2), 0, kinds)
    levels = depth + np.cumsum(step, dtype=np.int32)
    if not len(levels):
        return depth, depth, inside
    return int(levels[-1]), max(depth, int(levels.max())), bool(string[-1])
