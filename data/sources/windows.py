"""Records cut out of long series, of one long text, and of one large graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError, nearest
from generalist.data.sources.local import SPLITS, load_columns
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


@dataclass
class Chunks:
    """A long text in consecutive pieces of about `size` characters, cut at line ends: {"text"}.

    train: share of the text that is training data, from its start; the rest is halved into validation and test.
    """

    path: str
    size: int = 200
    train: float = 0.8
    about: str = ""

    def open(self, split: str) -> Records:
        if split not in SPLITS:
            raise UserError(f"no split {split!r}; {nearest(split, SPLITS)}")
        if not Path(self.path).is_file():
            raise UserError(f"no data file {self.path}; check the path")
        text = Path(self.path).read_text(encoding="utf-8")
        cuts = [0, int(len(text) * self.train), int(len(text) * (1 + self.train) / 2), len(text)]
        at = SPLITS.index(split)
        pieces: list[str] = [""]
        for line in text[cuts[at] : cuts[at + 1]].splitlines(keepends=True):
            if len(pieces[-1]) + len(line) > self.size and pieces[-1]:
                pieces.append("")
            pieces[-1] += line
        rows = [{"id": f"{split}/{i}", "text": piece} for i, piece in enumerate(pieces) if piece.strip()]
        return Records(rows, {"synthetic": False, "about": self.about or self.path})


@dataclass
class Neighbourhoods:
    """Nodes of one large graph, each with its surroundings: {"graph": nodes, edges, center; "label"}.

    An npz with edges [2, m], labels, index arrays of the splits ("idx_{split}") and sparse features (row, column,
    value arrays and a shape), which become `components` principal components of all nodes. hops, most: how far and
    how many nodes a record reaches (nearest first, then by number). smooth: how often the features are first averaged
    over the neighbours (SGC, 1902.07153, equation 8). whiten: every component at unit scale; False keeps their
    relative sizes, so that the many weak ones stay weak.
    """

    path: str
    edges: str = "edge_index"
    labels: str = "y"
    index: str = "idx_{split}"
    features: list[str] = field(default_factory=lambda: ["x_row", "x_col", "x_val", "x_shape"])
    classes: str = "class_names"
    components: int = 64
    hops: int = 2
    most: int = 24
    smooth: int = 0
    whiten: bool = True
    about: str = ""

    def open(self, split: str) -> Records:
        if split not in SPLITS:
            raise UserError(f"no split {split!r}; {nearest(split, SPLITS)}")
        columns = load_columns(self.path)
        wanted = [self.edges, self.labels, self.index.replace("{split}", split), self.classes, *self.features]
        for name in wanted:
            if name not in columns:
                raise UserError(f"{self.path}: no array {name!r}; {nearest(name, columns)}")
        edges, labels, chosen, classes = (columns[name] for name in wanted[:4])
        values = _components(self.path, tuple(self.features), self.components, self.edges, self.smooth, self.whiten)
        rows = Surroundings(edges.astype(np.int64), values, labels, chosen, self.hops, self.most)
        return Records(rows, {"synthetic": False, "about": self.about or self.path, "classes": classes.tolist()})


@lru_cache(maxsize=4)
def _components(path: str, names: tuple[str, ...], count: int, edges: str, smooth: int, whiten: bool) -> np.ndarray:
    """Principal directions of the sparse features of all nodes (labels are not looked at): [n, count]."""
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import svds

    columns = load_columns(path)
    row, column, value, shape = (columns[name] for name in names)
    features = csr_array((value, (row, column)), shape=tuple(int(s) for s in shape)).astype(np.float64)
    total = np.maximum(np.asarray(features.sum(axis=1)).ravel(), 1e-12)
    features = features.multiply(1 / total[:, None]).tocsr()
    if smooth:
        features = averaged(features, columns[edges], smooth)
    u, s, _ = svds(features, k=count, v0=np.ones(min(features.shape)), random_state=0)
    found = (u * s)[:, ::-1]
    return found / (found.std(0) if whiten else found.std())


def averaged(features: Any, edges: np.ndarray, times: int) -> Any:
    """(D^-1/2 (A + I) D^-1/2)^times X of sparse X [n, f]; A: 1 for every pair of nodes in `edges` [2, m]."""
    from scipy.sparse import csr_array, eye_array

    n = features.shape[0]
    ones = csr_array((np.ones(edges.shape[1]), (edges[0], edges[1])), shape=(n, n))
    linked = ((ones + ones.T) > 0).astype(np.float64)
    linked.setdiag(0)
    linked = linked + eye_array(n)
    scale = np.asarray(linked.sum(axis=1)).ravel() ** -0.5
    step = linked.multiply(scale[:, None]).multiply(scale[None]).tocsr()
    for _ in range(times):
        features = step @ features
    return features


class Surroundings(Sequence):
    """Lazy records: the induced subgraph of the nodes around one node, which comes first."""

    def __init__(self, edges: np.ndarray, values: np.ndarray, labels: Any, chosen: Any, hops: int, most: int) -> None:
        self.values, self.labels, self.chosen, self.hops, self.most = values, labels, chosen, hops, most
        both = np.concatenate([edges, edges[::-1]], axis=1)
        order = np.argsort(both[0], kind="stable")
        self.far = both[1][order]
        self.start = np.searchsorted(both[0][order], np.arange(len(values) + 1))

    def __len__(self) -> int:
        return len(self.chosen)

    def around(self, node: int) -> list[int]:
        """`node`, then its neighbours ring by ring, at most `most`."""
        seen, ring = {node: None}, [node]
        for _ in range(self.hops):
            ring = sorted({int(v) for u in ring for v in self.far[self.start[u] : self.start[u + 1]]} - seen.keys())
            for v in ring:
                seen.setdefault(v, None)
        return list(seen)[: self.most]

    def __getitem__(self, index: Any) -> Any:
        node = int(self.chosen[index])
        nodes = self.around(node)
        number = {v: i for i, v in enumerate(nodes)}
        edges = [
            (number[u], number[int(v)])
            for u in nodes
            for v in self.far[self.start[u] : self.start[u + 1]]
            if int(v) in number and u < int(v)
        ]
        graph = {
            "node_values": self.values[nodes],
            "edges": np.unique(np.array(edges, dtype=np.int64).reshape(-1, 2), axis=0),
            "center": 0,
        }
        return {"id": f"node {node}", "graph": graph, "label": int(self.labels[node])}
