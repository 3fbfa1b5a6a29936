"""Simple features of raw records, [n, d] float64, for the ordinary baselines; one function a raw kind."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from data.source import Record, Records


def labels(records: Records) -> np.ndarray:
    """The class indices, Int[n]."""
    return np.array([row["label"] for row in _rows(records)])


def targets(records: Records) -> np.ndarray:
    """The values to predict, Float[n]."""
    return np.array([row["target"] for row in _rows(records)], dtype=float)


def pixels(records: Records) -> np.ndarray:
    """Images as rows of pixels in 0..1."""
    return np.stack([np.asarray(row["image"], dtype=float).ravel() / 255 for row in _rows(records)])


def table(records: Records) -> np.ndarray:
    """Table rows as numbers, in the column order of the first row."""
    rows = list(_rows(records))
    columns = list(rows[0]["row"])
    return np.array([[row["row"][column] for column in columns] for row in rows], dtype=float)


def log_spectrum(records: Records, frame: int = 256, bands: int = 32) -> np.ndarray:
    """Mean and standard deviation over time of the log power in `bands` equal bands: [n, 2 * bands]."""
    found = []
    for row in _rows(records):
        audio = np.asarray(row["audio"], dtype=float)
        frames = np.lib.stride_tricks.sliding_window_view(audio, frame)[:: frame // 2] * np.hanning(frame)
        power = np.abs(np.fft.rfft(frames, axis=1)[:, 1:]) ** 2
        banded = np.log(power.reshape(len(frames), bands, -1).mean(2) + 1e-10)
        found.append(np.concatenate([banded.mean(0), banded.std(0)]))
    return np.stack(found)


def shape_histogram(records: Records, bins: int = 16) -> np.ndarray:
    """How a cloud is spread, whatever its pose and size: [n, 2 * bins + 3].

    Histograms of the distances to the centre and between pairs of points (the D2 shape distribution,
    Osada et al. 2002), and the relative lengths of the principal axes.
    """
    found = []
    for row in _rows(records):
        points = np.asarray(row["points"], dtype=float)
        points = points - points.mean(0)
        points /= np.sqrt((points**2).sum(1).mean())
        far = np.linalg.norm(points, axis=1)
        half = len(points) // 2
        between = np.linalg.norm(points[:half, None] - points[None, half:], axis=2)
        parts = [np.histogram(d, bins=bins, range=(0, top))[0] / d.size for d, top in ((far, 2.0), (between, 3.5))]
        found.append(np.concatenate([*parts, np.linalg.svd(points, compute_uv=False) / np.sqrt(len(points))]))
    return np.stack(found)


def _rows(records: Records) -> Iterable[Record]:
    return (records[i] for i in range(len(records)))
