"""Whether a model answers a batch rightly, for methods that learn from that alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from generalist.compress.lessons import Lessons
from generalist.data.base.errors import UserError
from generalist.data.batch.types import Batch
from generalist.tasks.candidates.likelihood import asked


class Judged:
    """A model and its lessons. The features of shared candidates are made once: the model is not trained meanwhile."""

    def __init__(self, model: Any, lessons: Lessons) -> None:
        self.model, self.objective = model, lessons.objective(model).eval()
        self.members: dict[str, Tensor] = {}

    def scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """log p of a batch's questions over their candidates, Float[M ... K], and which answers are right.

        The inputs pass through the model last, so that a tap has theirs in hand.
        """
        if batch.partners is not None:
            assert batch.keys is not None
            with torch.no_grad():
                partners = self.model.features(batch.partners, candidate=True)
            right = (batch.keys.unsqueeze(1) == batch.keys.unsqueeze(0)).float()
            return self.model.score(self.model.features(batch.inputs), partners, batch.scale), right
        name = batch.candidates
        assert name is not None
        if batch.inputs.labels is None:
            raise UserError(f"task {batch.task}: its questions are what the model finds; no answer of it can be judged")
        if name not in self.members:
            self.members[name] = self.objective.members(name)
        target = self.objective.sets[name].target(batch.inputs.labels)
        return self.model.score(self.model.features(batch.inputs), self.members[name], batch.scale), target

    def right(self, batch: Batch) -> Tensor:
        """The share of each sequence's questions whose likeliest candidate is a right answer: Float[B]."""
        log_p, target = self.scores(batch)
        best, real = log_p.argmax(-1), asked(target)
        if target.is_floating_point():
            hit = target.nan_to_num().gather(-1, best.unsqueeze(-1)).squeeze(-1) > 0
        else:
            hit = best == target
        hit, real = ((x & real).float().flatten(1).sum(1) if x.ndim > 1 else (x & real).float() for x in (hit, real))
        return mean_of(hit, batch, real)


def mean_of(values: Tensor, batch: Batch, counts: Tensor) -> Tensor:
    """Sums at asked tokens Float[M] over counts there -> means by sequence, Float[B]."""
    inputs = batch.inputs
    sums, many = (
        x.new_zeros(inputs.sequences).index_add(0, inputs.asked_owner, x) for x in (values, counts.to(values.dtype))
    )
    return sums / many.clamp(min=1)
