"""Graphs and molecules: one token a node and an edge, told apart by Laplacian identifiers.

Source: TokenGT (Kim et al., 2207.02505) section 3: token = features + identifiers of both ends + type. As in the
paper's [P_u, P_v]; a node has itself at both ends. `spec/meta-transformer.md` 2.8 lists what the released code of
others breaks: here padding never exists and the encoder sees one graph at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Span
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.base.tokenizer import Tokenizer, taken
from generalist.tokenizers_mod.geometry.graph_raw import RawGraph, read_graph

EDGE, NODE, CENTER = 0, 1, 2  # type identifiers
LARGEST = 1e4


def laplacian_identifiers(edge: np.ndarray, nodes: int, count: int) -> Float[np.ndarray, "n count"]:
    """The first `count` eigenvectors of I - D^-1/2 A D^-1/2, ascending, zero-padded: [n, count].

    A is symmetric without weights, degrees are at least 1. Signs are arbitrary in theory; here the largest
    entry of each vector is positive (the first such), so that a graph always reads the same.
    """
    adjacency = np.zeros((nodes, nodes))
    adjacency[edge[:, 0], edge[:, 1]] = adjacency[edge[:, 1], edge[:, 0]] = 1
    root = 1 / np.sqrt(np.maximum(adjacency.sum(1), 1))
    laplacian = np.eye(nodes) - root[:, None] * adjacency * root[None]
    if nodes > 4 * count + 40:  # only the ends of large spectra; a fixed start keeps the result the same
        from scipy.sparse import csr_array
        from scipy.sparse.linalg import eigsh

        shifted = csr_array(2 * np.eye(nodes) - laplacian)  # its largest are the smallest, and they converge fast
        values, vectors = eigsh(shifted, k=count, v0=np.ones(nodes), which="LA", tol=1e-8)
        vectors = vectors[:, np.argsort(-values, kind="stable")]
    else:
        vectors = np.linalg.eigh(laplacian)[1][:, :count]
    size = np.abs(vectors).round(6)  # rounding: among equal entries always the same one decides
    sign = np.sign(np.take_along_axis(vectors, size.argmax(0)[None], axis=0))
    out = np.zeros((nodes, count))
    out[:, : vectors.shape[1]] = vectors * np.where(sign == 0, 1, sign)
    return out


@dataclass
class Graph(Modality):
    """A graph -> its nodes in order, then its edges.

    node_columns, edge_columns: sizes of the category columns, learnt from training graphs where empty (categories
    that training did not see become one "unknown" a column). node_values, edge_values: columns of numbers.
    identifiers: eigenvectors of the Laplacian a token is told apart by, signs drawn at random in training.
    directed: keep (u, v) and (v, u) as two tokens; else parallel and reversed edges are one token.
    max_nodes, max_edges: larger graphs are refused (attention over n + m tokens is quadratic).
    drop, hide: in training, the share of nodes left out with their edges (never the centre, never all), and of
    numbers of nodes and edges set to zero (the views of GRACE, 2006.04131, section 3.2). Small sets overfit without.

    >>> graph = Graph(node_columns=[3])
    >>> graph.span(graph.read({"nodes": [0, 1, 2], "edges": [[0, 1], [1, 2], [2, 1]]})).length  # 3 nodes, 2 edges
    5
    """

    name: ClassVar[str] = "graph"
    reads_words: ClassVar[bool] = True  # SMILES
    kind_keys: ClassVar[tuple[str, ...]] = ("type",)
    raw: ClassVar[str] = (
        "{'nodes', 'edges', ...} edge list, networkx graph, object with x and edge_index, SMILES string"
    )
    count: ClassVar[str] = "nodes + edges; undirected edges once"

    node_columns: list[int] = field(default_factory=list)
    edge_columns: list[int] = field(default_factory=list)
    node_values: int = 0
    edge_values: int = 0
    identifiers: int = 8
    directed: bool = False
    max_nodes: int = 2000
    max_edges: int = 10000
    drop: float = 0.0
    hide: float = 0.0
    learnt: bool = False

    def __post_init__(self) -> None:
        if min([self.node_values, self.edge_values, self.identifiers, *self.node_columns, *self.edge_columns]) < 0:
            raise UserError(f"{self.name}: sizes must not be negative")
        if not (0 <= self.drop < 1 and 0 <= self.hide < 1):
            raise UserError(f"{self.name}: drop={self.drop}, hide={self.hide}; they are shares, 0 <= share < 1")

    def learnable(self, raw: Any) -> None:
        read_graph(raw, self.name)

    def learn_rows(self, name: str, rows: list[Any]) -> None:
        """Sizes of all columns from training graphs; what is set stays. Graphs must agree in their columns."""
        if self.learnt or self.node_columns or self.edge_columns or self.node_values or self.edge_values:
            return
        graphs = [read_graph(row, self.name) for row in rows]
        widths = {
            (g.code.shape[1], g.value.shape[1], g.edge_code.shape[1], g.edge_value.shape[1])
            for g in graphs
            if len(g.edge)
        }
        widths = widths or {(g.code.shape[1], g.value.shape[1], 0, 0) for g in graphs}
        if len(widths) != 1:
            raise UserError(
                f"{self.name}: training graphs differ in their columns (nodes, values, edges, values): {sorted(widths)}"
            )
        nodes, self.node_values, edges, self.edge_values = widths.pop()
        self.node_columns = [int(max(g.code[:, i].max() for g in graphs)) + 1 for i in range(nodes)]
        self.edge_columns = [int(max(g.edge_code[:, i].max() for g in graphs if len(g.edge))) + 1 for i in range(edges)]
        self.learnt = True

    def from_command_line(self, word: str) -> Any:
        """A SMILES string."""
        return word

    def read(self, raw: Any) -> RawGraph:
        """-> the checked form, as `generalist.tokenizers_mod.geometry.graph_raw` describes it, undirected edges once.

        UserError: unreadable, no node, too large, other columns than the model's.
        """
        graph = read_graph(raw, self.name)
        n = len(graph.code)
        edge, first = graph.edge, np.arange(len(graph.edge))
        if not self.directed and len(edge):
            edge, first = np.unique(np.sort(edge, axis=1), axis=0, return_index=True)
        if n > self.max_nodes or len(edge) > self.max_edges:
            raise UserError(
                f"{self.name}: {n} nodes and {len(edge)} edges; the limits are {self.max_nodes} and {self.max_edges}: "
                "cut a neighbourhood out or raise max_nodes and max_edges"
            )
        graph = RawGraph(graph.code, graph.value, edge, graph.edge_code[first], graph.edge_value[first], graph.center)
        wanted = (len(self.node_columns), self.node_values, len(self.edge_columns), self.edge_values)
        parts = (graph.code, graph.value, graph.edge_code, graph.edge_value)
        for part, width, what in zip(parts, wanted, ("nodes", "node_values", "edge_codes", "edge_values"), strict=True):
            if part.shape[1] != width and not (len(part) == 0 and not len(edge)):
                raise UserError(f"{self.name}: {what} has {part.shape[1]} columns, the model takes {width}")
        return graph

    def plain(self, raw: Any) -> Any:
        """A SMILES string as it is, counted in letters; anything else as a mapping of nodes and edges."""
        if isinstance(raw, str | dict):
            return raw
        found = read_graph(raw, self.name)
        nodes = {"nodes": found.code[:, 0]} if found.code.shape[1] else {}
        return nodes | {"edges": found.edge, "node_values": found.value, "center": max(found.center, 0)}

    def span(self, value: RawGraph, rng: torch.Generator | None = None) -> Span:
        """-> n + m tokens: data {"code": Int[N, C], "value": [N, V], "end": [N, 2 k], "type": [N]}.

        code: rows of the table, 0 = none. C counts node and edge columns together, V likewise,
        and the logarithm of a node's degree.
        """
        if rng is not None and self.drop:
            kept = torch.rand(len(value.code), generator=rng).numpy() >= self.drop
            kept[max(value.center, 0)] |= value.center >= 0 or not kept.any()
            value = value.part(kept)
        n, m = len(value.code), len(value.edge)
        code = np.zeros((n + m, len(self.node_columns) + len(self.edge_columns)), dtype=np.int64)
        numbers = np.zeros((n + m, self.node_values + self.edge_values + 1))
        at = 1
        for i, size in enumerate([*self.node_columns, *self.edge_columns]):
            # the row after the last category is "unknown"
            if i < len(self.node_columns):
                code[:n, i] = at + np.minimum(value.code[:, i], size)
            elif m:
                code[n:, i] = at + np.minimum(value.edge_code[:, i - len(self.node_columns)], size)
            at += size + 1
        numbers[:n, : self.node_values] = value.value.clip(-LARGEST, LARGEST)
        if m:
            numbers[n:, self.node_values : -1] = value.edge_value.clip(-LARGEST, LARGEST)
        if rng is not None and self.hide:
            numbers[torch.rand(numbers.shape, generator=rng).numpy() < self.hide] = 0
        degree = np.bincount(value.edge.ravel(), minlength=n)
        numbers[:n, -1] = np.log1p(degree)
        place = self.placed(value)
        if rng is not None:
            place = place * (torch.randint(2, (self.identifiers,), generator=rng) * 2 - 1)
        ends = torch.from_numpy(np.concatenate([np.arange(n).repeat(2).reshape(-1, 2), value.edge]))
        kind = torch.tensor([NODE] * n + [EDGE] * m)
        if value.center >= 0:
            kind[value.center] = CENTER
        data = {
            "code": torch.from_numpy(code),
            "value": torch.from_numpy(numbers).float(),
            "end": place[ends].flatten(1),
            "type": kind,
        }
        return Span(self.name, data, n + m)

    def placed(self, value: RawGraph) -> Float[Tensor, "n count"]:
        """Its nodes' identifiers, which tell them apart, of the size of one."""
        n = len(value.code)
        return torch.from_numpy(laplacian_identifiers(value.edge, n, self.identifiers)).float() * n**0.5

    def steady(self) -> tuple[str, ...]:
        return ("read", "placed")

    def content(self) -> dict[str, float]:
        """Categories, and values where there are any beside the degree, which the edges tell anyway."""
        return {"code": 0} | ({"value": 0.0} if self.node_values or self.edge_values else {})

    def hideable(self, span: Span) -> Tensor:
        """Nodes and edges that have a category or a value of their own."""
        node = span.data["type"] != EDGE
        has_node, has_edge = (
            bool(columns) or values > 0
            for columns, values in ((self.node_columns, self.node_values), (self.edge_columns, self.edge_values))
        )
        return torch.where(node, has_node, has_edge)

    def show(self, raw: Any) -> dict[str, Any]:
        graph = self.read(raw)
        named = raw if isinstance(raw, str) else f"{len(graph.code)} nodes, {len(graph.edge)} edges"
        return {"kind": "text", "text": named}

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.geometry.examples import graph

        return graph()

    def build(self, width: int) -> GraphTokens:
        rows = 1 + sum(size + 1 for size in [*self.node_columns, *self.edge_columns])
        return GraphTokens(rows, self.node_values + self.edge_values + 1, self.identifiers, width)


class GraphTokens(Tokenizer):
    """Sum of category vectors + linear of the numbers + linear of both ends' identifiers + type vector."""

    def __init__(self, rows: int, values: int, identifiers: int, width: int) -> None:
        super().__init__()
        self.code = nn.Parameter(torch.randn(rows, width) * 0.5)
        self.value = nn.Linear(values, width, bias=False)
        self.end = nn.Linear(2 * identifiers, width, bias=False)
        self.kind = nn.Embedding(3, width)
        nn.init.normal_(self.kind.weight, std=0.5)

    def forward(self, data: dict[str, Tensor]) -> Float[Tensor, "N width"]:
        """{"code": Int[N, C], "value": [N, V], "end": [N, 2 k], "type": Int[N]} -> [N, width]."""
        code = data["code"]
        x = self.kind(data["type"]) + self.end(taken(data["end"], self.end))
        x = x + self.value(taken(data["value"], self.value))
        if code.shape[1] == 0:
            return x
        # row 0 stands for "no such column" and is never added
        return x + embedding_bag(code, self.code, mode="sum", per_sample_weights=(code > 0).to(self.code.dtype))
