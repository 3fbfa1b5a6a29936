"""Queries of the tokens asked alone, over the keys and values of all: the last layer, where nothing else is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

from generalist.data.batch.at import At
from generalist.nn.attention.parts import Equal, Part


@dataclass
class Queries:
    """Those of a part of the batch. asks: how many each of its sequences has; asked: Int[w], where they lie."""

    part: Part
    asks: list[int]
    asked: Tensor
    place: Tensor | None = field(init=False, default=None)  # Int[w] in [count longest], where sequences differ

    def __post_init__(self) -> None:
        if min(self.asks) < self.longest:
            real = torch.arange(self.longest) < torch.tensor(self.asks).unsqueeze(1)
            self.place = real.flatten().nonzero().squeeze(1).to(self.asked.device)

    @property
    def count(self) -> int:
        return len(self.asks)

    @property
    def longest(self) -> int:
        return max(self.asks)

    def rows(self, t: Tensor) -> Tensor:
        """[w ...] -> [count longest ...], 0 where a sequence has fewer."""
        if self.place is not None:
            t = t.new_zeros(self.count * self.longest, *t.shape[1:]).index_copy(0, self.place, t)
        return t.view(self.count, self.longest, *t.shape[1:])

    def packed(self, o: Tensor) -> Tensor:
        """Float[count H longest d] -> Float[w H d]."""
        o = o.transpose(1, 2).flatten(0, 1)
        return o if self.place is None else o.index_select(0, self.place)

    def seen(self) -> Tensor | None:
        """Their rows of the part's mask: Bool[count 1 1|longest n]."""
        if isinstance(self.part, Equal) and self.part.causal:
            places = torch.arange(self.part.group.length)
            return (places <= self.rows(self.part.within(self.asked)).unsqueeze(-1)).unsqueeze(1)
        mask = self.part.mask
        if mask is None or mask.shape[2] == 1:
            return mask
        own = torch.arange(self.count, device=mask.device).unsqueeze(1)
        return mask[own, 0, self.rows(self.part.within(self.asked))].unsqueeze(1)


def queries_of(at: At, parts: list[Part]) -> list[Queries | None]:
    """The queries of every part, None where it has none."""
    asks = at.layout.asks or []
    ends = list(accumulate(part.count for part in parts))
    own = [asks[end - part.count : end] for part, end in zip(parts, ends, strict=True)]
    split = at.asked.split([sum(of_part) for of_part in own])
    return [Queries(p, a, t) if sum(a) else None for p, a, t in zip(parts, own, split, strict=True)]
