"""Manhattan decay: scores fall with the distance of two cells of a map, each head at its own rate (RMT, 2309.11523).

    score + log(gamma_h) (|rows apart| + |columns apart|)        gamma_h = 1 - 2^-(initial + span h / heads)

and queries and keys turn by the number of their cell row by row, neighbouring channels a pair. Pairs that are not of
one map (a summary, a text, two pictures, two frames of a film) stand at distance 0. No parameter.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import embedding, pad

from generalist.data.batch.at import At
from generalist.nn.attention.positions.base import Position
from generalist.nn.attention.positions.relative import offsets_of
from generalist.tokenizers_mod.maps.decay import check_decay, decays, turn, turns


class Decay(Position):
    """initial, span: the rates of the heads; a head's width must be even."""

    def __init__(self, width: int, heads: int, initial: float = 2.0, span: float = 4.0) -> None:
        super().__init__()
        check_decay(width * heads, heads, initial, span)
        self.width, self.heads, self.initial, self.span = width, heads, initial, span

    def turn(self, q: Tensor, k: Tensor, at: At) -> tuple[Tensor, Tensor]:
        angles = at.once(("raster", self.width), lambda: self.angles(at.place))
        return turn(q, *angles), turn(k, *angles)

    def angles(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """place: Int[N 6] (`generalist.data.batch.cells`) -> cosine and sine, Float[N 1 width] each."""
        cell = (place[:, 5] + place[:, 0]) * place[:, 3] + place[:, 1]  # a map goes on behind those before it
        return turns(cell.unsqueeze(1), self.width)

    def bias(self, at: At, dtype: torch.dtype) -> Callable[[int], Tensor]:
        own = ("decay", self.heads, self.initial, self.span, dtype)
        biases = at.once(own, lambda: self.biases(at, dtype))
        return lambda number: biases[number]

    def biases(self, at: At, dtype: torch.dtype) -> list[Tensor]:
        """For each group what is added to its scores, Float[count H n n]; the same in all layers."""
        offsets = at.once("offsets", lambda: offsets_of(at))
        apart = offsets.steps.abs().expm1().round().sum(1)
        table = pad(apart[:, None] * decays(self.heads, self.initial, self.span).to(apart.device), (0, 0, 0, 1))
        return [embedding(index, table.to(dtype)).permute(0, 3, 1, 2) for index in offsets.index]

    def of_heads(self, kept: Tensor) -> None:
        return None  # a head's rate is a matter of how many there are
