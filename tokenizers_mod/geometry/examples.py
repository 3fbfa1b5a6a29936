"""Examples of graphs and point sets (`generalist.tokenizers_mod.base.examples`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from generalist.tokenizers_mod.base.examples import NAN, Examples, cut_npy


def ring(n: int) -> dict[str, Any]:
    """n nodes in a ring; one edge is given both ways."""
    return {"nodes": [0] * n, "edges": [[i, (i + 1) % n] for i in range(n)] + [[1, 0]]}


def graph() -> Examples:
    return Examples(
        {"node_columns": [3], "identifiers": 2},
        [{"nodes": [0, 1, 2], "edges": [[0, 1], [1, 2]]}, {"nodes": [2], "edges": []}],
        [
            ({"nodes": [], "edges": []}, r"no node"),
            ({"nodes": [0], "edges": [[0, 1]]}, r"names node 1"),
            ({"nodes": [0, 1], "edges": [[0.5, 1.0]]}, r"expected integers"),
            ({"nodes": [[0, 1]], "edges": []}, r"2 columns"),
            ({"nodes": [-1], "edges": []}, r"category -1"),
            ({"node_values": [[NAN]], "edges": []}, r"NaN"),
            (7, r"cannot read int"),
        ],
        [({"nodes": [1], "edges": []}, 1), ({"nodes": [1], "edges": [[0, 0]]}, 2)],
        [({"node_columns": [1], "identifiers": 2}, ring(n), {"nodes": n, "edges": n}) for n in (3, 5, 7)],
    )


def points() -> Examples:
    rng = np.random.default_rng(0)
    small = {"groups": 7, "size": 3, "hidden": 4}
    return Examples(
        {"groups": 5, "size": 3, "hidden": 4},
        [rng.normal(size=(40, 3)), rng.normal(size=(2, 3))],
        [
            (np.zeros((0, 3)), r"no points"),
            (np.zeros((5, 2)), r"expected \(n, 3\)"),
            (np.full((5, 3), NAN), r"NaN"),
            (cut_npy(), r"cut\.npy.*not readable"),
        ],
        [(np.zeros((1, 3)), 1), (np.ones((40, 3)), 1)],  # the second: all in one place
        [
            *((small, rng.random((50, 3))[rng.integers(0, 50, 20) % d], {"distinct": d}) for d in (1, 5)),
            (small, rng.random((90, 3)), {"distinct": 90}),
        ],
    )
