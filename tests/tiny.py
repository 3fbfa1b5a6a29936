"""A recipe that trains in a second: two tasks over two modalities, sixteen wide, one layer.

`generalist train tests/tiny.py` runs it; tests import `recipe` and `tiny`.
"""

from __future__ import annotations

from typing import Any

from generalist.data.sources.embedded import Embedded
from generalist.recipe.keys import override
from generalist.recipe.recipe import CheckpointSpec, EngineSpec, Recipe
from generalist.recipe.specs import ModelSpec, OptimizerSpec
from generalist.tasks.kinds.classify import Classify
from generalist.tokenizers_mod.tables.table import Table
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.image import Image


def recipe() -> Recipe:
    return Recipe(
        name="tiny",
        about="two tasks, sixteen wide",
        steps=12,
        modalities={
            "summary": Summary(),
            "text": Text(tokenizer="", learn=300, max_length=8, positions=8),
            "image": Image(size=8, patch=4, channels=1),
            "table": Table(),
        },
        tasks=[
            Classify(name="digits", source=Embedded("digits"), inputs={"image": "image"}, batch=8),
            Classify(name="wine", source=Embedded("wine"), inputs={"table": "row"}, batch=8),
        ],
        model=ModelSpec(width=16, layers=1, heads=2, hidden=24),
        optimizer=OptimizerSpec(lr=1e-2, warmup=2),
        engine=EngineSpec(device="cpu", threads=1),
        checkpoint=CheckpointSpec(every=4, keep=2),
    )


def tiny(**keys: Any) -> Recipe:
    """The recipe with keys changed; "__" stands for the dot: tiny(optimizer__lr=0.1)."""
    made = recipe()
    for key, value in keys.items():
        override(made, f"{key.replace('__', '.')}={value}")
    return made
