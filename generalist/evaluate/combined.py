"""A model together with the ordinary method of its task: p ∝ p_model^a · p_ordinary^b, a and b from validation data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.stream.source import Records
from generalist.evaluate import answer as evaluate
from generalist.evaluate import measures
from generalist.evaluate.unread import Unread
from generalist.model.objective import Objective
from generalist.tasks.base.task import Task
from generalist.tasks.baselines.ordinary import guesses, matched
from generalist.tasks.candidates.names import CandidateSet
from generalist.tasks.measures.lines import Kept, joined

LEAST = 20  # validation answers, below which a and b are not fitted
SHARP = 10.0  # a cosine times this is a score
STARTS = ((1.0, 0.05), (0.05, 1.0), (0.5, 0.5))


@dataclass
class Weights:
    """method: its name; rows: training records that it is fitted on; a, b: the exponents."""

    method: str
    rows: int
    a: float
    b: float

    def join(self, model: Tensor, ordinary: np.ndarray) -> Tensor:
        """log p of both, Float[n K]."""
        return (self.a * model.double() + self.b * torch.from_numpy(ordinary)).log_softmax(-1)


def weights_of(chosen: CandidateSet, model: Tensor, ordinary: np.ndarray, labels: Tensor) -> tuple[float, float]:
    """The a and b, both at least 0, of the least misfit on validation answers. log p: Float[n K] each."""
    other = torch.from_numpy(ordinary)

    def misfit(a: float, b: float) -> float:
        found = chosen.misfit((a * model + b * other).log_softmax(-1), labels)
        assert found is not None
        return float(found)

    return fitted(misfit)


def fitted(misfit: Callable[[float, float], float]) -> tuple[float, float]:
    """The a and b, both at least 0, of the least misfit."""
    from scipy.optimize import minimize

    def of(ab: np.ndarray) -> float:
        return misfit(*(float(v) for v in np.abs(ab)))

    tried = [minimize(of, start, method="Nelder-Mead", options={"maxiter": 120, "xatol": 1e-3}) for start in STARTS]
    a, b = np.abs(min(tried, key=lambda one: one.fun).x)
    return round(float(a), 4), round(float(b), 4)


def _pairs(task: Task, train: Records, told: evaluate.Answers, answers: evaluate.Answers) -> dict[str, Any]:
    """The same of answers that are each other's partners: both directions, over the likeness of a method's guesses."""
    found = matched(task, train, told.records, answers.records)
    if found is None or any(len(a.queries) != len(a.members) for a in (told, answers)):
        raise UserError(f"a {task.kind} is not joined with an ordinary method")
    whole = slice(None)

    def both(part: evaluate.Answers, likeness: np.ndarray) -> list[tuple[Tensor, Tensor, Tensor]]:
        """log p, the method's likeness and which are right, Float[n n] each, forward and backward."""
        like = torch.from_numpy(likeness)
        ways = ((part, like), (part.turned(), like.T))
        return [(one.log_p(whole).double().cpu(), other, one.targets(whole).cpu()) for one, other in ways]

    def misfit(a: float, b: float) -> float:
        logs = [((a * p + b * SHARP * q).log_softmax(-1), right) for p, q, right in both_val]
        return sum(-float(log_p.masked_fill(~right, -torch.inf).logsumexp(-1).mean()) for log_p, right in logs)

    both_val = both(told, found.likeness[0])
    a, b = fitted(misfit)
    parts = []
    turned = (answers, answers.turned())
    for way, one, (p, q, right) in zip(("forward", "backward"), turned, both(answers, found.likeness[1]), strict=True):
        kept = Kept(
            (a * p + b * SHARP * q).log_softmax(-1), right, one.owner.cpu(), answers.records.__getitem__, {}, way
        )
        parts.append(task.keep(kept))
    values = measures.values(task.line_kind, joined(parts))
    return {"value": values[task.metric], "measures": values, **asdict(Weights(found.name, len(train), a, b))}


def measured(
    task: Task, train: Records, answers: evaluate.Answers, objective: Objective, method: str, bad_rate: float
) -> dict[str, Any]:
    """{"value", "measures", "method", "rows", "a", "b"} of both on the test answers. UserError: cannot be had."""
    chosen = task.candidates
    val = task.open("val")
    told = evaluate.answer(task, val, objective, unread=Unread("val", rate=bad_rate))
    if len(told.queries) < LEAST:
        raise UserError(f"{len(told.queries)} validation answers are fewer than {LEAST}")
    if chosen is None:
        return _pairs(task, train, told, answers)
    guessed = guesses(task, train, told.records, [answers.records], method)
    if guessed is None or any(len(a.queries) != len(a.records) for a in (told, answers)):
        raise UserError(f"a {task.kind} is not joined with an ordinary method")
    whole = slice(None)
    own = told.log_p(whole).double().cpu()
    a, b = weights_of(chosen, own, guessed.log_p[0], told.targets(whole).cpu())
    found = Weights(guessed.name, len(train), a, b)
    log_p = found.join(answers.log_p(whole).cpu(), guessed.log_p[1])
    owner, labels = answers.owner.cpu(), answers.targets(whole).cpu()
    read: Callable[[int], dict[str, Any]] = answers.records.__getitem__
    values = measures.values(task.line_kind, task.keep(Kept(log_p, labels, owner, read)))
    return {"value": values[task.metric], "measures": values, **asdict(found)}
