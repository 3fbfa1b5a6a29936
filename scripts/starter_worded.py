"""Sets with few classes as things and sentences, for the starter's shards: land from above, chests, low-poly models.

Land and chests are pictures, models clouds of points. Validation is a tenth of a set's training split.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from generalist.data.base.errors import UserError
from generalist.data.stream.order import permutation
from generalist.data.stream.source import Record
from scripts.starter_drawn import Grey, bands

HELD = 0.1  # of the training split, for validation
CHESTS = {"normal": "an X-ray picture of a healthy chest", "pneumonia": "an X-ray picture of a chest with pneumonia"}
Splits = dict[str, list[Record]]


def png(pixels: np.ndarray) -> bytes:
    """uint8 [h, w] or [3, h, w] as the bytes of a picture."""
    buffer = io.BytesIO()
    Image.fromarray(pixels if pixels.ndim == 2 else pixels.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def apart(name: str, rows: list[Record], test: list[Record]) -> Splits:
    """A tenth of the rows, drawn by the set's name, is validation."""
    held = set(permutation(0, name, 0, len(rows))[: int(HELD * len(rows))].tolist())
    parts: Splits = {"train": [], "val": [], "test": test}
    for i, row in enumerate(rows):
        parts["val" if i in held else "train"].append(row)
    return parts


def opened(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UserError(f"no {path}; give --with the folder that holds it")
    with np.load(path) as held:
        return {name: held[name] for name in held}


def land(data: Path) -> Splits:
    """landsat_multispectral/ in the colours in which it is measured (`scripts.starter_drawn`)."""
    held = opened(data / "landsat_multispectral" / "landsat.npz")
    cells = np.concatenate([bands(cube).reshape(3, -1) for cube in held["x_train"]], axis=1)
    grey = Grey(cells.mean(1), cells.std(1) + 1e-6)

    def rows(split: str) -> list[Record]:
        names = [f"a satellite picture of {held['class_names'][y]}" for y in held[f"y_{split}"]]
        drawn = (png(grey(bands(cube))) for cube in held[f"x_{split}"])
        return [
            {"id": f"{split}/{i}", "image": image, "text": text}
            for i, (image, text) in enumerate(zip(drawn, names, strict=True))
        ]

    return apart("land", rows("train"), rows("test"))


def chests(data: Path) -> Splits:
    """pneumonia_xray28/; its val split is the test."""
    held = opened(data / "pneumonia_xray28" / "pneumonia28.npz")

    def rows(split: str) -> list[Record]:
        names = (CHESTS[str(held["class_names"][y])] for y in held[f"y_{split}"])
        pairs = enumerate(zip(held[f"x_{split}"], names, strict=True))
        return [{"id": f"{split}/{i}", "image": png(image), "text": text} for i, (image, text) in pairs]

    return apart("chests", rows("train"), rows("val"))


def models(data: Path) -> Splits:
    """lowpoly_points/: a cloud, its kind and its name."""
    held = opened(data / "lowpoly_points" / "points.npz")
    kinds = [str(name).replace("_", " or ") for name in held["class_names"]]

    def rows(split: str) -> list[Record]:
        found = zip(held[f"points_{split}"], held[f"label_{split}"], held[f"name_{split}"], strict=True)
        return [
            {"id": str(name), "points": cloud.astype(np.float32), "text": f"{kinds[y]}, {called(str(name))}"}
            for cloud, y, name in found
        ]

    return apart("models", rows("train"), rows("test"))


def called(name: str) -> str:
    """pack/Couch_Large3 -> couch large"""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name.rpartition("/")[2])
    return " ".join(words).lower()


WORDED: dict[str, tuple[str, Callable[[Path], Splits]]] = {
    "land": ("landsat_multispectral", land),
    "chests": ("pneumonia_xray28", chests),
    "models": ("lowpoly_points", models),
}
