"""Columns of text -> columns of values: what a table's cells mean, and what of them was odd.

A column is of numbers where nine cells in ten are (thousands separators, currency, percent and a common unit are
understood); the others are missing and told. Leading zeros make text, and so do more digits than a number keeps.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from generalist.data.tables.dates import moment, style_of

SHARE = 0.9  # of the cells of a column that must be numbers
DIGITS = 15  # a float keeps no more
GAPS = frozenset({"", "?", "na", "n/a", "nan", "null", "none", "-", "--", "<na>", "#n/a", "#na", "nil", "missing", "."})
PLAIN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$")
ZEROS = re.compile(r"[+-]?0\d")
MONEY = re.compile(r"^(?:[$€£¥₹]|USD|EUR|GBP|CHF|US\$)\s*|\s*(?:[$€£¥₹]|USD|EUR|GBP|CHF)$")
SPACES = re.compile(r"(?<=\d)[\s'\u00a0\u202f\u2009](?=\d{3}(?:\D|$))")
POINT = re.compile(r"[+-]?\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d*)?$")
COMMA = re.compile(r"[+-]?(?:\d{1,3}(?:\.\d{3})+|\d+)(?:,\d+)?$")
SURE_COMMA = re.compile(r"[+-]?(?:\d{1,3}(?:\.\d{3})+,\d+|\d+,(?:\d{1,2}|\d{4,}))$")
SURE_POINT = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+\.\d+|\d*\.(?:\d{1,2}|\d{4,}))$")
UNIT = re.compile(r"^([+-]?[\d.,]*\d(?:[eE][+-]?\d+)?)\s*([A-Za-zµ°/]{1,8}[23²³]?)$")


def is_gap(text: str) -> bool:
    """Whether a cell of numbers or dates says that there is none."""
    return text.strip().lower() in GAPS


def number(text: str, decimal: str = ".") -> float | None:
    """A number as people write it: 1,234.5  $5  (5)  12 %  1 234,5 (decimal=","); None where it is none."""
    text = text.strip().replace("\u2212", "-")
    if decimal == "." and PLAIN.match(text):
        return float(text)
    sign, share = 1.0, 1.0
    if text.startswith("(") and text.endswith(")"):
        text, sign = text[1:-1].strip(), -1.0
    if text.endswith("%"):
        text, share = text[:-1].rstrip(), 0.01
    if text[:1] in "+-" and MONEY.match(text[1:].lstrip()):
        text, sign = text[1:].lstrip(), -sign if text[0] == "-" else sign
    text = SPACES.sub("", MONEY.sub("", text))
    if decimal == "," and COMMA.match(text):
        text = text.replace(".", "").replace(",", ".")
    elif decimal == "." and POINT.match(text):
        text = text.replace(",", "")
    return sign * float(text) * share if PLAIN.match(text) else None


def decimal_of(cells: Iterable[str], usual: str = ".") -> str:
    """The decimal mark of a file's cells, by those that can be read in one way only; `usual` where none can."""
    comma = point = 0
    for cell in cells:
        text = cell.strip()
        comma += bool(SURE_COMMA.match(text))
        point += bool(SURE_POINT.match(text))
    return usual if comma == point == 0 else "," if comma > point else "."


@dataclass
class Reading:
    """What the cells of a column mean. kind: "integer", "number", "boolean", "date", "text" or "empty".

    values: {cell: its value}, without the cells that stay as they are. note: what was odd, "" where nothing was.
    """

    kind: str
    values: dict[str, Any] = field(default_factory=dict)
    note: str = ""


def reading(counts: dict[str, int], decimal: str = ".", answer: bool = False) -> Reading:
    """counts: {cell: how often}, empty cells left out. answer: a label, whose words are names as written."""
    gaps = {cell for cell in counts if is_gap(cell) and not answer}
    present = {cell: count for cell, count in counts.items() if cell not in gaps}
    if not present:
        return Reading("empty" if not counts else "text")
    if zeros := [
        c for c in present if ZEROS.match(c.strip()) and c.strip().lstrip("+-").replace(".", "", 1).isdecimal()
    ]:
        return Reading("text", note=f"numbers with leading zeros ({zeros[0]}) are text")
    whole = [c for c in present if c.strip().lstrip("+-").isdecimal()]
    if long := [c for c in whole if len(c.strip().lstrip("+-")) > DIGITS]:
        return Reading("text", note=f"numbers of more than {DIGITS} digits ({long[0]}) are text")
    if answer and not (all(PLAIN.match(c.strip()) for c in present) or _measures(present, decimal)):
        return Reading("text")
    if {c.strip().lower() for c in present} <= {"true", "false"}:
        return Reading("boolean", dict.fromkeys(gaps) | {c: c.strip().lower() == "true" for c in present})
    found = numbers(present, decimal)
    share = sum(present[c] for c in found) / sum(present.values())
    if share >= SHARE:
        odd = Counter({c: n for c, n in present.items() if c not in found})
        values = dict.fromkeys([*gaps, *odd]) | found
        integers = len(whole) == len(found)
        if integers:
            values |= {c: int(v) for c, v in found.items()}
        return Reading("integer" if integers else "number", values, _told(odd, "no number"))
    if (style := style_of(present)) is not None:
        odd = Counter({c: n for c, n in present.items() if moment(c, style[0]) is None})
        told = _told(odd, "no date")
        if style[1]:
            told = f"dates are read as {style[0]}; day and month could be the other way round" + (told and f"; {told}")
        return Reading("date", dict.fromkeys([*gaps, *odd]), told)
    if share > 0.5 and len(found) > 20:
        odd = Counter({c: n for c, n in present.items() if c not in found})
        return Reading("text", note=f"mostly numbers, but {_told(odd, 'no number', '')}: all of it is text")
    return Reading("text")


def numbers(cells: Iterable[str], decimal: str) -> dict[str, float]:
    """Those of the cells that are numbers, with one unit where nearly all have it."""
    cells = list(cells)
    found = {c: v for c in cells if (v := number(c, decimal)) is not None}
    if len(found) >= SHARE * len(cells):
        return found
    units = {c: m.groups() for c in cells if c not in found and (m := UNIT.match(c.strip()))}
    if units:
        (unit, count), *_ = Counter(u for _, u in units.values()).most_common(1)
        if len(found) + count >= SHARE * len(cells):
            told = {c: number(text, decimal) for c, (text, u) in units.items() if u == unit}
            found |= {c: v for c, v in told.items() if v is not None}
    return found


def _measures(present: dict[str, int], decimal: str) -> bool:
    """Whether a label is a measured number in spite of some odd cells: many different ones."""
    found = numbers(present, decimal)
    rows = sum(present.values())
    return sum(present[c] for c in found) >= SHARE * rows and len(set(found.values())) > min(50, rows / 2)


def _told(odd: Counter, what: str, end: str = " and missing") -> str:
    if not odd:
        return ""
    shown = ", ".join(repr(cell) for cell, _ in odd.most_common(3))
    count = sum(odd.values())
    return f"{count} {'cell is' if count == 1 else 'cells are'} {what}{end} ({shown})"
