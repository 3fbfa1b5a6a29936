"""Examples of the modalities of pictures, spectra and clips (`generalist.tokenizers_mod.base.examples`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from generalist.tokenizers_mod.base.examples import INF, NAN, Examples, cut_npy, cut_png, png_of

SMALL = {"size": 16, "patch": 8}
# settings and pixels of pictures whose tokens are counted
COUNTED = ((32, 8, 20, 40), (64, 16, 7, 5), (24, 8, 1, 1), (48, 16, 300, 2), (32, 4, 31, 33))


def unreadable() -> list[tuple[Any, str]]:
    """What no modality of pictures takes."""
    return [
        (np.full((4, 4), NAN), r"NaN|missing"),
        ("no such file.png", r"cannot be read|no such file"),
        (cut_png(), r"cut\.png.*complete"),
        (png_of(11000, 11000), r"11000 x 11000.*over"),
        (png_of(60000, 60000), r"bomb60000.*(over|exceeds)"),
    ]


def picture(good: list[Any], *bad: tuple[Any, str]) -> Examples:
    """Of a modality of one picture: `good` and `bad` are its own."""
    rng = np.random.default_rng(0)
    counted = [({"size": s, "patch": p}, rng.random((h, w)) + 0.1, {"H": h, "W": w}) for s, p, h, w in COUNTED]
    return Examples(
        SMALL,
        good,
        [(np.zeros((0, 5)), r"at least one pixel|expected depths"), *unreadable(), *bad],
        [(np.full((1, 1), 0.5), 4)],  # stretched to 16 x 16
        counted,
    )


def image() -> Examples:
    rng = np.random.default_rng(0)
    good = [rng.random((20, 33)), rng.random((7, 5)), rng.random((1, 1))]
    infinite = (np.full((4, 4), INF), r"infinite|missing")
    return picture(good, infinite, (np.zeros((2, 5, 6)), r"2 channels given"), (object(), r"image"))


def xray() -> Examples:
    rng = np.random.default_rng(0)
    return picture([rng.integers(0, 4096, (30, 20)), rng.random((5, 5))])


def thermal() -> Examples:
    rng = np.random.default_rng(0)
    good = [rng.normal(20, 5, (12, 16)), rng.normal(90, 5, (3, 2))]
    return picture(good, (np.full((4, 4), INF), r"infinite|missing"), (np.zeros((4, 4, 3)), r"one channel"))


def depth() -> Examples:
    rng = np.random.default_rng(0)
    good = [rng.uniform(0.5, 5, (12, 16)), np.pad(rng.random((6, 6)), ((0, 0), (6, 0)))]
    none, three = (np.zeros((4, 4)), r"every depth is missing"), (np.ones((4, 4, 3)), r"expected depths")
    return picture(good, none, three)


def spectral() -> Examples:
    rng = np.random.default_rng(0)
    counted = [
        (settings, rng.random((h, w, settings["bands"])), {"H": h, "W": w})
        for h, w, settings in (
            (7, 2, {"bands": 5, "patch": 3}),
            (3, 3, {"bands": 10, "patch": 3, "group": 4}),
            (2, 5, {"bands": 11, "patch": 3, "group": 3, "stride": 2}),
            (3, 4, {"bands": 7, "patch": 3, "group": 3, "stride": 2, "cyclic": True}),
            (1, 1, {"bands": 4, "patch": 3, "group": 4, "stride": 9}),
        )
    ]
    return Examples(
        {"bands": 5, "patch": 2, "group": 2},
        [rng.normal(size=(3, 5, 5)), rng.normal(size=(1, 1, 5))],
        [
            (np.zeros((0, 4, 5)), r"expected \[H, W, 5\]"),
            (np.zeros((4, 4, 3)), r"expected \[H, W, 5\]"),
            (np.full((4, 4, 5), NAN), r"every value is missing"),
            (np.full((4, 4, 5), INF), r"infinite"),
            ((np.zeros((4, 4, 5)), 9, 0), r"outside the cube"),
            (cut_npy(), r"cut\.npy.*not readable"),
        ],
        [(np.ones((1, 1, 5)), 3), (np.where(np.arange(5) == 2, 1.0, NAN), 1)],  # the second: four bands missing
        counted,
    )


def video(frame: bool = False) -> Examples:
    """frame: those of a modality of single frames."""
    rng = np.random.default_rng(0)
    clips: tuple[tuple[int, dict[str, int]], ...] = (
        (1, {}),
        (5, {"frames": 5}),
        (12, {"frames": 5, "tubelet": 2}),
        (7, {"frames": 0, "tubelet": 3}),
        (30, {"frames": 8, "sample": 4}),
    )
    return Examples(
        {**SMALL, "frames": 5},
        [rng.random((20, 33, 3))] if frame else [rng.random((5, 16, 20, 3)), rng.random((2, 30, 30, 3))],
        [
            *unreadable(),
            (np.zeros((0, 5, 5, 3)), r"no frame"),
            ([np.zeros((4, 4)), np.zeros((4, 5))], r"differ in size"),
        ],
        [(np.zeros((1, 1, 1, 3)), 4)],
        [({**SMALL, **more}, np.zeros((t, 9, 12, 3)), {"T": t}) for t, more in clips],
    )
