"""A model together with the ordinary method of its task: p ∝ p_model^a · p_ordinary^b, a and b from validation data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.stream.source import Records
from generalist.evaluate import answer as evaluate
from generalist.evaluate import measures
from generalist.evaluate.together.exponents import Evidence, both, chosen
from generalist.evaluate.unread import Unread
from generalist.evaluate.widths import fitted, worn
from generalist.model.objective import Objective
from generalist.tasks.base.task import Task
from generalist.tasks.baselines.guesses import Guessed
from generalist.tasks.baselines.ordinary import guesses, matched
from generalist.tasks.candidates.base import CandidateSet
from generalist.tasks.measures.lines import Columns, Kept, joined

SHARP = 10.0  # a cosine times this is a score
ANSWERS = 40_000  # validation answers that are looked at: records times what each is asked
RECORDS, FEWEST = 4_000, 100
STEPS = 20  # answers of one record that decide about exponents, evenly from all


@dataclass
class Weights:
    """way: "both", "model" or "ordinary", what validation data vouch for; a, b: the exponents.

    method: the ordinary one's name; rows: training records that it is chosen on; refit: whether it is fitted again on
    these and the validation records, once it is chosen. widths: of a forecast's intervals
    (`generalist.evaluate.widths`).
    """

    method: str
    rows: int
    a: float
    b: float
    way: str = "both"
    refit: bool = False
    widths: list[float] = field(default_factory=list)

    def join(self, model: Tensor, ordinary: np.ndarray) -> Tensor:
        """log p of both, Float[n ... K]."""
        a, b = (torch.tensor([v], dtype=torch.float64) for v in (self.a, self.b))
        return both(model.double(), torch.from_numpy(ordinary).double(), a, b)


def measured(
    task: Task, train: Records, answers: evaluate.Answers, objective: Objective, method: str, bad_rate: float
) -> dict[str, Any]:
    """{"value", "measures", and `Weights`} of both on the test answers. UserError: cannot be had."""
    val = looked_at(task, task.open("val"))
    told = evaluate.answer(task, val, objective, unread=Unread("val", rate=bad_rate))
    if task.candidates is None:
        return _pairs(task, train, told, answers)
    guessed = guesses(task, train, told.records, [answers.records], method, refit=True)
    if guessed is None or any(len(a.queries) != len(p) for a, p in zip((told, answers), guessed.log_p, strict=True)):
        raise UserError(f"a {task.kind} is not joined with an ordinary method")
    found = weights_of(task, told, guessed, len(train))

    def log_p(rows: slice) -> Tensor:
        return found.join(answers.log_p(rows).cpu(), guessed.log_p[1][rows])

    with worn(task, found.widths):
        values = measures.values(task.line_kind, joined(evaluate.kept(answers, log_p=log_p)))
    return {"value": values[task.metric], "measures": values, **asdict(found)}


def said(found: dict[str, Any]) -> str:
    """What of `measured` answers, and how well, in words."""
    value = f"together {found['value']:.4g}"
    if found["way"] == "both":
        return f"{value}: model^{found['a']:g} times ordinary^{found['b']:g}, as validation data weigh them"
    alone = "the model" if found["way"] == "model" else f"the ordinary method ({found['method']})"
    return f"{value}: {alone} alone answers, validation data do not vouch for both"


def looked_at(task: Task, val: Records) -> Records:
    """The validation records that decide: evenly from all, fewer of those that are asked for more."""
    if not len(val):
        raise UserError("the validation split is empty")
    spans = task.example(val[0]).inputs if task.foretells else []
    each = sum(span.labels.numel() for span in spans if span.labels is not None)
    return val.spread(min(RECORDS, max(FEWEST, ANSWERS // max(1, each))))


def weights_of(task: Task, told: evaluate.Answers, guessed: Guessed, rows: int) -> Weights:
    """By validation answers and what the ordinary method says of the same records."""
    assert task.candidates is not None
    whole = slice(None)
    evidence = evidence_of(
        task.candidates, told.log_p(whole).double().cpu(), guessed.log_p[0], told.targets(whole).cpu(), told, task
    )
    with worn(task, []):
        way = chosen(evidence, task.line_kind, task.metric, task.higher_is_better)
    found = Weights(guessed.name, rows, way.a, way.b, way.way, guessed.refit)
    if task.numbered is not None:
        log_p = found.join(told.log_p(whole).cpu(), guessed.log_p[0])
        parts = (task.by_step(values, len(told.records)) for values in (log_p, told.targets(whole).cpu()))
        found.widths = fitted(task.numbered, *parts)
    return found


def evidence_of(
    among: CandidateSet, model: Tensor, ordinary: np.ndarray, labels: Tensor, told: evaluate.Answers, task: Task
) -> Evidence:
    """log p Float[M ... K] each of answers that stand record by record, as many of each; labels: [M ...] or Float[M k].

    UserError: some records are asked more than others.
    """
    count, owner = len(told.records), told.owner.cpu()
    alone = labels.ndim == model.ndim or (labels.ndim == 1 and len(model) == count)  # one question a record
    if len(model) % count:
        raise UserError(f"a {task.kind} asks of some records more than of others; it is not joined")
    by_record = labels.reshape(count, 1, -1) if labels.ndim == model.ndim else labels.reshape(count, -1)
    steps = 1 if alone else by_record.shape[1]
    few = torch.linspace(0, steps - 1, min(steps, STEPS)).long()

    def misfits(log_p: list[Tensor], rows: Tensor) -> Tensor:
        return per_record(among, log_p[0][:, few], by_record[rows][:, few])

    def columns(log_p: list[Tensor]) -> Columns:
        return task.keep(Kept(log_p[0].reshape(model.shape), labels, owner, told.records.__getitem__))

    sides = [(model.reshape(count, steps, -1), torch.from_numpy(ordinary).double().reshape(count, steps, -1))]
    return Evidence(sides, misfits, columns)


def per_record(among: CandidateSet, log_p: Tensor, labels: Tensor) -> Tensor:
    """Each record's mean misfit, Float[n], 0 where nothing is asked. log p: Float[n q K]; labels: [n q] or [n 1 k]."""
    if labels.ndim == log_p.ndim:
        found = among.misfits(log_p[:, 0], labels[:, 0])
        assert found is not None
        return found
    asked = ~labels.isnan() if labels.is_floating_point() else labels >= 0
    found = among.misfits(log_p.flatten(0, 1), labels.flatten())
    assert found is not None
    every = torch.zeros(labels.numel(), dtype=found.dtype).masked_scatter(asked.flatten(), found).view(labels.shape)
    return every.sum(1) / asked.sum(1).clamp(min=1)


def _kept(answers: evaluate.Answers, log_p: Tensor, direction: str) -> Kept:
    right, owner = answers.targets(slice(None)).cpu(), answers.owner.cpu()
    return Kept(log_p, right, owner, answers.records.__getitem__, {}, direction)


def _pairs(task: Task, train: Records, told: evaluate.Answers, answers: evaluate.Answers) -> dict[str, Any]:
    """The same of answers that are each other's partners: both directions, over the likeness of a method's guesses."""
    found = matched(task, train, told.records, answers.records)
    if found is None or any(len(a.queries) != len(a.members) for a in (told, answers)):
        raise UserError(f"a {task.kind} is not joined with an ordinary method")

    def sides(part: evaluate.Answers, likeness: np.ndarray) -> list[tuple[Tensor, Tensor]]:
        like = SHARP * torch.from_numpy(likeness).double()
        ways = ((part, like), (part.turned(), like.T))
        return [(one.log_p(slice(None)).double().cpu(), other) for one, other in ways]

    def kept(part: evaluate.Answers, log_p: list[Tensor]) -> Columns:
        ways = zip(("forward", "backward"), (part, part.turned()), log_p, strict=True)
        read = part.records.__getitem__
        return joined(
            [task.keep(Kept(p, a.targets(slice(None)).cpu(), a.owner.cpu(), read, {}, w)) for w, a, p in ways]
        )

    right = [one.targets(slice(None)).cpu() for one in (told, told.turned())]

    def misfits(log_p: list[Tensor], rows: Tensor) -> Tensor:
        own = [-p.masked_fill(~r[rows], -torch.inf).logsumexp(-1) for p, r in zip(log_p, right, strict=True)]
        return own[0] + own[1]

    evidence = Evidence(sides(told, found.likeness[0]), misfits, partial(kept, told))
    way = chosen(evidence, task.line_kind, task.metric, task.higher_is_better)
    weights = Weights(found.name, len(train), way.a, way.b, way.way)
    log_p = [weights.join(model, other.numpy()) for model, other in sides(answers, found.likeness[1])]
    values = measures.values(task.line_kind, kept(answers, log_p))
    return {"value": values[task.metric], "measures": values, **asdict(weights)}
