"""Depthwise convolution as a token mixer (ConvNeXt, 2201.03545, section 2.4; ConvMixer, 2201.09792): one filter a
channel."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.maps.base import MapOperator, kept


class Convolve(MapOperator):
    """A `size` x `size` filter a channel, zeros outside the map and at masked cells; then a linear over channels."""

    def __init__(self, width: int, size: int = 7) -> None:
        super().__init__()
        if size < 1 or not size % 2:
            raise UserError(f"convolve: size {size}; a window with a middle is odd, such as 7")
        self.depthwise = nn.Conv2d(width, width, size, padding=size // 2, groups=width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "G H W D"], real: Bool[Tensor, "G H W"] | None) -> Float[Tensor, "G H W D"]:
        return self.out(self.depthwise(kept(x, real).permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
