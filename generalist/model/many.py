"""Candidates in numbers that do not fit in memory at once: encoded and compared a chunk at a time.

    encoded(model, members)         f of all, in chunks whose activations are made again in the backward pass
    summed_loss(scores, ...)        -log p of the answers without the matrix of all scores

`scores(queries, members)` are the scaled cosines of a model (`PackedModel.scaled`), Float[M D] x Float[K D] -> [M K].
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from generalist.tasks.candidates.likelihood import asked

if TYPE_CHECKING:
    from generalist.model.candidates import Members
    from generalist.model.model import PackedModel

CHUNK = 4096  # members encoded at once
ACTIVATIONS = 2**30  # bytes of members' activations that are held for the backward pass; beyond, they are made again
SCORES = 2**24  # scores that are held at once; beyond, the loss is summed up in chunks
Scores = Callable[[Tensor, Tensor], Tensor]


def too_large(model: PackedModel, members: Members) -> bool:
    """Whether the activations of all members, roughly, are more than may be held: making them again costs a third."""
    spec = model.config
    each = 4 * spec.layers * (8 * spec.width + 2 * spec.hidden)  # bytes a token: what a layer keeps for its gradients
    return (
        members.count * members.times > CHUNK and each * members.times * members.pack(None, True).tokens > ACTIVATIONS
    )


def encoded(model: PackedModel, members: Members) -> Float[Tensor, "K D"]:
    """f of every member, with gradient: at any time the activations of one chunk alone."""
    runs = [tuple(range(i, min(i + CHUNK, members.count))) for i in range(0, members.count, CHUNK)]
    made = partial(model.features, candidate=True)
    return torch.cat([checkpoint(made, members.pack(run, True), use_reentrant=False) for run in runs])


def summed_loss(
    scores: Scores,
    queries: Float[Tensor, "*M D"],
    members: Float[Tensor, "K D"],
    target: Int[Tensor, "*M"] | Float[Tensor, "*M K"],
    smoothing: float = 0.0,
    most: int = SCORES,
) -> Float[Tensor, "1"]:
    """The sum of `negative_log_likelihood`, from chunks of at most `most` scores that the backward pass makes again."""
    flat, real = queries.flatten(0, -2), asked(target).flatten()
    goal = target.flatten(0, -2).nan_to_num() if target.is_floating_point() else target.flatten()
    width = max(1, most // max(1, len(flat)))
    found = [
        checkpoint(_look, scores, flat, members[start : start + width], goal, start, use_reentrant=False)
        for start in range(0, len(members), width)
    ]
    normaliser = torch.stack([part[0] for part in found]).logsumexp(0)
    own, total = (torch.stack([part[i] for part in found]).sum(0) for i in (1, 2))
    weight = goal.sum(-1) if goal.is_floating_point() else 1.0
    per_answer = weight * normaliser - own
    if smoothing:
        per_answer = (1 - smoothing) * per_answer + smoothing * (normaliser - total / len(members))
    return (per_answer * real).sum().reshape(1)


def _look(scores: Scores, queries: Tensor, members: Tensor, goal: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of one chunk of members: log-sum-exp, the answers' part of the scores and the sum of all, Float[M] each."""
    found = scores(queries, members)
    if goal.is_floating_point():
        own = (goal[:, start : start + len(members)] * found).sum(-1)
    else:
        column = goal - start
        inside = (column >= 0) & (column < len(members))
        own = found.gather(-1, column.clamp(0, len(members) - 1).unsqueeze(-1)).squeeze(-1) * inside
    return found.logsumexp(-1), own, found.sum(-1)
