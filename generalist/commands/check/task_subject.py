"""The task that is checked: bound to fresh modalities, its records, examples and features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from generalist.commands.check.lines import Fault
from generalist.data.batch.types import Example
from generalist.data.stream.source import Record
from generalist.evaluate.answer import examples_of
from generalist.hf.model import GeneralistModel
from generalist.recipe.recipe import Recipe
from generalist.recipe.specs import ModelSpec
from generalist.tasks.base.examples import TaskExamples
from generalist.tasks.base.stand_ins import StandIn
from generalist.tasks.base.task import Task
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.modalities import build_modalities, modality_class
from generalist.train.prepare import prepare


class Subject:
    """A task under test, bound to its modalities, with a few records and a model of two layers."""

    def __init__(self, task: Task, modalities: dict[str, Modality], bad: Sequence[tuple[Record, str]] = ()) -> None:
        self.recipe = Recipe(
            name="check",
            about="one task",
            steps=1,
            modalities=modalities,
            tasks=[task],
            model=ModelSpec(width=32, layers=2, heads=2, hidden=48),
        )
        self.task, self.bad = task, bad
        self.prepared = prepare(self.recipe)
        self.objective = self.prepared.objective(self.recipe).eval()
        self.model: GeneralistModel = cast(GeneralistModel, self.objective.model)
        self.records = self.prepared.records[task.name].spread(MOST)
        self.rows = [self.records[i] for i in range(len(self.records))]

    @classmethod
    def of(cls, kind: type[Task]) -> Subject:
        """A class with its examples."""
        found = TaskExamples(*kind.examples())
        if len(found.good) < 2:
            raise Fault(
                f"{kind.__name__}.examples() gives {len(found.good)} good records; return (settings, good, bad), "
                "or name a file with a function `recipe`"
            )
        task = kind(name="checked", source=StandIn(list(found.good), dict(found.info)), **found.settings)
        return cls(task, _modalities(task, found.modalities), found.bad)

    def examples(self) -> list[Example]:
        return [
            example for i in range(len(self.records)) for example in examples_of(self.task, self.records, i, [None])
        ]

    @torch.no_grad()
    def features(self, examples: list[Example]) -> Tensor:
        """f at the asked tokens of a batch, then of its partners'."""
        batch = self.task.collate(examples)
        partners = [] if batch.partners is None else [self.model.features(batch.partners, candidate=True)]
        return torch.cat([self.model.features(batch.inputs), *partners])


def _modalities(task: Task, given: Mapping[str, Any]) -> dict[str, Modality]:
    """Those given, and of the task's inputs, the summary and texts those that are not, as small as they get."""
    settings = {name: m for name, m in given.items() if not isinstance(m, Modality)}
    for name in ("summary", "text", *task.inputs):
        if name not in given:
            settings[name] = dict(modality_class(name).examples().settings)
    built = build_modalities(settings) | {name: m for name, m in given.items() if isinstance(m, Modality)}
    order = dict.fromkeys(("summary", "text", *given, *built))
    return {name: built[name] for name in order}


MOST = 8  # records that are looked at
