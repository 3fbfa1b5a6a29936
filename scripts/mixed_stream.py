"""Five modalities of samples of many lengths as shards, read as a training run reads them: for measures and tests.

Pictures of any shape, texts of 3 to 60 words, sounds of 0.2 to 1.5 s, clouds of 8 to 64 points, rows with holes.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from generalist.data.sources.shards import Shards
from generalist.data.stream.source import Record, Records, Source
from generalist.data.tools.shard_writer import Plan, write_split
from generalist.recipe.recipe import Recipe
from generalist.recipe.specs import ModelSpec
from generalist.tasks.kinds.classify import Classify
from generalist.tokenizers_mod.audio.audio import Audio
from generalist.tokenizers_mod.geometry.points import Points
from generalist.tokenizers_mod.tables.table import Table
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.image import Image
from generalist.train.prepare import Prepared, prepare

CLASSES = ["red", "green", "blue"]
RATE = 8000
WORDS = ["encoder", "token", "sample", "shard", "picture", "sound", "point", "column", "batch", "order", "mask", "step"]


def _picture(rng: np.random.Generator) -> Any:
    from PIL import Image as Pillow

    height, width = rng.integers(16, 65, 2)
    return Pillow.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))


def _text(rng: np.random.Generator) -> str:
    return " ".join(rng.choice(WORDS, rng.integers(3, 61)))


def _sound(rng: np.random.Generator) -> bytes:
    samples = (rng.standard_normal(int(RATE * rng.uniform(0.2, 1.5))) * 3000).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, RATE, len(samples), "NONE", ""))
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def _cloud(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((rng.integers(8, 65), 3)).astype(np.float32)


def _row(rng: np.random.Generator) -> dict[str, float | None]:
    return {f"c{i}": None if rng.random() < 0.3 else float(rng.standard_normal()) for i in range(11)}


KINDS: dict[str, Callable[[np.random.Generator], Any]] = {
    "image": _picture,
    "text": _text,
    "audio": _sound,
    "points": _cloud,
    "table": _row,
}


@dataclass
class Made:
    """So many samples of one of KINDS, each made from its number."""

    kind: str
    samples: int

    def open(self, split: str) -> Records:
        return Records(MadeRows(self.kind, self.samples), {"classes": CLASSES})


class MadeRows(Sequence[Record]):
    def __init__(self, kind: str, samples: int) -> None:
        self.kind, self.samples = kind, samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, number: Any) -> Any:
        if not 0 <= number < self.samples:
            raise IndexError(number)
        rng = np.random.default_rng(number)
        return {"id": f"{self.kind}/{number}", "x": KINDS[self.kind](rng), "label": number % len(CLASSES)}


def write(folder: Path, count: int, per: int) -> None:
    """Shards of `count` samples of every kind, `per` a shard, in folder/KIND."""
    for kind in KINDS:
        write_split(Plan(Made(kind, count), "train", folder / kind, per))


def opened(sources: dict[str, Source], batch: int, seed: int = 0) -> tuple[Recipe, Prepared]:
    """A run over these sources, one a kind: every step is a batch of one of them."""
    recipe = Recipe(
        name="mixed_stream",
        about="five modalities",
        steps=100,
        seed=seed,
        modalities={
            "summary": Summary(),
            "text": Text(max_length=96, positions=96),
            "image": Image(size=64, patch=8, channels=3),
            "audio": Audio(rate=RATE, mels=40, patch=[40, 4], stride=[40, 4]),
            "points": Points(groups=64, size=8, hidden=16, rotate=True),
            "table": Table(),
        },
        tasks=[Classify(name=k, source=s, inputs={k: "x"}, batch=batch) for k, s in sources.items()],
        model=ModelSpec(width=32, layers=1, heads=2, hidden=64),
    )
    return recipe, prepare(recipe)


def local(folder: Path, window: int = 4, lanes: int = 1) -> dict[str, Source]:
    """The written shards as sources."""
    return {kind: Shards(str(folder / kind), window=window, lanes=lanes) for kind in KINDS}
