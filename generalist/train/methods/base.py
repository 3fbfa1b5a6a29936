"""`Method`: a training that adds to the law's loss, and how a run carries one."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from generalist.model.objective import Objective
from generalist.model.ranked import Ranked
from generalist.recipe.recipe import Recipe


@runtime_checkable
class Method(Protocol):
    """What a step adds to the law. name: under which log.jsonl has the mean of what was added, an answer.

    Its state is a function of the recipe and the step alone, so that a resumed run is the run that never stopped.
    """

    name: str

    def prepare(self, objective: Objective, recipe: Recipe) -> None:
        """Before the first step, also of a resume. UserError where it cannot work with this model."""
        ...

    def loss(self, ranked: Ranked) -> Tensor | None:
        """What is added to the summed loss of a micro step, weighted: [1], None for nothing."""
        ...

    def after(self, step: int, applied: bool) -> None:
        """Behind every step; applied: whether the weights moved."""
        ...

    def about(self) -> dict[str, Any]:
        """JSON of what a resume must find as it was."""
        ...


class Added:
    """A method at work: the objective asks it in every training pass; what it added is told apart from the law's."""

    def __init__(self, method: Method, objective: Objective) -> None:
        self.method, self._sum = method, torch.zeros(1)
        objective.extra = self.loss

    def loss(self, ranked: Ranked) -> Tensor | None:
        found = self.method.loss(ranked)
        if found is not None:
            self._sum = self._sum.to(found.device) + found.detach()
        return found

    def take(self) -> Tensor:
        """The sum since it was taken last: [1]."""
        found, self._sum = self._sum, torch.zeros_like(self._sum)
        return found
