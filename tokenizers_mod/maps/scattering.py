"""Scattering as a token mixer (SVT, 2311.01310, section 3.2): weights on the low part of a wavelet transform, and a
small complex network over the channels of the high parts."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.maps.base import MapOperator, kept
from generalist.tokenizers_mod.maps.wavelets import forward_transform, inverse_transform


class Scattering(MapOperator):
    """style: "channel", SVT's own, or "token": half of the channels through a depthwise 3 x 3 convolution instead, and
    a second complex network along the columns of each row. rows, columns: of its weights; those of the low part are
    resampled for a map of another size, a "token" mixer takes no other. blocks: into which the channels are divided.

    Even sides only, and no lines. All weights start from 0.02 N(0, 1). Computed in float32 whatever the tokens are.
    """

    line: ClassVar[bool] = False
    even: ClassVar[bool] = True

    def __init__(self, width: int, style: str = "channel", rows: int = 14, columns: int = 14, blocks: int = 4) -> None:
        super().__init__()
        if style not in ("channel", "token"):
            raise UserError(f'scattering: style {style!r}; it is "channel" or "token"')
        own = width // 2 if style == "token" else width
        if blocks < 1 or own % blocks or (style == "token" and width % 2):
            raise UserError(f"scattering: {own} channels are not {blocks} equal blocks; choose blocks that divide them")
        if why := odd(rows, columns):
            raise UserError(f"scattering: {why}")
        self.style, self.rows, self.columns, self.blocks = style, rows, columns, blocks
        size = own // blocks
        self.complex_weight_ll = drawn(own, rows, columns)
        self.complex_weight_lh_1, self.complex_weight_lh_2 = (drawn(2, blocks, size, size) for _ in range(2))
        self.complex_weight_lh_b1, self.complex_weight_lh_b2 = (drawn(2, blocks, size) for _ in range(2))
        self.conv: nn.Conv2d | None = None
        if style == "token":
            half, wide = rows // 2, columns // 2
            self.conv = nn.Conv2d(own, own, 3, padding=1, groups=own)
            self.complex_weight_lh_1_t, self.complex_weight_lh_2_t = (drawn(2, half, wide, wide) for _ in range(2))
            self.complex_weight_lh_b1_t, self.complex_weight_lh_b2_t = (drawn(2, half, wide) for _ in range(2))

    def refuses(self, rows: int, columns: int) -> str:
        if self.style == "token" and (rows, columns) != (self.rows, self.columns):
            own = f"{self.rows} x {self.columns}"
            return f"a map of {rows} x {columns} cells, and its weights are of {own}; set rows and columns"
        return odd(rows, columns)

    def forward(self, x: Float[Tensor, "G H W D"], real: Bool[Tensor, "G H W"] | None) -> Float[Tensor, "G H W D"]:
        if why := self.refuses(x.shape[1], x.shape[2]):
            raise UserError(f"scattering: {why}")
        with torch.autocast(x.device.type, enabled=False):
            maps = kept(x, real).float().permute(0, 3, 1, 2)
            if self.conv is None:
                mixed = self.scattered(maps)
            else:  # the two halves are laid together channel by channel
                near, far = maps.chunk(2, dim=1)
                weight, bias = self.conv.weight.float(), self.conv.bias
                near = torch.conv2d(near, weight, None if bias is None else bias.float(), 1, 1, 1, len(weight))
                mixed = torch.stack([near, self.scattered(far)], dim=2).flatten(1, 2)
            return mixed.permute(0, 2, 3, 1).to(x.dtype)

    def scattered(self, maps: Float[Tensor, "G C H W"]) -> Float[Tensor, "G C H W"]:
        """Transform, mix, transform back."""
        low, high = forward_transform(maps)
        weight = self.complex_weight_ll.float()
        if weight.shape[1:] != maps.shape[2:]:
            weight = interpolate(weight[None], maps.shape[2:], mode="bilinear", align_corners=False)[0]
        z = high.permute(0, 2, 3, 4, 5, 1).unflatten(-1, (self.blocks, -1))  # G 6 h w 2 blocks size
        z = network(
            z.unbind(4),
            (self.complex_weight_lh_1, self.complex_weight_lh_b1),
            (self.complex_weight_lh_2, self.complex_weight_lh_b2),
        )
        if self.style == "token":
            z = network(  # along the columns, with matrices of every row
                tuple(part.permute(0, 1, 4, 5, 2, 3) for part in z),
                (self.complex_weight_lh_1_t, self.complex_weight_lh_b1_t),
                (self.complex_weight_lh_2_t, self.complex_weight_lh_b2_t),
            )
            z = tuple(part.permute(0, 1, 4, 5, 2, 3) for part in z)
        high = torch.stack([part.flatten(4) for part in z], dim=-1).permute(0, 4, 1, 2, 3, 5)
        return inverse_transform(low * weight, high)


def odd(rows: int, columns: int) -> str:
    """Why a map of this size has no transform, "" where it has."""
    if rows % 2 or columns % 2:
        return f"a map of {rows} x {columns} cells has an odd side; take a size and patch that give even ones"
    return ""


def drawn(*shape: int) -> nn.Parameter:
    return nn.Parameter(0.02 * torch.randn(shape))


def network(
    z: tuple[Tensor, ...], first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Two complex linears, each of b matrices, with a ReLU of the real and the imaginary part between them.

    z: real and imaginary part, Float[... b n]; first, second: Float[2 b n n] and Float[2 b n].
    """
    real, imaginary = linear((z[0], z[1]), *first)
    return linear((relu(real), relu(imaginary)), *second)


def linear(z: tuple[Tensor, Tensor], weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    (re, im), (wr, wi), (br, bi) = z, weight.float().unbind(), bias.float().unbind()
    product = "...bn,bnk->...bk"
    real = torch.einsum(product, re, wr) - torch.einsum(product, im, wi) + br
    return real, torch.einsum(product, re, wi) + torch.einsum(product, im, wr) + bi
