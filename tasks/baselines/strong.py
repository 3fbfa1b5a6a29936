"""Features and methods that take more time, for who wants the best ordinary method and not the smallest (`budget`).

Signals by random convolutions (MiniRocket, 2012.08791: 84 kernels of length nine, weights -1 and 2, several dilations,
the share of positive values), sounds by cepstra over time, graphs by counts of neighbourhoods (Weisfeiler-Lehman
subtrees, as circular fingerprints of molecules), single words by counts of letters that trees may use.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from generalist.tasks.baselines import features
from generalist.tasks.baselines.budget import clock

Matrix = Any
LENGTH = 9
PATTERNS = np.array(list(combinations(range(LENGTH), 3)))  # [84, 3], where a kernel's weight is 2
DILATIONS = 6
LONGEST = 512  # steps of a signal that are looked at; longer ones are thinned
ROUNDS, BINS = 3, 512  # of neighbourhoods, and what they are hashed into


# --- signals ---


def standard(value: Any) -> np.ndarray:
    """[t, channels] without gaps, at most LONGEST steps."""
    x = np.asarray(value, dtype=float).reshape(len(value), -1)
    return np.where(np.isnan(x), np.nan_to_num(np.nanmean(x, axis=0)), x)[:: max(1, -(-len(x) // LONGEST))]


def rocket(train: list[np.ndarray]) -> Callable[[list[np.ndarray]], Matrix]:
    """Shares of positive values of random convolutions beside the signals' moments and bands."""
    rng = np.random.default_rng(0)
    channels = train[0].shape[1]
    usual = int(np.median([len(x) for x in train]))
    longest = max(1.0, (usual - 1) / (LENGTH - 1))
    dilations = np.unique(np.geomspace(1, longest, DILATIONS).astype(int))
    chosen = rng.integers(channels, size=(len(dilations), len(PATTERNS)))
    centre = np.mean([x.mean(0) for x in train], axis=0)
    scale = np.mean([x.std(0) for x in train], axis=0) + 1e-9
    some = [train[i] for i in rng.integers(len(train), size=24)]
    level = rng.random((len(dilations), len(PATTERNS)))
    bias = np.zeros(level.shape)
    for at, dilation in enumerate(dilations):
        found = np.concatenate([_convolved((x - centre) / scale, dilation, chosen[at]) for x in some], axis=1)
        bias[at] = [np.quantile(row, q) for row, q in zip(found, level[at], strict=True)]

    def one(x: np.ndarray) -> np.ndarray:
        clock().check()
        z = (x - centre) / scale
        shares = [
            (_convolved(z, dilation, chosen[at]) > bias[at][:, None]).mean(1) for at, dilation in enumerate(dilations)
        ]
        return np.concatenate([*shares, features.signal(x)])

    return lambda column: np.stack([one(x) for x in column])


def _convolved(x: np.ndarray, dilation: int, chosen: np.ndarray) -> np.ndarray:
    """[t, channels] through all kernels, each on its chosen channel: [84, t]."""
    reach = dilation * (LENGTH // 2)
    padded = np.pad(x, ((reach, reach), (0, 0)))
    shifted = np.stack([padded[i * dilation : i * dilation + len(x)] for i in range(LENGTH)])  # [9, t, channels]
    return 3 * sum(shifted[PATTERNS[:, k], :, chosen] for k in range(3)) - shifted.sum(0)[:, chosen].T


# --- sounds ---


def cepstra(wave: Any, rate: float = 16000.0, bands: int = 40, count: int = 20, parts: int = 4) -> np.ndarray:
    """Cepstra of mel bands: mean, deviation and deviation of the change over time, and means of four parts."""
    from scipy.fft import dct

    x = np.asarray(wave, dtype=float)
    x = x.mean(int(np.argmin(x.shape))) if x.ndim == 2 else x
    size = 512 if rate >= 12000 else 256
    x = np.pad(x, (0, max(0, size * 2 - len(x))))
    frames = np.lib.stride_tricks.sliding_window_view(x, size)[:: size // 2] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    edges = 700 * (10 ** (np.linspace(0, np.log10(1 + rate / 2 / 700), bands + 2)) - 1)
    bins = np.linspace(0, rate / 2, power.shape[1])
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    mel = power @ np.maximum(0, np.minimum(rise, fall)).T
    found = dct(np.log(mel + 1e-10), axis=1, norm="ortho")[:, :count]
    change = np.diff(found, axis=0) if len(found) > 1 else np.zeros_like(found)
    segments = [part.mean(0) if len(part) else found.mean(0) for part in np.array_split(found, parts)]
    return np.concatenate([found.mean(0), found.std(0), change.std(0), *segments])


# --- graphs and molecules ---


def neighbourhoods(value: dict[str, Any]) -> np.ndarray:
    """How often every neighbourhood of up to ROUNDS steps stands in a graph, hashed: log counts [ROUNDS + 1, BINS]."""
    edges = np.asarray(value["edges"]).reshape(-1, 2).astype(int)
    nodes = np.asarray(value.get("nodes", []), dtype=int).ravel()
    count = max(len(nodes), int(edges.max()) + 1 if len(edges) else 1)
    label = [str(v) for v in nodes] if len(nodes) else ["0"] * count
    beside: list[list[int]] = [[] for _ in range(count)]
    for a, b in {(min(pair), max(pair)) for pair in edges.tolist()}:
        beside[a].append(b)
        beside[b].append(a)
    out = np.zeros((ROUNDS + 1, BINS))
    for round_ in range(ROUNDS + 1):
        for word in label:
            out[round_, zlib.crc32(word.encode()) % BINS] += 1
        label = [
            str(zlib.crc32(f"{label[i]}|{','.join(sorted(label[j] for j in beside[i]))}".encode()))
            for i in range(count)
        ]
    return np.log1p(out).ravel()


def letters(values: list[str]) -> Callable[[list[Any]], Matrix]:
    """Counts of one to four letters, as numbers that trees may use."""
    from sklearn.feature_extraction.text import CountVectorizer

    found = CountVectorizer(analyzer="char", lowercase=False, ngram_range=(1, 4), max_features=380).fit(values)
    return lambda column: np.concatenate(
        [found.transform(column).toarray(), [[len(v)] for v in column]], axis=1
    ).astype(float)


# --- methods ---


Listed = list[tuple[str, Callable[[], Any], float]]


def classifiers(x: Matrix, classes: int) -> Listed:
    """(name, maker, work) of more classifiers on dense x [n, d], the cheapest first."""
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    rows, columns = x.shape
    forest = partial(RandomForestClassifier, 300, random_state=0)
    found: Listed = []
    for k in (1, 5):
        near = partial(lambda k: make_pipeline(StandardScaler(), KNeighborsClassifier(k)), min(k, rows // 2 or 1))
        found.append((f"{k} nearest neighbours", near, float(rows) * columns))
    found += [("random forest", forest, 300.0 * rows * np.sqrt(columns) * 12 * np.log2(rows + 1))]
    if columns <= 400:
        trees = partial(
            HistGradientBoostingClassifier, max_iter=300, learning_rate=0.06, early_stopping=True, random_state=0
        )
        many = classes if classes > 2 else 1
        found.append(("slow gradient boosting", trees, 300.0 * many * (8 * x.size + 1e6)))
    for c in (1.0, 10.0):
        svc = partial(lambda c: make_pipeline(StandardScaler(), SVC(C=c)), c)
        found.append((f"kernel support vectors C={c:g}", svc, 0.4 * rows**2 * columns))
    return found


def regressors(x: Matrix) -> Listed:
    """The same for numbers."""
    from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    rows, columns = x.shape
    forest = partial(ExtraTreesRegressor, 300, min_samples_leaf=2, random_state=0)
    trees = partial(
        HistGradientBoostingRegressor, max_iter=300, learning_rate=0.05, early_stopping=True, random_state=0
    )
    found: Listed = [
        ("extra trees", forest, 300.0 * rows * columns * 4 * np.log2(rows + 1)),
        ("slow gradient boosting", trees, 2400.0 * x.size),
    ]
    for c in (1.0, 10.0):
        svr = partial(_scaled_target, partial(lambda c: make_pipeline(StandardScaler(), SVR(C=c)), c))
        found.append((f"kernel support vectors C={c:g}", svr, 0.4 * rows**2 * columns))
    return found


def _scaled_target(make: Callable[[], Any]) -> Any:
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.preprocessing import StandardScaler

    return TransformedTargetRegressor(make(), transformer=StandardScaler())
