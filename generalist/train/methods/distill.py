"""Knowledge distillation within the law: a saved model, frozen, ranks the step's own questions and candidates.

    loss = law + weight * T^2 * KL(teacher || student)        p = softmax(scores / T) over the candidates of the step

Source: 1503.02531, section 2 (T^2 keeps the size of the gradient whatever T is). The teacher reads the student's packed
batch through tokenizers of its own, so what happens before them must be the same in both: sizes of patches, words,
columns; how wide, deep or made of what the two encoders are does not matter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.hf.saved import read_model, weights_hash
from generalist.model.objective import Objective
from generalist.model.ranked import Ranked
from generalist.recipe.recipe import Recipe
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.modalities import modality_settings
from generalist.train.start.initial import initial_folder


class Distill:
    """The method of `distill.*`; the teacher is no part of the objective, so no optimiser or checkpoint holds it."""

    name = "distill"

    def prepare(self, objective: Objective, recipe: Recipe) -> None:
        spec = recipe.distill
        self.weight, self.temperature = spec.weight, spec.temperature
        self.teacher, _ = read_model(initial_folder(Path(spec.teacher), "distill.teacher"))
        self.teacher.requires_grad_(False)
        self._check(objective, recipe)

    def _check(self, objective: Objective, recipe: Recipe) -> None:
        """UserError where the teacher would not read, or could not rank, what the student does."""
        said, config = f"distill.teacher={recipe.distill.teacher!r}", self.teacher.config
        ours, theirs = (settings(model.modalities) for model in (objective.model, self.teacher))
        for name, own in ours.items():
            if name not in theirs:
                raise UserError(f"{said} has no modality {name!r}; leave it out or train a teacher with it")
            kept = theirs[name]
            inner = objective.model.modalities[name].device_keys
            if other := sorted(k for k in {**own, **kept} if own.get(k) != kept.get(k) and k not in inner):
                raise UserError(
                    f"{said}: its modality {name!r} has {other[0]}={brief(kept.get(other[0]))}, the recipe "
                    f"{brief(own.get(other[0]))}; both must cut the same tokens, set modalities.{name}.{other[0]} alike"
                )
        for task in recipe.tasks:
            if task.scale not in self.teacher.log_scales:
                raise UserError(f"{said} has no logit scale {task.scale!r}; set tasks.{task.name}.scale to one it has")
            classes = (config.linear_heads or {}).get(task.scale)
            if classes is not None and task.name in objective.sets and classes != objective.count(task.name):
                raise UserError(
                    f"{said} has a linear head of {classes} classes for {task.scale!r}, task {task.name} has "
                    f"{objective.count(task.name)}; give both the same classes"
                )

    def loss(self, ranked: Ranked) -> Tensor:
        if self.teacher.device != ranked.real.device:
            self.teacher.to(ranked.real.device)
        theirs = ranked.by(self.teacher)
        ways = [
            divergence(teacher, student, self.temperature, ranked.real, ranked.log_weight)
            for teacher, student in zip(theirs, ranked.scores, strict=True)
        ]
        total = sum(ways[1:], ways[0]) / (len(ways) * ranked.ranks)
        return self.weight * self.temperature**2 * total

    def after(self, step: int, applied: bool) -> None:
        """Nothing: the teacher stays as it is."""

    def about(self) -> dict[str, Any]:
        return {"teacher": weights_hash(self.teacher.state_dict())}


def settings(modalities: dict[str, Modality]) -> dict[str, Any]:
    """As a saved model has them: JSON."""
    return json.loads(json.dumps(modality_settings(modalities)))


def brief(value: Any) -> str:
    """A setting in a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def divergence(
    teacher: Tensor, student: Tensor, temperature: float, real: Tensor, log_weight: Tensor | None = None
) -> Tensor:
    """The summed KL(teacher || student) of the rows that are asked: [1]. Scores: Float[... K]; real: Bool[...].

    log_weight: Float[K], of how many members each column of a sample stands for: the denominators count them all.
    """
    p, q = (
        (scores.float() / temperature + (0 if log_weight is None else log_weight)).log_softmax(-1)
        for scores in (teacher, student)
    )
    rows = (p.exp() * (p - q)).sum(-1)
    return rows.where(real, 0.0).sum().reshape(1)
