"""Records cut out of long series, of one long text, and of one large graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError, nearest
from generalist.data.sources.local import SPLITS, load_columns
from generalist.data.sources.passages import Chunks as Chunks
from generalist.data.sources.passages import Neighbourhoods as Neighbourhoods
from generalist.data.stream.source import Record, Records
from generalist.data.tables.clock import by_group, clock_of, grid


@dataclass
class Windows:
    """Forecasting windows of the columns of a file: {"past": [context], "future": [horizon], "series", "period"}.

    Values are standardised by the mean and deviation of the column's training rows; NaN is a missing one. rows:
    {split: [from, to]} of the FUTURE's rows in order of time; the past may reach back into the rows before. Without
    rows the oldest seven tenths are for training and the newest two for the test. columns: names, or empty = all
    numeric ones but the one that tells the time (`time`, else found): it orders the rows, and steps of time that have
    no row are missing values. `array` names an npz array [t, ...] whose trailing axes, thinned to every `every`-th
    value, are the series.
    group: a column whose values each name a series of their own, in rows below one another.
    stride: steps from one training window to the next; other splits take every window (`test_stride`).
    around: of an `array` of frames [t, H, W], every window also holds the past of the pixels up to `around` pixels away
    in both directions, every `around_every`-th: {"around": [context, n * n]}, row by row, in the units of the window's
    own column. Pixels beyond the border repeat it. A forecast that knows them can see what moves in (advection).
    """

    path: str
    rows: dict[str, list[int]] = field(default_factory=dict)
    context: int = 336
    horizon: int = 96
    columns: list[str] = field(default_factory=list)
    array: str = ""
    every: int = 1
    stride: int = 1
    test_stride: int = 1
    period: int = 24
    about: str = ""
    around: int = 0
    around_every: int = 1
    time: str = ""
    group: str = ""

    def open(self, split: str) -> Records:
        cut, notes = self.cut(split)
        kept = cut.known()
        if lost := len(cut) - len(kept):
            notes = [*notes, f"{lost} of {len(cut)} {split} windows have no past or no future; left out"]
        if not kept:
            raise UserError(f"{self.path}: no {split} window has a value in its past and in its future")
        info = {"synthetic": False, "about": self.about or self.path} | ({"notes": notes} if notes else {})
        return Records(cut, info).only(kept) if lost else Records(cut, info)

    def cut(self, split: str) -> tuple[Cut, list[str]]:
        """Every window of a split, those without a value among them, and what was odd."""
        if split not in SPLITS:
            raise UserError(f"no split {split!r}; {nearest(split, SPLITS)}")
        if self.around < 0 or self.around_every < 1:
            raise UserError(f"{self.path}: around must be >= 0 and around_every >= 1 pixels")
        names, values, frames, rows, notes = self._series()
        if split not in rows:
            raise UserError(f"{self.path}: rows= says nothing of {split!r}; {nearest(split, rows)}")
        low, high = rows[split]
        first = max(low, self.context)
        last = min(high, len(values)) - self.horizon
        if last < first:
            raise UserError(
                f"{self.path}: rows {low} to {high} hold no window of {self.context} + {self.horizon} steps"
            )
        origins = np.arange(first, last + 1, self.stride if split == "train" else self.test_stride)
        train = values[slice(*rows["train"])]
        if (empty := np.isnan(train).all(0)).any():
            raise UserError(f"{self.path}: column {names[int(empty.argmax())]!r} has no value in its training rows")
        mean, deviation = np.nanmean(train, 0), np.nanstd(train, 0)
        deviation = np.where(deviation > 0, deviation, 1.0)  # 1: a column that stands still
        near = None
        if self.around:
            wide = len(range(self.every // 2, frames.shape[2], self.every))
            places = np.stack(np.divmod(np.array(names, dtype=int), wide), axis=1) * self.every + self.every // 2
            near = Nearby(frames, places, mean, deviation, self.around, self.around_every)
        return Cut(self, names, (values - mean) / deviation, origins, near), notes

    def _rows(self, total: int, place: np.ndarray | None = None) -> dict[str, list[int]]:
        """Rows of every split. place: where the file's rows stand on the grid of time."""
        first, last = round(total * 0.7), round(total * 0.8)
        given = self.rows or {"train": [0, first], "val": [first, last], "test": [last, total]}
        if place is None or not self.rows:
            return given
        ends = np.append(place, total)
        return {name: [int(ends[min(max(at, 0), len(place))]) for at in rows] for name, rows in given.items()}

    def names(self) -> list[str]:
        """The series that windows are cut from."""
        return self._series()[0]

    def carried(self) -> list[str]:
        return []

    def answered_in(self) -> str:
        return ""

    def unanswered(self, data: Any) -> Records:
        """The newest steps of a file's series."""
        if not isinstance(data, str | Path):
            raise UserError("a forecast of new series reads them from a table's file; write the frame into one")
        return self.newest(str(data))

    def newest(self, path: str) -> Records:
        """The last `context` steps of every series of another file of the same kind, in its own units."""
        names, values, *_ = replace(self, path=str(path), rows={})._series()
        return Records(
            [{"id": name, "series": name, "past": values[-self.context :, i]} for i, name in enumerate(names)]
        )

    def _series(self) -> tuple[list[str], np.ndarray, np.ndarray, dict[str, list[int]], list[str]]:
        """Names and values [t, series] in the file's units, the whole `array` [t, ...] (empty without one), the rows of
        every split, and what was odd."""
        columns = load_columns(self.path)
        if self.group:
            columns = by_group(columns, self.group, self.time, self.columns, self.path)
        if self.array:
            if self.array not in columns:
                raise UserError(f"{self.path}: no array {self.array!r}; {nearest(self.array, columns)}")
            frames = np.asarray(columns[self.array], dtype=np.float64)
            if self.around and frames.ndim != 3:
                raise UserError(f"{self.path}: {self.array} has shape {frames.shape}; around= needs frames [t, H, W]")
            values = frames[(slice(None), *([slice(self.every // 2, None, self.every)] * (frames.ndim - 1)))]
            values = values.reshape(len(values), -1)
            rows = self._rows(len(values))
            keep = values[slice(*rows["train"])].std(0) > 0  # the others have no scale
            return [str(i) for i in np.flatnonzero(keep)], values[:, keep], frames, rows, []
        if self.around:
            raise UserError(f"{self.path}: around= is of pixels of frames; name them with array=")
        clock = clock_of({n: v for n, v in columns.items() if n not in self.columns}, self.time)
        numeric = [n for n, v in columns.items() if np.asarray(v).dtype.kind in "iuf"]
        names = (
            self.columns if self.columns and not self.group else [n for n in numeric if clock is None or n != clock[0]]
        )
        if not names:
            raise UserError(f"{self.path}: no column of numbers besides the time; it holds {', '.join(columns)}")
        if lacking := [n for n in names if n not in columns]:
            raise UserError(f"{self.path}: no column {lacking[0]!r}; {nearest(lacking[0], columns)}")
        values = np.stack([np.asarray(columns[n], dtype=np.float64) for n in names], axis=1)
        rows = self._rows(len(values))
        notes: list[str] = []
        if clock is not None:
            order, place, notes = grid(clock[1])
            notes = [f"{clock[0]}: {note}" for note in notes]
            even = np.full((int(place[-1]) + 1, values.shape[1]), np.nan)
            even[place] = values[order]
            values, rows = even, self._rows(len(even), place)
        return names, values, np.empty((len(values), 0)), rows, notes


class Nearby:
    """The past of the pixels around one, in that pixel's units."""

    def __init__(
        self,
        frames: np.ndarray,
        places: np.ndarray,
        mean: np.ndarray,
        deviation: np.ndarray,
        reach: int,
        every: int,
    ) -> None:
        """frames: [t, H, W] in the file's units; places: Int[series, 2], row and column; mean, deviation: [series]."""
        self.places = places
        self.frames = np.pad(frames, ((0, 0), (reach, reach), (reach, reach)), mode="edge").astype(np.float32)
        self.mean, self.deviation = mean, deviation
        self.offsets = np.arange(0, 2 * reach + 1, every)  # from the padded corner; the pixel itself is at `reach`

    def window(self, which: int, first: int, last: int) -> np.ndarray:
        """The rows [last - first, n * n] around the pixel of series `which`."""
        rows, columns = (self.offsets + int(p) for p in self.places[which])
        block = self.frames[first:last][:, rows][:, :, columns]
        return (block.reshape(last - first, -1) - self.mean[which]) / self.deviation[which]


class Cut(Sequence):
    """Lazy windows: all series of an origin, then those of the next."""

    def __init__(
        self,
        source: Windows,
        names: list[str],
        values: np.ndarray,
        origins: np.ndarray,
        near: Nearby | None = None,
    ) -> None:
        self.source, self.names, self.values, self.origins, self.near = source, names, values, origins, near

    def __len__(self) -> int:
        return len(self.origins) * len(self.names)

    def known(self) -> list[int]:
        """The windows that have a value in their past and in their future."""
        if not np.isnan(self.values).any():
            return list(range(len(self)))
        real = np.concatenate([np.zeros((1, len(self.names)), int), (~np.isnan(self.values)).cumsum(0)])
        at, source = self.origins, self.source
        past, future = real[at] - real[at - source.context], real[at + source.horizon] - real[at]
        return np.flatnonzero(((past > 0) & (future > 0)).ravel()).tolist()

    def __getitem__(self, index: Any) -> Any:
        at, which = divmod(range(len(self))[index], len(self.names))
        origin, source = int(self.origins[at]), self.source
        column = self.values[:, which]
        beside: Record = {}
        if self.near is not None:
            beside["around"] = self.near.window(which, origin - source.context, origin)
        return {
            **beside,
            "id": f"{self.names[which]}@{origin}",
            "past": column[origin - source.context : origin],
            "future": column[origin : origin + source.horizon],
            "series": self.names[which],
            "period": source.period,
        }
