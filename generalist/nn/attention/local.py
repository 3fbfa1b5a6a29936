"""The local term of attention: a depthwise convolution of the values on their maps, beside what is attended to.

RMT's (2309.11523, equation 7) has a filter a channel, ResFormer's (2212.00776, section 3.2) one a channel of a head,
which all heads share. It starts at zero, so that a model with it begins as one without.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.nn.mixers.maps import GridMixer
from generalist.tokenizers_mod.maps.base import convolved, kept


class LocalValues(GridMixer):
    """width: of a head; size: side of the filter, odd; shared: one filter for all heads."""

    def __init__(self, width: int, heads: int, size: int, shared: bool = False) -> None:
        super().__init__()
        if size < 1 or not size % 2:
            raise UserError(f"model.local={size}: a window with a middle is odd, such as 5, or 0 for none")
        self.heads = heads if shared else 1
        channels = width if shared else width * heads
        self.filter = nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels)
        nn.init.zeros_(self.filter.weight)
        assert self.filter.bias is not None
        nn.init.zeros_(self.filter.bias)

    def mix(self, maps: Float[Tensor, "G H W D"], real: Bool[Tensor, "G H W"] | None) -> Float[Tensor, "G H W D"]:
        count, rows, columns, _ = maps.shape
        own = kept(maps, real).view(count, rows, columns, self.heads, -1).permute(0, 3, 1, 2, 4).flatten(0, 1)
        made = convolved(self.filter, own).unflatten(0, (count, self.heads))
        return made.permute(0, 2, 3, 1, 4).flatten(3)

    def of_heads(self, kept: Tensor, width: int) -> dict[str, Tensor]:
        """Its tensors where the heads Int[k] alone are left. width: of a head."""
        own = self.state_dict()
        channels = (kept.unsqueeze(1) * width + torch.arange(width)).flatten()
        return own if self.heads > 1 else {name: value[channels] for name, value in own.items()}
