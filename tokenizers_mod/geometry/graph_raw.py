"""What people hold as a graph -> one checked form: edge lists, networkx, PyG-like objects, SMILES.

The checked form: `code` Int[n, F] category numbers of nodes (-1 = none), `value` Float[n, V], `edge` Int[m, 2]
(from, to), `edge_code` Int[m, G], `edge_value` Float[m, W], `center` the node that is asked about or -1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError, nearest, told
from generalist.data.base.foreign import acts_as, is_tensor
from generalist.data.base.limits import limits, over
from generalist.tokenizers_mod.base.base import check_finite

KEYS = ("nodes", "node_values", "edges", "edge_codes", "edge_values", "center", "node_count")


@dataclass
class RawGraph:
    """See the module. Undirected graphs may hold every edge once or both ways."""

    code: np.ndarray
    value: np.ndarray
    edge: np.ndarray
    edge_code: np.ndarray
    edge_value: np.ndarray
    center: int = -1

    def part(self, kept: np.ndarray) -> RawGraph:
        """The nodes of the mask `kept` Bool[n], renumbered, and the edges between them."""
        number = np.cumsum(kept) - 1
        whole = kept[self.edge].all(axis=1)
        center = int(number[self.center]) if self.center >= 0 and kept[self.center] else -1
        edge = number[self.edge[whole]]
        return RawGraph(self.code[kept], self.value[kept], edge, self.edge_code[whole], self.edge_value[whole], center)


def read_graph(raw: Any, what: str = "graph") -> RawGraph:
    """Any raw form -> `RawGraph`. UserError: no node, edges to nodes that do not exist, NaN, unequal counts."""
    if isinstance(raw, RawGraph):
        return raw
    if isinstance(raw, str):
        found = _smiles(raw)
    elif isinstance(raw, dict):
        if unknown := [k for k in raw if k not in KEYS]:
            raise UserError(f"{what}: no key {unknown[0]!r}; {nearest(str(unknown[0]), KEYS)}")
        found = dict(raw)
    elif acts_as(raw, "adjacency", "nodes"):
        found = _networkx(raw)
    elif acts_as(raw, "edge_index"):
        found = _pyg(raw)
    else:
        raise UserError(
            f"{what}: cannot read {type(raw).__name__}; give {{'nodes', 'edges'}}, a networkx graph, an object with x "
            "and edge_index, or a SMILES string"
        )
    return _checked(found, what)


def _checked(found: dict[str, Any], what: str) -> RawGraph:
    edge = np.asarray(found.get("edges", np.zeros((0, 2))))
    if edge.size == 0:
        edge = np.zeros((0, 2), dtype=np.int64)
    if edge.ndim == 2 and edge.shape[1] != 2 and edge.shape[0] == 2:
        edge = edge.T
    if edge.ndim != 2 or edge.shape[1] != 2 or edge.dtype.kind not in "iu":
        raise UserError(
            f"{what}: edges of shape {edge.shape} and type {edge.dtype}; expected integers [m, 2] or [2, m]"
        )
    edge = edge.astype(np.int64)
    code = _columns(found.get("nodes"), "nodes", what, integer=True)
    value = _columns(found.get("node_values"), "node_values", what, integer=False)
    counts = [len(a) for a in (code, value) if a is not None]
    if not counts:
        counts = [int(found.get("node_count", edge.max() + 1 if len(edge) else 0))]
    n, m = counts[0], len(edge)
    if any(c != n for c in counts):
        raise UserError(f"{what}: nodes and node_values hold {counts} nodes; they must agree")
    if n < 1:
        raise UserError(f"{what}: no node; remove the graph")
    if m and (edge.min() < 0 or edge.max() >= n):
        raise UserError(f"{what}: an edge names node {edge.max() if edge.max() >= n else edge.min()} of 0..{n - 1}")
    parts = []
    for key, integer in (("edge_codes", True), ("edge_values", False)):
        part = _columns(found.get(key), key, what, integer)
        if part is not None and len(part) != m:
            raise UserError(f"{what}: {key} holds {len(part)} rows for {m} edges")
        parts.append(part)
    center = int(found.get("center", -1))
    if not -1 <= center < n:
        raise UserError(f"{what}: center {center} is not a node of 0..{n - 1}")
    empty_int, empty = (lambda k: np.zeros((k, 0), np.int64)), (lambda k: np.zeros((k, 0)))
    return RawGraph(
        empty_int(n) if code is None else code,
        empty(n) if value is None else value,
        edge,
        empty_int(m) if parts[0] is None else parts[0],
        empty(m) if parts[1] is None else parts[1],
        center,
    )


def _columns(raw: Any, key: str, what: str, integer: bool) -> np.ndarray | None:
    """[k] or [k, columns] -> [k, columns] of category numbers or floats; None where there is none."""
    if raw is None:
        return None
    array = np.asarray(raw)
    if array.size == 0:  # an empty list has no type of its own
        array = array.astype(np.int64 if integer else np.float64)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.dtype.kind not in ("iub" if integer else "iubf"):
        kind = "whole numbers (categories)" if integer else "numbers"
        raise UserError(
            f"{what}: {key} of shape {array.shape} and type {array.dtype}; expected {kind} [k] or [k, columns]"
        )
    if integer:
        array = array.astype(np.int64)
        if array.size and array.min() < 0:
            raise UserError(f"{what}: {key} holds the category {array.min()}; categories count from 0")
        return array
    check_finite(array, f"{what}: {key}")
    return array.astype(np.float64)


def _networkx(graph: Any) -> dict[str, Any]:
    """Attributes: ints are categories, floats values; all nodes (all edges) must have the same ones."""
    names = {node: i for i, node in enumerate(graph.nodes)}
    edges = [(names[a], names[b]) for a, b in graph.edges()]
    found: dict[str, Any] = {"edges": np.array(edges, dtype=np.int64).reshape(-1, 2), "node_count": len(names)}
    for prefix, rows in (
        ("node", [d for _, d in graph.nodes(data=True)]),
        ("edge", [d for *_, d in graph.edges(data=True)]),
    ):
        keys = sorted({k for d in rows for k in d if isinstance(d[k], (int, float, np.number))})
        if lacking := [k for k in keys if any(k not in d for d in rows)]:
            raise UserError(
                f"graph: the {prefix} attribute {lacking[0]!r} is missing on some; set it everywhere or drop it"
            )
        whole = [k for k in keys if all(isinstance(d[k], (int, np.integer)) for d in rows)]
        if whole:
            found["nodes" if prefix == "node" else "edge_codes"] = np.array([[d[k] for k in whole] for d in rows])
        if rest := [k for k in keys if k not in whole]:
            found[f"{prefix}_values"] = np.array([[d[k] for k in rest] for d in rows], dtype=float)
    return found


def _pyg(graph: Any) -> dict[str, Any]:
    def array(name: str) -> np.ndarray | None:
        value = getattr(graph, name, None)
        return None if value is None else np.asarray(value.detach().cpu() if is_tensor(value) else value)

    x, attributes = array("x"), array("edge_attr")
    found: dict[str, Any] = {"edges": array("edge_index")}
    for value, codes, values in ((x, "nodes", "node_values"), (attributes, "edge_codes", "edge_values")):
        if value is not None:
            found[values if value.dtype.kind == "f" else codes] = value
    if x is None and getattr(graph, "num_nodes", None) is not None:
        found["node_count"] = int(graph.num_nodes)
    return found


def _smiles(text: str) -> dict[str, Any]:
    """Atoms and bonds of a molecule, hydrogens implied."""
    try:
        from rdkit import Chem, RDLogger
    except ImportError as error:
        raise UserError("graph: SMILES strings need rdkit; pip install 'generalist-encoder[chem]'") from error
    if len(text) > limits().smiles:
        raise over(f"graph: SMILES {told(text)}", "smiles", f"{len(text):,} characters")
    RDLogger.DisableLog("rdApp.error")  # type: ignore[attr-defined]  # the error below says it in one line
    molecule = Chem.MolFromSmiles(text.strip()) if text.strip() else None
    if molecule is None or molecule.GetNumAtoms() == 0:
        raise UserError(f"graph: {text[:40]!r} is not a SMILES string of a molecule; mend or remove it")
    nodes = [
        [
            atom.GetAtomicNum(),
            min(atom.GetDegree(), 7),
            min(max(atom.GetFormalCharge() + 4, 0), 8),
            min(atom.GetTotalNumHs(), 5),
            min(int(atom.GetHybridization()), 6),
            int(atom.GetIsAromatic()),
            int(atom.IsInRing()),
        ]
        for atom in molecule.GetAtoms()
    ]
    kinds = {Chem.BondType.SINGLE: 0, Chem.BondType.DOUBLE: 1, Chem.BondType.TRIPLE: 2, Chem.BondType.AROMATIC: 3}
    bonds = list(molecule.GetBonds())
    edges = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in bonds]
    codes = [[kinds.get(b.GetBondType(), 4), int(b.GetIsConjugated()), int(b.IsInRing())] for b in bonds]
    return {
        "nodes": np.array(nodes, dtype=np.int64),
        "edges": np.array(edges, dtype=np.int64).reshape(-1, 2),
        "edge_codes": np.array(codes, dtype=np.int64).reshape(-1, 3),
    }
