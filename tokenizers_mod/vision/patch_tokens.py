"""A picture's device half: patches of pixels to tokens, their place added."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.base.base import sincos
from generalist.tokenizers_mod.base.tokenizer import Tokenizer, is_plain, taken


class PatchEmbedding(Tokenizer):
    """Linear map (or stem) of flattened patches plus 2-D sine-cosine positions brought to scale by a learned gain.

    grid: whole positions lie below it. The map of positions is linear and a position is (row, column), so it is
    computed once a row and once a column of the grid; positions between or beyond them (floats) once a token.
    """

    def __init__(self, inputs: int, width: int, grid: int, stem: nn.Module | None = None) -> None:
        super().__init__()
        if width % 4:
            raise UserError(f"image: width {width} is not a multiple of 4, which 2-D sine-cosine positions need")
        self.projection = nn.Linear(inputs, width) if stem is None else stem
        self.position = nn.Linear(width, width, bias=False)
        if isinstance(self.projection, nn.Linear):
            nn.init.zeros_(self.projection.bias)
        # quieter than the patches: what all pictures share must not drown what they differ in
        nn.init.eye_(self.position.weight)
        with torch.no_grad():
            self.position.weight.mul_(0.2)
        self.width, self.grid = width, grid

    def forward(self, data: dict[str, Tensor]) -> Tensor:
        half, weight = self.width // 2, self.position.weight
        patch = self.projection(taken(data["patch"], self.position))
        if data["position"].is_floating_point() or not is_plain(weight):
            return patch + self.position(taken(sincos(data["position"], half).flatten(-2), self.position))
        table = sincos(torch.arange(self.grid, device=weight.device), half).to(weight.dtype)
        rows, columns = (nn.functional.linear(table, part) for part in weight.split(half, dim=1))
        place = nn.functional.embedding(data["position"][:, 0], rows)
        place = place + nn.functional.embedding(data["position"][:, 1], columns)
        return patch + place
