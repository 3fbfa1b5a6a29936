"""Rotary positions of two axes: queries and keys are turned by the place of their token (2104.09864, section 3.2).

A head of width d is d / 2 pairs of channels (i, i + d / 2); the first half of the pairs turns by the token's row, the
second by its column (2303.11331, EVA-02, section 2.1; 2403.13298, section 3.1: "axial frequency"):

    angle = position * temperature^(-4 i / d), i = 0 .. d / 4 - 1        position = (row + offset) / rows * reference

so that a score depends on where two patches stand to one another. With `reference` a picture of any size spans the
same angles; without it, position = row + offset. A token without a place (a summary, a text, a set) is not turned:
it stands at position 0. Pictures of one sequence, and frames of a film, stand below one another: the rows of a map go
on from those of the map before it, `reference` rows a map where that is set. Angles are computed once a pass, for all
layers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.batch.at import At
from generalist.nn.attention.positions.base import Position


class Rotary(Position):
    """width: of a head. reference: rows and columns of the grid that every picture is brought to, 0 = its own."""

    def __init__(
        self, width: int, heads: int = 1, temperature: float = 10000.0, reference: int = 0, offset: float = 0.0
    ) -> None:
        super().__init__()
        if width % 4:
            raise UserError(f"model: heads of width {width} have no rotary positions of two axes; use a multiple of 4")
        if temperature <= 0 or reference < 0:
            raise UserError("model: rotary needs temperature > 0 and reference >= 0 (0 = every grid its own)")
        self.width, self.temperature, self.reference, self.offset = width, temperature, reference, offset

    def angles(self, place: Tensor) -> Tensor:
        """place: Int[N 6] (`generalist.data.batch.cells`) -> the cosine and sine of the angles, Float[2 N 1
        width/2]."""
        at, size = place[:, :2].float() + self.offset, place[:, 2:4].float()
        above = place[:, 5]
        if self.reference:
            at, above = at / size.clamp(min=1) * self.reference, place[:, 4] * self.reference
        at = torch.stack([at[:, 0] + above, at[:, 1]], dim=1)
        at = at * (size > 0)  # the offset is for those that have a place
        quarter = self.width // 4
        power = torch.arange(quarter, device=place.device, dtype=torch.float32) / quarter
        angle = (at.unsqueeze(-1) / self.temperature**power).flatten(1)
        return torch.stack([angle.cos(), angle.sin()]).unsqueeze(2)

    def turn(self, q: Tensor, k: Tensor, at: At) -> tuple[Tensor, Tensor]:
        own = ("angles", self.width, self.temperature, self.reference, self.offset)
        angles = at.once(own, lambda: self.angles(at.place))
        return turn(q, angles), turn(k, angles)


def turn(x: Tensor, angles: Tensor) -> Tensor:
    """Queries or keys Float[N H d], turned by Float[2 N 1 d/2]; computed in float32 at least, the type stays."""
    a, b = x.chunk(2, dim=-1)
    cosine, sine = angles
    return torch.cat([a * cosine - b * sine, b * cosine + a * sine], dim=-1).to(x.dtype)
