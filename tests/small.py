"""Small records of every kind, and the modalities that read them: what the tests of tasks and runs share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from generalist.data.stream.source import Records
from generalist.recipe.recipe import Recipe
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.modalities import build_modalities

COLOURS = ["red", "green", "blue"]


@dataclass
class Listed:
    """Records given in the recipe itself; val and test are those of train unless given."""

    rows: dict[str, list[dict[str, Any]]]
    info: dict[str, Any] = field(default_factory=dict)

    def open(self, split: str) -> Records:
        return Records(self.rows.get(split, self.rows["train"]), dict(self.info))


def modalities(**more: dict[str, Any]) -> dict[str, Modality]:
    """The modalities that the small tasks need, each as small as it gets."""
    settings = {
        "summary": {},
        "text": {"tokenizer": "clip", "max_length": 16, "positions": 16},
        "table": {},
        "number": {},
        "series": {"patch": 4},
        "slot": {"patch": 4},
    }
    return build_modalities(settings | more)


def shrink(recipe: Recipe, tasks: tuple[str, ...], layers: int, batch: int, steps: int) -> None:
    """A published recipe at a size that a test can train: only these tasks, short texts, width 24, in place."""
    recipe.tasks = [task for task in recipe.tasks if task.name in tasks]
    for task in recipe.tasks:
        task.batch = batch
        if hasattr(task, "max_length"):
            task.max_length = 12
    spec = recipe.model
    spec.width, spec.layers, spec.heads, spec.hidden = 24, layers, 2, 36
    spec.moe.experts = 3
    recipe.steps, recipe.workers, recipe.engine.precision, recipe.checkpoint.every = steps, 0, "fp32", 0
    recipe.optimizer.warmup, recipe.engine.device, recipe.engine.threads = 2, "cpu", 1
