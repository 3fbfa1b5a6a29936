"""Relative positions of two axes: what is added to a score is a function of how far two patches stand apart.

    bias = MLP(sign(d) log(1 + |d|))        d = (rows, columns) from key to query; one number a head, one MLP a layer

Source: Swin V2's log-spaced continuous bias (2111.09883, section 3.3) as timm's ViTs take it, without normalising d and
without a sigmoid behind it. A pair of tokens that are not of one map (a summary, a text, two pictures, two frames of a
film) gets no bias. The distances that occur in a batch are listed once a pass; a layer computes its bias once for each
of them, not for each pair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, pad

from generalist.data.batch.at import At
from generalist.nn.attention.positions.base import Position
from generalist.recipe.encoder import RELATIVE_HIDDEN
from generalist.recipe.layers import at_least
from generalist.tokenizers_mod.base.tokenizer import taken


@dataclass
class Offsets:
    """How far the tokens of a sequence stand apart.

    steps: Float[T 2], the distances that occur, on a log scale; index: for each group Int[count n n], query by key, the
    row of `steps`, or T where the two are not of one map.
    """

    steps: Tensor
    index: list[Tensor]


class RelativeBias(Position):
    """The MLP of one layer: 2 -> hidden -> heads."""

    def __init__(self, width: int, heads: int, hidden: int = RELATIVE_HIDDEN) -> None:
        super().__init__()
        at_least(1, "model.position: hidden", hidden)
        self.up = nn.Linear(2, hidden)
        self.down = nn.Linear(hidden, heads)

    def forward(self, steps: Tensor) -> Tensor:
        """steps: Float[T 2] -> Float[T + 1, H], the last row, of pairs without a place, is 0."""
        found = self.down(self.up(taken(steps, self.up)).relu())
        return pad(found, (0, 0, 0, 1))

    def of_heads(self, kept: Tensor) -> dict[str, Tensor]:
        down = {f"down.{name}": value[kept] for name, value in self.down.state_dict().items()}
        return self.state_dict() | down

    def bias(self, at: At, dtype: torch.dtype) -> Callable[[int], Tensor]:
        offsets = at.once("offsets", lambda: offsets_of(at))
        table = self(offsets.steps).to(dtype)
        return lambda number: embedding(offsets.index[number], table).permute(0, 3, 1, 2)


def offsets_of(at: At) -> Offsets:
    """The offsets of the pairs of every group."""
    place = at.place
    rows, columns = (max(1, int(size)) for size in place[:, 2:4].amax(0))
    down = torch.arange(1 - rows, rows, device=place.device)
    right = torch.arange(1 - columns, columns, device=place.device)
    steps = torch.cartesian_prod(down, right).float()
    index = []
    for group in at.groups:
        own = place[group.start : group.start + group.count * group.length].view(group.count, group.length, -1)
        apart = own[:, :, None, :2] - own[:, None, :, :2]
        number = (apart[..., 0] + rows - 1) * (2 * columns - 1) + apart[..., 1] + columns - 1
        real, of = own[:, :, 2] > 0, own[:, :, 4]
        together = real[:, :, None] & real[:, None, :] & (of[:, :, None] == of[:, None, :])
        index.append(number.where(together, len(steps)))
    return Offsets(steps.sign() * steps.abs().log1p(), index)
