"""Dates written in the usual ways -> moments, and a moment -> the numbers that a model can learn from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from typing import Any

import numpy as np

SHARE = 0.9  # of the cells of a column that must read as dates
SAMPLE = 200
PARTS = ("epoch", "year", "month", "weekday", "hour")
DAYS = (
    "%m/%d/%Y", "%d/%m/%Y", "%Y/%m/%d", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y",
    "%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%d-%b-%y", "%m/%d/%y", "%d/%m/%y", "%d.%m.%y",
)  # fmt: skip
CLOCKS = ("", " %H:%M:%S", " %H:%M", " %I:%M:%S %p", " %I:%M %p", " %H:%M:%S.%f", " %H:%M:%S%z")
FORMATS = ["iso", *(day + clock for day in DAYS for clock in CLOCKS), "%Y-%m", "%H:%M:%S", "%H:%M"]
LIKELY = re.compile(r"(?=.*\d)(?=.*(?:[-/.:]|\d[ ,]))[\dA-Za-z ,./:+\-]{5,40}$")
NUMBER = re.compile(r"[+-]?[\d.,eE+-]+$")


def moment(value: Any, style: str = "iso") -> datetime | None:
    """A date (text in this style, date, datetime of any library) as a datetime; None where it is none."""
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime.combine(value, time())
    if not isinstance(value, str):
        found = value.item() if isinstance(value, np.generic) else None  # numpy.datetime64
        return moment(found) if isinstance(found, date) else None
    text = value.strip()
    try:
        if style == "iso":
            return None if text.isdecimal() else datetime.fromisoformat(text)
        return datetime.strptime(text, style)
    except ValueError:
        return None


def style_of(values: Iterable[Any]) -> tuple[str, bool] | None:
    """How the dates of a column are written, and whether day and month could be the other way round as well.

    None where fewer than nine cells in ten are dates.
    """
    present = list(dict.fromkeys(values))
    if present and all(isinstance(v, date) or type(v).__name__ == "datetime64" for v in present):
        return "iso", False
    texts = [v.strip() for v in present if isinstance(v, str)]
    if not texts or len(texts) < len(present):
        return None
    some = texts[:: max(1, len(texts) // SAMPLE)][:SAMPLE]
    if sum(bool(LIKELY.match(t)) and not (NUMBER.match(t) and "-" not in t[1:] and t.count(".") < 2) for t in some) < (
        SHARE * len(some)
    ):
        return None
    likely = [f for f in FORMATS if sum(moment(t, f) is not None for t in some) >= SHARE * len(some)]
    counts = {f: sum(moment(t, f) is not None for t in texts) for f in likely}
    if not counts or max(counts.values()) < SHARE * len(texts):
        return None
    best = max(counts, key=counts.__getitem__)  # the first of equals
    twins = [f for f in counts if f != best and counts[f] == counts[best] and sorted(f) == sorted(best)]
    return best, bool(twins) and any(moment(t, twins[0]) != moment(t, best) for t in some)


def parts_of(when: datetime) -> dict[str, float]:
    """Seconds since 1970 (UTC unless told), then year, month, weekday (0 is Monday) and hour as written."""
    known = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    hour = when.hour + when.minute / 60 + when.second / 3600
    return {
        "epoch": (known - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds(),
        "year": float(when.year),
        "month": float(when.month),
        "weekday": float(when.weekday()),
        "hour": hour,
    }
