"""Forecasting windows of all columns of a file at once, for `Forecast(joint=True)`: series that move together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError
from generalist.data.sources.windows import Cut, Windows
from generalist.data.stream.source import Records


@dataclass
class JointWindows(Windows):
    """{"past": [context, V], "future": [horizon, V], "period"}: `Windows` of every column side by side.

    Each column is standardised by its own training rows. A window in which a column has no past or no future is left
    out and counted. `newest` takes a file of other columns: a model of variates runs with any number of them.

    >>> JointWindows("ETTh1.csv", context=96, horizon=96).open("train")[0]["past"].shape  # doctest: +SKIP
    (96, 7)
    """

    def open(self, split: str) -> Records:
        if self.around:
            raise UserError(f"{self.path}: around= is of one pixel each; joint windows hold all columns as they are")
        cut, notes = self.cut(split)
        whole = np.zeros(len(cut), dtype=bool)
        whole[cut.known()] = True
        kept = np.flatnonzero(whole.reshape(-1, len(cut.names)).all(1)).tolist()
        if lost := len(cut.origins) - len(kept):
            notes = [*notes, f"{lost} of {len(cut.origins)} {split} windows lack a column's past or future; left out"]
        if not kept:
            raise UserError(f"{self.path}: no {split} window has a value of every column in its past and in its future")
        info = {"synthetic": False, "about": self.about or self.path} | ({"notes": notes} if notes else {})
        complete = Cut(self, cut.names, cut.values, cut.origins[kept])
        return Records(JointCut(complete), info)

    def newest(self, path: str) -> Records:
        """The last `context` steps of all columns of another file, in its own units."""
        names, values, *_ = replace(self, path=str(path), rows={})._series()
        return Records([{"id": "newest", "series": ", ".join(names), "past": values[-self.context :]}])


class JointCut(Sequence):
    """Lazy windows, one an origin."""

    def __init__(self, cut: Cut) -> None:
        self.columns = cut

    def __len__(self) -> int:
        return len(self.columns.origins)

    def __getitem__(self, index: Any) -> Any:
        cut, source = self.columns, self.columns.source
        origin = int(cut.origins[range(len(self))[index]])
        return {
            "id": f"all@{origin}",
            "past": cut.values[origin - source.context : origin],
            "future": cut.values[origin : origin + source.horizon],
            "series": ", ".join(cut.names),
            "period": source.period,
        }
