"""Examples of the modalities of numbers and series (`generalist.tokenizers_mod.base.examples`)."""

from __future__ import annotations

import numpy as np

from generalist.tokenizers_mod.base.examples import INF, NAN, Examples, cut_npy


def number() -> Examples:
    return Examples(
        {},
        [[-1.0, 2.0], [0.5], 7.0],
        [([], r"no values"), ([NAN], r"NaN"), ("many", r"not a list of numbers"), ([1e9], r"standardise")],
        [(0.0, 1)],
        [({}, [0.5, 1.5, -1.0], {"k": 3})],
    )


def series() -> Examples:
    rng = np.random.default_rng(0)
    return Examples(
        {"patch": 4},
        [rng.normal(size=19), np.array([1.0, np.nan, 3.0])],
        [
            (np.zeros(0), r"at least one step"),
            (np.full(9, NAN), r"missing"),
            (np.full(9, INF), r"infinite"),
            (["a", "b"], r"not an array of numbers"),
            (cut_npy(), r"cut\.npy.*not readable"),
        ],
        [(np.zeros(1), 1), (np.where(np.arange(9) == 8, 5.0, NAN), 1)],
        [({"patch": 8, "context": c}, rng.random(t), {"t": t}) for t, c in ((1, 0), (19, 0), (90, 40))],
    )


def variates() -> Examples:
    rng = np.random.default_rng(0)
    gap = rng.normal(size=(9, 2))
    gap[:4, 1] = NAN
    return Examples(
        {"context": 8},
        [rng.normal(size=(19, 3)), gap, rng.normal(size=5)],
        [
            (np.zeros((0, 2)), r"at least one step"),
            (np.full((9, 2), NAN), r"no value of variate 0"),
            (np.full((9, 2), INF), r"infinite"),
            (["a", "b"], r"not an array of numbers"),
            (cut_npy(), r"cut\.npy.*not readable"),
        ],
        [(np.zeros((1, 1)), 1)],
        [({"context": 8}, rng.random((t, v)), {"variates": v}) for t, v in ((3, 1), (19, 4))],
    )


def slot() -> Examples:
    return Examples(
        {"patch": 3},
        [7, 2],
        [(0, r"at least 1"), ([], r"expected \[horizon\]"), ([1.0, INF], r"infinite")],
        [(1, 1)],
        [({"patch": 5}, horizon, {"horizon": horizon}) for horizon in (1, 5, 12)],
        elsewhere=["questions."],  # of slots that are asked
    )


def imu() -> Examples:
    rng = np.random.default_rng(0)
    return Examples(
        {"channels": 3, "patch": 4, "rate": 50.0},
        [rng.normal(size=(17, 3)), rng.normal(size=(2, 3))],
        [
            (np.zeros((0, 3)), r"at least one sample"),
            (np.zeros((9, 2)), r"expected \[t, 3\]"),
            (np.full((9, 3), NAN), r"every value is missing"),
            (np.full((9, 3), INF), r"infinite"),
            ((np.zeros((9, 3)), -1.0), r"rate -1"),
            ((np.zeros((9, 3)), NAN), r"rate nan"),
            (cut_npy(), r"cut\.npy.*not readable"),
        ],
        [(np.ones((1, 3)), 1), (np.where(np.arange(27).reshape(9, 3) == 4, 1.0, NAN), 1)],  # the second: one value
        [
            ({"channels": 2, "patch": 8, "window": window}, np.ones((t, 2)), {"t": t})
            for t, window in ((1, 0), (17, 0), (40, 32))
        ],
    )
