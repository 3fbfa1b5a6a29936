"""What an ordinary method makes of the icons: oriented gradients, ridge regression, TF-IDF of the names."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from generalist.data.sources.shards import Shards
from scripts.starter_unseen import DRAWS, NAMES, column, drawn, spread

CELL, BINS, SIDE = 4, 9, 32
STRENGTHS = (1.0, 10.0, 100.0)
WORDS = 8000


def gradients(picture: Any) -> np.ndarray:
    """Histograms of oriented gradients (Dalal and Triggs 2005, unsigned, one norm a picture): Float[8 * 8 * 9]."""
    from PIL import Image

    opened = Image.open(io.BytesIO(picture)) if isinstance(picture, bytes) else picture
    grey = np.asarray(opened.convert("L").resize((SIDE, SIDE)), dtype=np.float32) / 255
    down, right = np.gradient(grey)
    strength = np.hypot(down, right)
    turn = np.minimum((np.arctan2(down, right) % np.pi / np.pi * BINS).astype(int), BINS - 1)
    rows, columns = np.indices(grey.shape) // CELL
    cells = SIDE // CELL
    found = np.bincount(((rows * cells + columns) * BINS + turn).ravel(), strength.ravel(), cells * cells * BINS)
    return np.sqrt(found / max(float(np.linalg.norm(found)), 1e-6)).astype(np.float32)


def described(pictures: Iterable[Any]) -> np.ndarray:
    return np.stack([gradients(picture) for picture in pictures])


def ordinary(sets: Path) -> list[dict[str, Any]]:
    """Ridge regression from gradients to TF-IDF of the names, its strength chosen on validation icons: R@1 and R@5."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    parts = {split: Shards(str(sets / "icons")).open(split) for split in ("train", "val", "test")}
    words = TfidfVectorizer(
        token_pattern=r"(?u)\w+", ngram_range=(1, 2), min_df=2, max_features=WORDS, dtype=np.float32
    )
    names = {split: column(records, "text") for split, records in parts.items()}
    y = words.fit_transform(names["train"])
    x = {split: described(column(records, "image")) for split, records in parts.items()}
    mean = x["train"].mean(0)
    centred = {split: np.hstack([value - mean, np.ones((len(value), 1), np.float32)]) for split, value in x.items()}
    gram = centred["train"].T @ centred["train"]
    cross = (y.T @ centred["train"]).T
    best: tuple[float, np.ndarray] | None = None
    for strength in STRENGTHS:
        matrix = np.linalg.solve(gram + strength * np.eye(len(gram), dtype=np.float32), cross)
        chosen = drawn(names["val"], 0)
        value = found(centred["val"] @ matrix, words, names["val"], chosen, 1)
        if best is None or value > best[0]:
            best = value, matrix
    assert best is not None
    told = centred["test"] @ best[1]
    lines = []
    for k in (1, 5):
        values = [found(told, words, names["test"], drawn(names["test"], seed), k) for seed in range(DRAWS)]
        lines.append({"what": "icons of unseen sets", "measure": f"R@{k} of {NAMES}", "value": spread(values)})
    return lines


def found(told: np.ndarray, words: Any, names: list[str], chosen: list[int], k: int) -> float:
    """Share of the chosen pictures whose name is among the k likest; of equals all but the right one count as liker."""
    asked = words.transform([names[i] for i in chosen])  # rows of length 1, or of zeros where no word is known
    scores = np.asarray(asked @ told[chosen].T).T
    own = np.diag(scores)[:, None]
    return float((((scores >= own).sum(1) - 1) < k).mean())
