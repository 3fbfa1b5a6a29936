"""The clock of a log: which column tells the time, and its rows in order on an even grid, gaps as missing values."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError, nearest
from generalist.data.tables.dates import moment, style_of

CALLED = re.compile(
    r"(?:^|[^a-z])(?:time|date|datetime|timestamp|ts|epoch|unix|day|hour|minute|second|month|year|step)s?(?:[^a-z]|$)"
)
EVEN = 0.8  # of the steps between rows must be the commonest one: below it nothing is said of gaps
MOST = 20  # grid rows for each row of the file, above which a column is no even clock


def seconds(values: Any) -> np.ndarray | None:
    """A column of dates as seconds since 1970 in UTC, NaN where it is empty; None for a column of other things."""
    array = np.asarray(values)
    if array.dtype.kind == "M":
        found = array.astype("datetime64[us]").astype(np.int64) / 1e6
        return np.where(np.isnat(array), np.nan, found)
    cells = array.tolist() if array.dtype.kind in "OUT" else []
    present = [v for v in cells if v is not None and v == v]
    if not present or (style := style_of(present)) is None:
        return None
    from datetime import UTC

    whens = [None if v is None or v != v else moment(v, style[0]) for v in cells]
    known = [None if w is None else w if w.tzinfo is not None else w.replace(tzinfo=UTC) for w in whens]
    return np.array([np.nan if w is None else w.timestamp() for w in known])


def ticks(name: str, values: Any) -> np.ndarray | None:
    """A column of whole numbers that counts time (seconds since 1970, steps, years), as float; None for another."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu" or len(array) < 8:
        return None
    steps = np.diff(np.sort(array))
    if (steps <= 0).mean() > 1 - EVEN:
        return None
    common = Counter(steps.tolist()).most_common(1)[0]
    even = common[1] >= EVEN * len(steps) and common[0] > 0
    return (
        array.astype(np.float64) if even and (CALLED.search(name.lower().replace("_", " ")) or common[0] == 1) else None
    )


def clock_of(columns: dict[str, Any], wanted: str = "") -> tuple[str, np.ndarray] | None:
    """The column of time and its moments: the `wanted` one, else the first of dates, else of whole steps."""
    names = [wanted] if wanted else list(columns)
    for read in (lambda name: seconds(columns[name]), lambda name: ticks(name, columns[name])):
        for name in names:
            if (found := read(name)) is not None:
                return name, found
    if wanted:
        raise UserError(f"column {wanted!r} tells no time: give one of dates or of whole steps")
    return None


def grid(moments: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Rows in order of time: (their numbers, the place of each on an even grid, notes).

    Of rows with one moment (a clock that was set back) the first stays; rows without a moment are left out.
    """
    notes = []
    order = np.argsort(moments, kind="stable")
    order = order[~np.isnan(moments[order])]
    if lost := len(moments) - len(order):
        notes.append(f"{lost} rows have no time and are left out")
    if (np.diff(order) < 0).any():
        notes.append("rows are not in order of time; they are put in order")
    sorted_ = moments[order]
    fresh = np.concatenate([[True], np.diff(sorted_) > 0])
    if again := int((~fresh).sum()):
        notes.append(f"{again} rows have the time of another; the first of each stays")
    order, sorted_ = order[fresh], sorted_[fresh]
    steps = np.diff(sorted_)
    place = np.arange(len(order))
    if len(steps) and (common := Counter(steps.tolist()).most_common(1)[0])[1] >= EVEN * len(steps):
        whole = np.rint((sorted_ - sorted_[0]) / common[0]).astype(np.int64)
        if (np.diff(whole) > 0).all() and whole[-1] < MOST * len(order):
            place = whole
            if gaps := int(whole[-1] + 1 - len(order)):
                notes.append(f"{gaps} steps of time have no row; they are missing values")
    return order, place, notes


def by_group(columns: dict[str, Any], group: str, time: str, wanted: list[str], what: str) -> dict[str, Any]:
    """Series below one another -> one column a series, {time, "value group" ...}, a row a moment of any of them.

    wanted: columns of values, [] = all of numbers. UserError where `group` or the time is no column.
    """
    import pandas

    if group not in columns:
        raise UserError(f"{what}: no column {group!r}; {nearest(group, columns)}")
    clock = time or next((n for n, v in columns.items() if n != group and seconds(v) is not None), "")
    if not clock:
        raise UserError(f"{what}: series by {group!r} need a column of time; name it with time= (--date)")
    if clock not in columns:
        raise UserError(f"{what}: no column {clock!r}; {nearest(clock, columns)}")
    numeric = [n for n, v in columns.items() if n not in (group, clock) and np.asarray(v).dtype.kind in "iuf"]
    names = wanted or numeric
    frame = pandas.DataFrame({name: columns[name] for name in (clock, group, *names)}).dropna(subset=[clock, group])
    wide = frame.drop_duplicates([clock, group]).pivot(index=clock, columns=group, values=names)
    wide.columns = [str(g) if len(names) == 1 else f"{n} {g}" for n, g in wide.columns]
    wide = wide.astype(float).reset_index()
    return {str(name): wide[name].to_numpy() for name in wide.columns}
