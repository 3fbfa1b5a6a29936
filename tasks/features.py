"""Simple features of raw records, [n, d] float64, for the ordinary baselines; one function a raw kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from data.source import Records


def values(records: Records, name: str) -> list[Any]:
    """One field of all records."""
    return [records[i][name] for i in range(len(records))]


def is_numeric(value: Any) -> bool:
    """Whether a raw value is numbers only: an array, a sound's samples, a row without words and gaps."""
    if isinstance(value, dict) and "array" not in value:
        return all(isinstance(v, int | float | np.number) and v == v for v in value.values())
    return not isinstance(value, str) and not hasattr(value, "convert")


def pixels(records: Records, name: str = "image") -> np.ndarray:
    """Images of one size as rows of pixels in 0..1."""
    return np.stack([np.asarray(image, dtype=float).ravel() / 255 for image in values(records, name)])


def table(records: Records, name: str = "row") -> np.ndarray:
    """Table rows as numbers, in the column order of the first row."""
    rows = values(records, name)
    columns = list(rows[0])
    return np.array([[row[column] for column in columns] for row in rows], dtype=float)


def log_spectrum(records: Records, name: str = "audio", frame: int = 256, bands: int = 32) -> np.ndarray:
    """Mean and standard deviation over time of the log power in `bands` equal bands: [n, 2 * bands]."""
    found = []
    for sound in values(records, name):
        audio = np.asarray(sound["array"], dtype=float)
        frames = np.lib.stride_tricks.sliding_window_view(audio, frame)[:: frame // 2] * np.hanning(frame)
        power = np.abs(np.fft.rfft(frames, axis=1)[:, 1:]) ** 2
        banded = np.log(power.reshape(len(frames), bands, -1).mean(2) + 1e-10)
        found.append(np.concatenate([banded.mean(0), banded.std(0)]))
    return np.stack(found)


def shape_histogram(records: Records, name: str = "points", bins: int = 16) -> np.ndarray:
    """How a cloud is spread, whatever its pose and size: [n, 2 * bins + 3].

    Histograms of the distances to the centre and between pairs of points (the D2 shape distribution,
    Osada et al. 2002), and the relative lengths of the principal axes.
    """
    found = []
    for cloud in values(records, name):
        points = np.asarray(cloud, dtype=float)
        points = points - points.mean(0)
        points /= np.sqrt((points**2).sum(1).mean())
        far = np.linalg.norm(points, axis=1)
        half = len(points) // 2
        between = np.linalg.norm(points[:half, None] - points[None, half:], axis=2)
        parts = [np.histogram(d, bins=bins, range=(0, top))[0] / d.size for d, top in ((far, 2.0), (between, 3.5))]
        found.append(np.concatenate([*parts, np.linalg.svd(points, compute_uv=False) / np.sqrt(len(points))]))
    return np.stack(found)


# modality -> (features, whether boosted trees are tried beside the linear model)
EXTRACTORS: dict[str, tuple[Callable[[Records, str], np.ndarray], bool]] = {
    "image": (pixels, False),
    "audio": (log_spectrum, True),
    "points": (shape_histogram, True),
    "table": (table, True),
}
