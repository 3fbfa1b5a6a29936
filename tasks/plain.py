"""Ordinary features of any raw value, fitted on training records: for baselines of inputs without an extractor.

What a value is decides, not which task or modality it belongs to: words, pictures and clips, sound, graphs, points,
signals, table rows. All features are small and old on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from data.source import Records


def plain_features(train: Records, others: list[Records], names: list[str]) -> list[np.ndarray]:
    """Features of the named fields side by side, [n, d] for train and each of the others."""
    parts: list[list[np.ndarray]] = [[] for _ in range(1 + len(others))]
    for name in names:
        columns = [[records[i][name] for i in range(len(records))] for records in (train, *others)]
        extract = _extractor(columns[0])
        for part, column in zip(parts, columns, strict=True):
            part.append(extract(column))
    return [np.nan_to_num(np.concatenate(part, axis=1)) for part in parts]


def _extractor(values: list[Any]) -> Callable[[list[Any]], np.ndarray]:
    first = next(v for v in values if v is not None)
    if isinstance(first, str):
        return _words(values)
    if hasattr(first, "convert"):
        return lambda column: np.stack([_picture(v) for v in column])
    if isinstance(first, dict) and "array" in first:
        return lambda column: np.stack([_sound(np.asarray(v["array"], dtype=float)) for v in column])
    if isinstance(first, dict) and "edges" in first:
        most = max(int(np.max(v["nodes"])) + 1 for v in values) if "nodes" in first else 0
        return lambda column: np.stack([_graph(v, most) for v in column])
    if isinstance(first, dict):
        return _rows(values)
    array = np.asarray(first)
    if array.ndim == 4:  # a clip: its middle frame and its mean movement, coarse
        return lambda column: np.stack([_clip(np.asarray(v, dtype=float)) for v in column])
    if array.ndim == 2 and array.dtype.kind == "f" and array.shape[1] <= 16:  # [t, channels], lengths may differ
        return lambda column: np.stack([_signal(np.asarray(v, dtype=float)) for v in column])
    if array.ndim in (1, 2, 3) and len({np.shape(v) for v in values}) == 1:
        return lambda column: np.stack([np.asarray(v, dtype=float).ravel() for v in column])
    return lambda column: np.stack([_signal(np.atleast_2d(np.asarray(v, dtype=float))) for v in column])


def _words(values: list[str]) -> Callable[[list[Any]], np.ndarray]:
    """TF-IDF of words and pairs of words; of texts that are single words (SMILES strings), counts of 1 to 3 letters."""
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

    if not any(" " in value.strip() for value in values):
        letters = CountVectorizer(analyzer="char", lowercase=False, ngram_range=(1, 3), max_features=500).fit(values)
        return lambda column: letters.transform(column).toarray().astype(float)
    words = TfidfVectorizer(token_pattern=r"(?u)\w+", ngram_range=(1, 2), max_features=1500, sublinear_tf=True)
    words.fit(values)
    return lambda column: words.transform(column).toarray()


def _picture(picture: Any) -> np.ndarray:
    return np.asarray(picture.convert("RGB").resize((16, 16)), dtype=float).ravel() / 255


def _clip(clip: np.ndarray) -> np.ndarray:
    grey = clip.mean(-1) / 255 if clip.shape[-1] in (1, 3, 4) else clip.mean(1) / 255
    t, h, w = grey.shape
    grey = grey[:, : h // 8 * 8, : w // 8 * 8].reshape(t, h // 8, 8, w // 8, 8).mean((2, 4))
    return np.concatenate([grey.ravel(), np.abs(np.diff(grey, axis=0)).ravel()])


def _sound(wave: np.ndarray, frame: int = 256, bands: int = 32) -> np.ndarray:
    if len(wave) < 4 * frame:  # four quarters need a frame each
        wave = np.pad(wave, (0, 4 * frame - len(wave)))
    frames = np.lib.stride_tricks.sliding_window_view(wave, frame)[:: frame // 2] * np.hanning(frame)
    power = np.abs(np.fft.rfft(frames, axis=1)[:, 1:]) ** 2
    level = np.log(power.reshape(len(frames), bands, -1).mean(2) + 1e-10)
    quarters = [q.mean(0) for q in np.array_split(level, 4)]
    return np.concatenate([level.mean(0), level.std(0), *quarters])


def _signal(value: np.ndarray) -> np.ndarray:
    """Moments and eight spectral bands of every channel of [t, channels]."""
    value = np.where(np.isnan(value), np.nanmean(value, axis=0), value)
    power = np.abs(np.fft.rfft(value - value.mean(0), axis=0))
    bands = [b.mean(0) if len(b) else np.zeros(value.shape[1]) for b in np.array_split(power, 8)]
    moments = [value.mean(0), value.std(0), value.min(0), value.max(0), *np.quantile(value, [0.25, 0.5, 0.75], axis=0)]
    return np.concatenate([*moments, *np.log1p(bands)])


def _graph(graph: dict[str, Any], most: int) -> np.ndarray:
    """Node categories, degrees and sizes; the asked node's own numbers and the mean of its surroundings."""
    edges = np.asarray(graph["edges"]).reshape(-1)
    nodes = np.asarray(graph["nodes"]) if "nodes" in graph else np.zeros(0, dtype=int)
    values = np.asarray(graph.get("node_values", np.zeros((1, 0))))
    count = max(len(nodes), len(values), 1)
    degree = np.bincount(edges.astype(int), minlength=count)
    labels = np.bincount(nodes.ravel(), minlength=most)[:most] if len(nodes) else np.zeros(most)
    degrees = np.bincount(np.minimum(degree, 15), minlength=16)
    own = values[graph.get("center", 0)]
    return np.concatenate([labels, degrees, degrees / count, [count, len(edges)], own, values.mean(0)])


def _rows(values: list[dict[str, Any]]) -> Callable[[list[Any]], np.ndarray]:
    """Numbers as they are (missing = mean), words one-hot by what training rows hold."""
    numeric, words = {}, {}
    for name in values[0]:
        present = [row[name] for row in values if row[name] is not None]
        if all(isinstance(v, int | float) for v in present):
            numeric[name] = float(np.mean(present))
        else:
            words[name] = {word: i for i, word in enumerate(sorted(set(map(str, present))))}

    def extract(column: list[Any]) -> np.ndarray:
        out = [[mean if row[n] is None else float(row[n]) for row in column] for n, mean in numeric.items()]
        parts = [np.array(out).T.reshape(len(column), -1)]
        for name, index in words.items():
            hot = np.zeros((len(column), len(index)))
            for i, row in enumerate(column):
                if str(row[name]) in index:
                    hot[i, index[str(row[name])]] = 1
            parts.append(hot)
        return np.concatenate(parts, axis=1)

    return extract
