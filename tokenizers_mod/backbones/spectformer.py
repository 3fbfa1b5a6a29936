"""SpectFormer's vanilla form (2304.06446): patches, blocks of spectral gates, then of attention, all of one width.

    spectral   x += mlp(LN gate(LN x)), one residual around both
    attention  x += attn(LN x);  x += mlp(LN x)

Written after the authors' code (badripatro/SpectFormers, vanilla_architecture), whose numbers it has. The hierarchical
form is in hierarchical.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.backbones.network import Network
from generalist.tokenizers_mod.backbones.parts import (
    FeedForward,
    TokenBlock,
    depth_of,
    initialise,
    resampled,
    tokens_of,
)
from generalist.tokenizers_mod.maps.spectral import SpectralGate


class SpectralBlock(nn.Module):
    """x + mlp(norm2(filter(norm1 x))) on maps."""

    def __init__(self, width: int, hidden: int, rows: int, columns: int) -> None:
        super().__init__()
        self.norm1, self.filter = nn.LayerNorm(width, eps=1e-6), SpectralGate(width, rows, columns)
        self.norm2, self.mlp = nn.LayerNorm(width, eps=1e-6), FeedForward(width, hidden)

    def forward(self, x: Float[Tensor, "B H W D"]) -> Float[Tensor, "B H W D"]:
        return x + self.mlp(self.norm2(self.filter(self.norm1(x), None)))


class SpectFormer(Network):
    """spectral: how many of the `depth` blocks have gates; size: rows and columns of the pictures whose maps have the
    size of the gates and positions, which are resampled for others. The defaults are the published S."""

    names: ClassVar[list[tuple[str, str]]] = [(r"^patch_embed\.proj\.", "embed.")]
    dropped: ClassVar[str] = r"head\."

    def __init__(
        self,
        width: int = 384,
        depth: int = 19,
        spectral: int = 4,
        heads: int = 6,
        ratio: float = 4,
        patch: int = 16,
        size: Sequence[int] = (224, 224),
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"spectformer: {heads} heads do not divide a width of {width}")
        if not 0 <= spectral <= depth:
            raise UserError(f"spectformer: {spectral} spectral blocks of {depth}; choose 0 to {depth}")
        self.channels, self.stride = [width], patch
        self.grid = (size[0] // patch, size[1] // patch)
        self.embed = nn.Conv2d(in_channels, width, patch, patch)
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, self.grid[0] * self.grid[1], width))
        hidden = int(ratio * width)
        self.blocks = nn.ModuleList(SpectralBlock(width, hidden, *self.grid) for _ in range(spectral))
        self.blocks.extend(TokenBlock(width, heads, hidden) for _ in range(depth - spectral))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        initialise(self)

    @classmethod
    def sizes(cls, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """All but the heads."""
        if "patch_embed.proj.weight" not in weights:
            return {}
        width, channels, patch, _ = weights["patch_embed.proj.weight"].shape
        gates = [t for name, t in weights.items() if name.endswith("filter.complex_weight")]
        cells = weights["pos_embed"].shape[1]
        rows = len(gates[0]) if gates else round(cells**0.5)
        return {
            "width": width,
            "depth": depth_of(weights, "blocks."),
            "spectral": len(gates),
            "ratio": len(weights["blocks.0.mlp.fc1.bias"]) / width,
            "patch": patch,
            "size": [rows * patch, cells // rows * patch],
            "in_channels": channels,
        }

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> list[Tensor]:
        x, grid = tokens_of(self.embed(pixels))
        x = x + resampled(self.pos_embed, self.grid, *grid)
        for block in self.blocks:
            x = block(x.unflatten(1, grid)).flatten(1, 2) if isinstance(block, SpectralBlock) else block(x)
        return [self.norm(x).transpose(1, 2).unflatten(2, grid)]
