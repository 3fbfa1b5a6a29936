"""Digits as they are, and in one corner of a larger picture, so that it is known where the answer stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from generalist.data.sources.embedded import Embedded
from generalist.data.stream.source import Records, Source
from generalist.recipe.recipe import Recipe
from generalist.recipe.specs import ModelSpec, OptimizerSpec
from generalist.tasks.kinds.classify import Classify
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.image import Image

SIZE, BOX, PATCH = 24, 8, 4  # pixels of the canvas, of the digit in its corner, of a token


@dataclass
class Canvas:
    """The digits, each in a corner that its place in the split draws."""

    def open(self, split: str) -> Records:
        held = Embedded("digits").open(split)
        return Records([self.placed(held[i], i) for i in range(len(held))], dict(held.info))

    def placed(self, record: dict[str, Any], number: int) -> dict[str, Any]:
        corner = int(np.random.default_rng(number).integers(4))
        row, column = (SIZE - BOX) * (corner // 2), (SIZE - BOX) * (corner % 2)
        digit = np.asarray(record["image"], float)
        digit = digit[:: len(digit) // BOX, :: len(digit) // BOX]
        whole = np.zeros((SIZE, SIZE), np.float32)
        whole[row : row + BOX, column : column + BOX] = digit / digit.max()
        return {**record, "image": whole, "corner": corner}


def pictures(name: str, source: Source, image: Image, steps: int) -> Recipe:
    """A recipe of one task on digits."""
    task = Classify(name=name, source=source, inputs={"image": "image"}, batch=64)
    modalities = {"summary": Summary(), "text": Text(tokenizer="clip"), "image": image}
    optimizer = OptimizerSpec(kind="adamw", lr=2e-3, weight_decay=0.01, warmup=50)
    made = Recipe(name=name, about="digits", steps=steps, modalities=modalities, tasks=[task], model=ModelSpec())
    made.optimizer = optimizer
    return made


def canvas(steps: int) -> Recipe:
    return pictures("canvas", Canvas(), Image(SIZE, PATCH, 1, mean=0.0), steps)


def digits(steps: int) -> Recipe:
    return pictures("digits", Embedded("digits"), Image(8, 2, 1), steps)
