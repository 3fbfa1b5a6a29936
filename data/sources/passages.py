"""Records cut out of one long text and of one large graph: passages, and nodes with what lies around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError, nearest
from generalist.data.sources.local import SPLITS, load_columns
from generalist.data.stream.source import Records


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
