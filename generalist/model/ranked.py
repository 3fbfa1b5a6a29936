"""What a training step has just ranked, and the same ranking by another model: what a method may add a loss to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from generalist.machine.collectives import gather

if TYPE_CHECKING:
    from generalist.data.batch.types import Batch
    from generalist.model.candidates import Compared, Members
    from generalist.model.model import PackedModel


@dataclass
class Ranked:
    """One micro step's scores of its candidates, with gradient.

    scores: Float[M ... K] a direction (two for in-batch candidates), logits or log p; real: Bool[M ...], the questions
    that are asked; log_weight: Float[K], of how many members each column stands for, None where of one; by: how another
    model scores the same questions and candidates, without gradient; ranks: how many ranks sum over these very rows.
    """

    task: str
    scores: list[Tensor]
    real: Tensor
    by: Callable[[PackedModel], list[Tensor]]
    log_weight: Tensor | None = None
    ranks: int = 1


@torch.no_grad()
def member_scores(model: PackedModel, batch: Batch, compared: Compared, members: Members) -> list[Tensor]:
    """Another model's scores of a batch's questions among the very members that they were compared with."""
    queries = model.features(batch.inputs)
    if members.shard and compared.numbers is None:
        found = gather(model.features(members.share(), candidate=True))[: members.count]
    else:
        found = model.features(members.pack(compared.numbers, False), candidate=True)
    return [model.logits(queries, found, batch.scale)]


@torch.no_grad()
def partner_scores(
    model: PackedModel, batch: Batch, own: Callable[[Tensor], Tensor], over: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """Another model's scores of in-batch candidates, both directions; `own` and `over` give each side's rows."""
    assert batch.partners is not None
    queries, partners = model.features(batch.inputs), model.features(batch.partners, candidate=True)
    ways = ((queries, partners), (partners, queries))
    return [model.logits(own(asked), over(among), batch.scale) for asked, among in ways]
