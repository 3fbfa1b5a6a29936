"""Relative positions of two axes: what is added to a score is a function of how far two patches stand apart.

    bias = MLP(sign(d) log(1 + |d|))        d = (rows, columns) from key to query; one number a head, one MLP a layer

Source: Swin V2's log-spaced continuous bias (2111.09883, section 3.3) as timm's ViTs take it, without normalising d and
without a sigmoid behind it. A pair in which a token has no place (a summary, a text) gets no bias. The distances that
occur in a batch are listed once a pass; a layer computes its bias once for each of them, not for each pair.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, pad

from generalist.data.batch.types import Layout, Offsets


class RelativeBias(nn.Module):
    """The MLP of one layer: 2 -> hidden -> heads."""

    def __init__(self, heads: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(2, hidden)
        self.down = nn.Linear(hidden, heads)

    def forward(self, steps: Tensor) -> Tensor:
        """steps: Float[T 2] -> Float[T + 1, H], the last row, of pairs without a place, is 0."""
        found = self.down(self.up(steps.to(self.up.weight.dtype)).relu())
        return pad(found, (0, 0, 0, 1))


def with_offsets(layout: Layout, place: Tensor) -> Layout:
    """The layout with the offsets of its pairs, for one pass through the encoder. place: Int[N 4]
    (`generalist.data.batch.cells`)."""
    rows, columns = (max(1, int(size)) for size in place[:, 2:].amax(0))
    down = torch.arange(1 - rows, rows, device=place.device)
    right = torch.arange(1 - columns, columns, device=place.device)
    steps = torch.cartesian_prod(down, right).float()
    index = []
    for group in layout.groups:
        own = place[group.start : group.start + group.count * group.length].view(group.count, group.length, 4)
        apart = own[:, :, None, :2] - own[:, None, :, :2]
        real = own[:, :, 2] > 0
        number = (apart[..., 0] + rows - 1) * (2 * columns - 1) + apart[..., 1] + columns - 1
        index.append(number.where(real[:, :, None] & real[:, None, :], len(steps)))
    return replace(layout, offsets=Offsets(steps.sign() * steps.abs().log1p(), index))


def added(bias: Tensor, index: Tensor, mask: Tensor | None, prompts: int) -> Tensor:
    """What a kernel adds to its scores: Float[count H n prompts + n], -inf where a key may not be seen.

    bias: Float[T + 1, H] of this layer; index: Int[count n n]; mask: Bool[count 1 1|n n] or None.
    """
    found = embedding(index, bias).permute(0, 3, 1, 2)
    if mask is not None:
        found = found.masked_fill(~mask, -torch.inf)
    return pad(found, (prompts, 0)) if prompts else found
