"""A small convolutional stem inside each patch: local, translation-equivariant features before a patch is one token.

Source: Xiao et al., "Early convolutions help transformers see better" (2106.14881), section 3; here it stays within the
patch, so that patches remain independent tokens (packing, masking and hiding them work as without it).
"""

from __future__ import annotations

from itertools import pairwise

from torch import nn


class ConvStem(nn.Sequential):
    """Flattened patches Float[N, channels * patch * patch] -> Float[N, width].

    3x3 convolutions of stride 2, each with twice the channels of the one before (the first has `hidden`), down to a map
    of 4 x 4 or less, then a linear map.
    """

    def __init__(self, channels: int, patch: int, hidden: int, width: int) -> None:
        first = hidden
        layers: list[nn.Module] = [nn.Unflatten(1, (channels, patch, patch))]
        side, have = patch, channels
        while side > 4 or have == channels:
            layers += [nn.Conv2d(have, hidden, 3, stride=2, padding=1), nn.GELU()]
            side, have, hidden = -(-side // 2), hidden, 2 * hidden
        super().__init__(*layers, nn.Flatten(), nn.Linear(have * side * side, width))
        for layer in self:  # keep the patches' scale: the usual initialisation would shrink it below the positions'
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.channels = first

    def inner(self) -> list[tuple[int, int]]:
        """The convolutions by their places, each with the one layer that reads its channels."""
        found = [place for place, layer in enumerate(self) if isinstance(layer, nn.Conv2d | nn.Linear)]
        return list(pairwise(found))
