"""Simple features of one value each, for the ordinary baselines; old and small on purpose."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d

from generalist.data.stream.source import Records

SIDE = 16  # pictures of unequal or large sizes are averaged to this many cells a side
SMALL = 1024  # pixels up to which a picture is kept as it is


def values(records: Records, name: str) -> list[Any]:
    """One field of all records."""
    return [records[i][name] for i in range(len(records))]


def pixels(picture: np.ndarray) -> np.ndarray:
    """[C, H, W] as it is while it is small, else averaged to [C, 16, 16]."""
    picture = np.asarray(picture, dtype=np.float32)
    return picture if picture.shape[1] * picture.shape[2] <= SMALL else cells(picture, SIDE)


def cells(picture: np.ndarray, side: int) -> np.ndarray:
    """[C, H, W] averaged to [C, side, side]."""
    return adaptive_avg_pool2d(torch.as_tensor(np.asarray(picture, dtype=np.float32)), side).numpy()


def coloured(picture: np.ndarray) -> np.ndarray:
    """[C, H, W] of any number of channels -> [3, 16, 16]."""
    three = picture[:3] if len(picture) >= 3 else np.repeat(picture[:1], 3, axis=0)
    return cells(three, SIDE)


def log_spectrum(wave: np.ndarray, frame: int = 256, bands: int = 32) -> np.ndarray:
    """Mean and standard deviation over time of the log power in `bands` equal bands: [2 * bands]."""
    wave = np.asarray(wave, dtype=float)
    if wave.ndim == 2:  # the shorter axis is the channels
        wave = wave.mean(int(np.argmin(wave.shape)))
    wave = np.pad(wave, (0, max(0, frame - len(wave))))
    frames = np.lib.stride_tricks.sliding_window_view(wave, frame)[:: frame // 2] * np.hanning(frame)
    power = np.abs(np.fft.rfft(frames, axis=1)[:, 1:]) ** 2
    banded = np.log(power.reshape(len(frames), bands, -1).mean(2) + 1e-10)
    return np.concatenate([banded.mean(0), banded.std(0)])


def shape_histogram(cloud: np.ndarray, bins: int = 16) -> np.ndarray:
    """How a cloud [n, 3 or more] is spread, whatever its pose and size: [2 * bins + 3].

    Histograms of the distances to the centre and between pairs of points (the D2 shape distribution,
    Osada et al. 2002), and the relative lengths of the principal axes.
    """
    points = np.asarray(cloud, dtype=float)[:, :3]
    points = points - points.mean(0)
    points /= np.sqrt((points**2).sum(1).mean()) or 1.0
    far = np.linalg.norm(points, axis=1)
    half = len(points) // 2
    between = np.linalg.norm(points[:half, None] - points[None, half:], axis=2)
    pairs = max(between.size, 1)
    parts = [np.histogram(far, bins=bins, range=(0, 2.0))[0] / far.size]
    parts += [np.histogram(between, bins=bins, range=(0, 3.5))[0] / pairs]
    axes = np.linalg.svd(points, compute_uv=False) / np.sqrt(len(points))
    return np.concatenate([*parts, np.pad(axes, (0, 3 - len(axes)))])


def clip(frames: np.ndarray) -> np.ndarray:
    """Four frames of [T, C, H, W] (or [T, H, W, C]) in grey, coarse, and how they change."""
    grey = frames.mean(-1) if frames.shape[-1] in (1, 3, 4) else frames.mean(1)
    chosen = grey[np.linspace(0, len(grey) - 1, 4).astype(int)]
    coarse = cells(chosen / 255, 8)
    return np.concatenate([coarse.ravel(), np.abs(np.diff(coarse, axis=0)).ravel()])


def signal(value: np.ndarray) -> np.ndarray:
    """Moments and eight spectral bands of every channel of [t, channels]."""
    value = value.reshape(len(value), -1).astype(float)
    value = np.where(np.isnan(value), np.nan_to_num(np.nanmean(value, axis=0)), value)
    power = np.abs(np.fft.rfft(value - value.mean(0), axis=0))
    bands = [b.mean(0) if len(b) else np.zeros(value.shape[1]) for b in np.array_split(power, 8)]
    moments = [value.mean(0), value.std(0), value.min(0), value.max(0), *np.quantile(value, [0.25, 0.5, 0.75], axis=0)]
    return np.concatenate([*moments, *np.log1p(bands)])


def graph(value: dict[str, Any], most: int) -> np.ndarray:
    """Node categories, degrees and sizes; the asked node's own numbers and the mean of its surroundings."""
    edges = np.asarray(value["edges"]).reshape(-1)
    nodes = np.asarray(value["nodes"]) if "nodes" in value else np.zeros(0, dtype=int)
    numbers = np.asarray(value.get("node_values", np.zeros((1, 0))))
    count = max(len(nodes), len(numbers), 1)
    degree = np.bincount(edges.astype(int), minlength=count)
    labels = np.bincount(nodes.ravel(), minlength=most)[:most] if len(nodes) else np.zeros(most)
    degrees = np.bincount(np.minimum(degree, 15), minlength=16)
    own = numbers[value.get("center", 0)]
    return np.concatenate([labels, degrees, degrees / count, [count, len(edges)], own, numbers.mean(0)])
