"""Spectral gating as a token mixer: a learned filter in the frequencies of a map.

GFNet (2107.00645, section 3.2) and SpectFormer (2304.06446, section 3.1): a real 2-D Fourier transform over rows and
columns (orthonormal), a product with a complex number for every frequency and channel, and the way back.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.maps.base import MapOperator, kept


class SpectralGate(MapOperator):
    """complex_weight: Float[rows columns//2+1 D 2], the gate of maps of rows x columns, drawn from 0.02 N(0, 1).

    A map of another size takes the gate at its own frequencies, between those that are kept linear in both (the
    filter keeps its extent in cells); a line of n tokens has the frequencies of one row. Neighbours around the edges
    meet, as the transform is of a torus. Computed in float32 whatever the tokens are.
    """

    def __init__(self, width: int, rows: int = 14, columns: int = 14) -> None:
        super().__init__()
        if rows < 1 or columns < 1:
            raise UserError(f"spectral_gate: a gate of {rows} x {columns} cells; both are at least 1, such as 14")
        self.rows, self.columns = rows, columns
        self.complex_weight = nn.Parameter(0.02 * torch.randn(rows, columns // 2 + 1, width, 2))

    def forward(self, x: Float[Tensor, "G H W D"], real: Bool[Tensor, "G H W"] | None) -> Float[Tensor, "G H W D"]:
        rows, columns = x.shape[1:3]
        with torch.autocast(x.device.type, enabled=False):
            gate = torch.view_as_complex(self.gate(rows, columns).contiguous())
            found = torch.fft.rfft2(kept(x, real).float(), dim=(1, 2), norm="ortho") * gate
            return torch.fft.irfft2(found, s=(rows, columns), dim=(1, 2), norm="ortho").to(x.dtype)

    def gate(self, rows: int, columns: int) -> Float[Tensor, "rows half D 2"]:
        """The gate of maps of this size."""
        weight = self.complex_weight.float()
        if rows != self.rows:
            weight = between(torch.cat([weight, weight[:1]]), torch.arange(rows) * (self.rows / rows))  # a period
        if columns != self.columns:
            weight = between(weight.transpose(0, 1), torch.arange(columns // 2 + 1) * (self.columns / columns))
            weight = weight.transpose(0, 1)
        return weight


def between(values: Float[Tensor, "n ..."], at: Float[Tensor, " m"]) -> Float[Tensor, "m ..."]:
    """The values at places 0 .. n - 1 that may lie between two, linear; the last one beyond it."""
    at = at.to(values.device).clamp(max=len(values) - 1)
    low = at.floor().long()
    high = (low + 1).clamp(max=len(values) - 1)
    share = (at - low).view(-1, *(1,) * (values.dim() - 1)).to(values.dtype)
    return values[low] * (1 - share) + values[high] * share
