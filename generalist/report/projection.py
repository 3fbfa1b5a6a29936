"""Two-dimensional maps of the representation space, and what neighbours say in the space itself."""

from __future__ import annotations

import numpy as np

MOST_POINTS = 2000  # t-SNE on more is slow, and a map with more is a blot
FEW_POINTS = 50  # t-SNE on fewer invents clusters


def subsample(group: np.ndarray, most: int = MOST_POINTS, seed: int = 0) -> np.ndarray:
    """Sorted indices of at most `most` rows, each group keeping its share; the same ones every time."""
    n = len(group)
    if n <= most:
        return np.arange(n)
    # Shuffled, then stably sorted by the rank inside the own group (as a fraction): a prefix is stratified.
    order = np.random.default_rng(seed).permutation(n)
    place = np.empty(n)
    for name in np.unique(group):
        rows = order[group[order] == name]
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.sort(order[np.argsort(place[order], kind="stable")][:most])


def pca(features: np.ndarray) -> np.ndarray:
    """float [n, D] → [n, 2]: the two directions of largest variance, with fixed signs."""
    centred = features - features.mean(0, keepdims=True)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    xy = np.zeros((len(features), 2))
    k = min(2, len(s))
    xy[:, :k] = u[:, :k] * s[:k]
    # The sign of a singular vector is arbitrary: the entry of largest size is made positive.
    for axis in range(2):
        if len(xy) and xy[np.abs(xy[:, axis]).argmax(), axis] < 0:
            xy[:, axis] *= -1
    return xy


def project(features: np.ndarray, seed: int = 0) -> tuple[np.ndarray, str]:
    """float [n, D] → ([n, 2], "PCA" or "t-SNE"). PCA for few points or where scikit-learn is not installed."""
    features = np.asarray(features, dtype=np.float64)
    if len(features) < FEW_POINTS:
        return pca(features), "PCA"
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        return pca(features), "PCA"
    start = pca(features)
    if start[:, 0].std() < 1e-9:  # all points coincide: there is nothing to unfold
        return start, "PCA"
    start = start / start[:, 0].std() * 1e-4
    perplexity = min(30.0, (len(features) - 1) / 4)
    tsne = TSNE(n_components=2, perplexity=perplexity, init=start, random_state=seed, learning_rate="auto")
    return tsne.fit_transform(features), "t-SNE"


def neighbour_agreement(features: np.ndarray, names: np.ndarray) -> tuple[float, float]:
    """(how often a point's nearest neighbour by cosine bears the same name, the same expected by chance)."""
    n = len(features)
    if n < 2:
        return float("nan"), float("nan")
    norm = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.maximum(norm, 1e-12)
    similar = unit @ unit.T
    np.fill_diagonal(similar, -np.inf)
    same = float((names[similar.argmax(1)] == names).mean())
    _, counts = np.unique(names, return_counts=True)
    return same, float((counts * (counts - 1)).sum() / (n * (n - 1)))
