"""The dual-tree complex wavelet transform of one level and its inverse (Kingsbury 2001; near_sym_b filters).

Scattering Vision Transformer's (2311.01310, section 3.1). No cell is left out: the low part keeps the map's size, and
each of the three high parts becomes two complex maps of half its sides from its 2 x 2 cells. The edge is mirrored, the
edge cell twice. The inverse restores every map.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

H0 = tuple(n / 5120 for n in (-9, 0, 114, -240, -247, 1520, 2844, 1520, -247, -240, 114, 0, -9))
_RISING = [-405, 0, 7695, -10800, -41040, 136800, 319080, -296400, -1718930]
H1 = tuple(n / 5734400 for n in (*_RISING, 3208000, *_RISING[::-1]))
G0 = tuple((-1) ** (n + 1) * value for n, value in enumerate(H1))
G1 = tuple((-1) ** n * value for n, value in enumerate(H0))
HALF = 0.5**0.5


def matrix(taps: tuple[float, ...], length: int, x: Tensor) -> Float[Tensor, "length length"]:
    """A filter of odd length, symmetric about its middle, over a line of so many cells mirrored at its ends; as x."""
    half = len(taps) // 2
    place = torch.arange(length, device=x.device)[:, None] + torch.arange(-half, half + 1, device=x.device)
    place = place % (2 * length)
    place = torch.minimum(place, 2 * length - 1 - place)  # mirrored as often as the filter is longer than the line
    weights = torch.tensor(taps, dtype=x.dtype, device=x.device).expand(length, -1)
    return x.new_zeros(length, length).scatter_add(1, place, weights)


def filtered(x: Float[Tensor, "B C H W"], taps: tuple[float, ...], axis: int) -> Float[Tensor, "B C H W"]:
    """x filtered along axis 2 or 3: a product with a matrix, which on small maps beats a convolution of one channel."""
    by = matrix(taps, x.shape[axis], x)
    return by @ x if axis == 2 else x @ by.T


def forward_transform(
    x: Float[Tensor, "B C H W"],
) -> tuple[Float[Tensor, "B C H W"], Float[Tensor, "B C 6 H/2 W/2 2"]]:
    """Even sides -> the low part and six complex parts (re, im) of 15, 45, 75, 105, 135 and 165 degrees."""
    low, high = filtered(x, H0, 3), filtered(x, H1, 3)
    bands = [quads(b) for b in (filtered(low, H1, 2), filtered(high, H0, 2), filtered(high, H1, 2))]
    (lh, hl, hh) = bands
    order = [lh[0], hh[0], hl[0], hl[1], hh[1], lh[1]]
    return filtered(low, H0, 2), torch.stack(order, dim=2)


def quads(x: Float[Tensor, "B C H W"]) -> tuple[Tensor, Tensor]:
    """2 x 2 cells [a b; c d] -> (a - d) + i (b + c) and (a + d) + i (b - c), over root 2, each [B C H/2 W/2 2]."""
    a, b, c, d = (x[:, :, i::2, j::2] * HALF for i in (0, 1) for j in (0, 1))
    return torch.stack([a - d, b + c], dim=-1), torch.stack([a + d, b - c], dim=-1)


def inverse_transform(
    low: Float[Tensor, "B C H W"], high: Float[Tensor, "B C 6 H/2 W/2 2"]
) -> Float[Tensor, "B C H W"]:
    """The map that `forward_transform` gives these parts of."""
    lh, hh, hl = (cells(high[:, :, i], high[:, :, 5 - i]) for i in (0, 1, 2))
    upper = filtered(hh, G1, 2) + filtered(hl, G0, 2)
    lower = filtered(lh, G1, 2) + filtered(low, G0, 2)
    return filtered(upper, G1, 3) + filtered(lower, G0, 3)


def cells(minus: Float[Tensor, "B C h w 2"], plus: Float[Tensor, "B C h w 2"]) -> Float[Tensor, "B C H W"]:
    """The way back of `quads`."""
    (wr, wi), (pr, pi) = minus.unbind(-1), plus.unbind(-1)
    rows = [torch.stack([wr + pr, wi + pi], dim=-1), torch.stack([wi - pi, pr - wr], dim=-1)]
    return (torch.stack(rows, dim=3) * HALF).flatten(4, 5).flatten(2, 3)
