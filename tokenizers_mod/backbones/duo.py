"""DuoFormer's scale tokens (2024): a pyramid becomes one map, each of whose cells has looked at all scales under it.

The cells of finer maps that lie under one cell of the coarsest, all brought to one width, stand behind a scale token
and attend to each other in plain blocks; the scale token is then the cell's. As a backbone:

    backbone={"model_type": "stages", "kind": "duo", "width": 64, "scales": 3,
              "body": {"model_type": "stages", "kind": "rmt", ...}}

body: any backbone of transformers' or timm's API whose maps halve from one to the next. Written after the authors' code
(xiaoyatang/duoformer_TCGA, scale_attention.py); of its attention among cells the shared encoder takes the place.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoBackbone

from generalist.data.base.errors import UserError, nearest
from generalist.tokenizers_mod.backbones.network import Network
from generalist.tokenizers_mod.backbones.parts import TokenBlock, initialise


class ScaleAttention(nn.Module):
    """Float[B n S D] -> Float[B n D]: blocks of attention among the S tokens of each cell; what became of the first."""

    def __init__(self, width: int, tokens: int, depth: int, heads: int, ratio: float = 4) -> None:
        super().__init__()
        self.pos_embed_for_scale = nn.Parameter(0.02 * torch.randn(1, 1, tokens, width))
        self.scaleBlocks = nn.ModuleList(TokenBlock(width, heads, int(ratio * width)) for _ in range(depth))

    def forward(self, x: Float[Tensor, "B n S D"]) -> Float[Tensor, "B n D"]:
        cells = (x + self.pos_embed_for_scale).flatten(0, 1)
        for block in self.scaleBlocks:
            cells = block(cells)
        return cells[:, 0].unflatten(0, x.shape[:2])


def under(fine: Float[Tensor, "B D H W"], rows: int, columns: int) -> Float[Tensor, "B n k D"]:
    """The cells of a finer map that lie under each cell of one of rows x columns, row by row; of 2 x 2 cells column by
    column, as published."""
    tall, wide = fine.shape[2] // rows, fine.shape[3] // columns
    tiles = fine.unflatten(3, (columns, wide)).unflatten(2, (rows, tall)).permute(0, 2, 4, 3, 5, 1)
    if (tall, wide) == (2, 2):
        tiles = tiles.transpose(3, 4)
    return tiles.flatten(3, 4).flatten(1, 2)


class Duo(Network):
    """scales: how many of the body's maps, the coarsest; depth: blocks of attention among scales."""

    names: ClassVar[list[tuple[str, str]]] = [
        (r"^(scaleBlocks|pos_embed_for_scale)", r"attention.\1"),
    ]
    dropped: ClassVar[str] = r"(blocks|fc_norm|head)\.|(cls_token|pos_embed)$"

    def __init__(
        self,
        body: dict[str, Any] | None = None,
        width: int = 128,
        scales: int = 3,
        depth: int = 2,
        heads: int = 4,
        ratio: float = 4,
    ) -> None:
        super().__init__()
        settings = dict(body or {"model_type": "stages", "kind": "rmt"})
        kind = settings.pop("model_type", "")
        if kind not in CONFIG_MAPPING:
            raise UserError(f"duo: unknown body {kind!r}; {nearest(kind, CONFIG_MAPPING)}")
        if width % heads:
            raise UserError(f"duo: {heads} heads do not divide a width of {width}")
        self.body = AutoBackbone.from_config(CONFIG_MAPPING[kind](**settings))
        given = self.body.channels
        if not 1 <= scales <= len(given):
            raise UserError(f"duo: scales={scales} of a body with {len(given)} maps; choose 1 to {len(given)}")
        self.channels, self.scales = [width], scales
        self.projections = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in reversed(given[-scales:]))
        self.scale_token = nn.Parameter(0.036 * torch.randn(1, 1, 1, width))
        self.attention = ScaleAttention(width, 1 + sum(4**i for i in range(scales)), depth, heads, ratio)
        initialise(self.projections)
        initialise(self.attention)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> list[Tensor]:
        maps = list(self.body(pixels).feature_maps)[-self.scales :]
        rows, columns = maps[-1].shape[2:]
        tokens = [self.scale_token.expand(len(pixels), rows * columns, -1, -1)]
        for number, (fine, to) in enumerate(zip(reversed(maps), self.projections, strict=True)):
            if fine.shape[2:] != (rows * 2**number, columns * 2**number):
                shapes = ", ".join(f"{m.shape[2]} x {m.shape[3]}" for m in maps)
                raise UserError(f"duo: the body's maps of {shapes} cells do not halve; take sides of whole strides")
            tokens.append(under(to(fine), rows, columns))
        mixed = self.attention(torch.cat(tokens, dim=2))
        return [mixed.transpose(1, 2).unflatten(2, (rows, columns))]
