"""Pooling as a token mixer (PoolFormer, 2111.11418, section 3.2), and a random one (2210.13452, section 3.1)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.maps.base import MapOperator


class Pool(MapOperator):
    """mean of the `size` x `size` cells around each, minus the cell; what lies outside or is masked does not count."""

    def __init__(self, width: int, size: int = 3) -> None:
        super().__init__()
        if size < 1 or not size % 2:
            raise UserError(f"pool: size {size}; a window with a middle is odd, such as 3")
        self.size = size

    def forward(self, x: Float[Tensor, "G H W D"], real: Bool[Tensor, "G H W"] | None) -> Float[Tensor, "G H W D"]:
        cells = x.permute(0, 3, 1, 2)
        if real is None:
            mean = self.pooled(cells)
        else:
            there = real.unsqueeze(1).to(x.dtype)
            mean = self.pooled(cells * there) / self.pooled(there).clamp(min=1 / self.size**2)
        return (mean - cells).permute(0, 2, 3, 1)

    def pooled(self, x: Float[Tensor, "G D H W"]) -> Float[Tensor, "G D H W"]:
        return avg_pool2d(x, self.size, 1, self.size // 2, count_include_pad=False)


class RandomMix(MapOperator):
    """Every cell becomes a mean of all with random weights that are never trained: softmax of uniform numbers.

    RandFormer's mixer: it shows what the rest of a block does by itself. The numbers are drawn for every number of
    cells from `seed` alone, so maps of any size are mixed and nothing is stored.
    """

    def __init__(self, width: int, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def forward(self, x: Float[Tensor, "G H W D"], real: Bool[Tensor, "G H W"] | None) -> Float[Tensor, "G H W D"]:
        cells = x.flatten(1, 2)
        count = cells.shape[1]
        scores = torch.rand(count, count, generator=torch.Generator().manual_seed(self.seed)).to(x.device)
        if real is not None:
            scores = scores.masked_fill(~real.flatten(1).unsqueeze(1), -torch.inf)
        return (scores.softmax(-1).to(x.dtype) @ cells).view_as(x)
