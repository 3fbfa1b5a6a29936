"""A quarter of a map's tokens goes on, each a mean of four and what a convolution adds to it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from generalist.nn.steps.base import same_width
from generalist.nn.steps.merge import Merge, beside_zeros


class Spatial(Merge):
    """ViT-Res' residual spatial reduction at one width (ViT-ResNAS, 2111.10493, section 3.1; without its positions).

        map: mean of 2 x 2 cells + convolution 3 x 3, stride 2, of LN(x)        other tokens: x + linear(LN(x))

    The norm is shared; cells beyond an edge or masked are zeros and count as such in the mean. Spans in which a token
    is asked, causal or hidden, and tokens without a map of two axes, pass as other tokens do. `cells` is the
    convolution's kernel as a matrix: the nine cells of its window end to end, row by row.
    """

    def __init__(self, width: int, out: int) -> None:
        nn.Module.__init__(self)
        self.width, self.factor, self.side = same_width("spatial", width, out), 2, 3
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.cells, self.other = nn.Linear(9 * width, width), nn.Linear(width, width)

    def merged(self, x: Tensor, windows: Tensor) -> Tensor:
        mean = beside_zeros(x)[windows[:, MIDDLE]].mean(1)
        return mean + self.cells(beside_zeros(self.norm(x))[windows].flatten(1))

    def stands_for(self, windows: Tensor) -> Tensor:
        return windows[:, MIDDLE].amin(1)

    def passed(self, x: Tensor) -> Tensor:
        return x + self.other(self.norm(x))

    def windows(self, maps: Tensor, absent: int) -> tuple[Tensor, Tensor]:
        maps = pad(maps, (1, maps.shape[2] % 2, 1, maps.shape[1] % 2), value=absent)
        found = maps.unfold(1, 3, 2).unfold(2, 3, 2)
        return found, (found[..., 1:, 1:] != absent).any(-1).any(-1)


MIDDLE = torch.tensor([4, 5, 7, 8])  # the 2 x 2 cells among the nine of a window
