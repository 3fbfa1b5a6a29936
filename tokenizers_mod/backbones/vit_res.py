"""ViT-Res (2109.00642): a plain vision transformer whose tokens are made fewer between its blocks, with a residual.

    stem        r = conv 3x3 s2;  conv 3x3 twice, + r;  conv p/2 x p/2 of stride p/2        (batch norm and ReLU)
    block       x += attn(LN x);  x += mlp(LN x); the heads' width is free of the tokens'
    reduction   z = LN x;  cells: conv 3x3 s2 (z) + positions, + the mean of 2 x 2 cells of x
                prefix tokens: linear(z) + x; the residual's new channels are zeros

Written from the published description and proved by the authors' numbers (yilunliao/vit-search; every layer's sizes are
free, as its search needs).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad, relu

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.backbones.network import Network
from generalist.tokenizers_mod.backbones.parts import TokenBlock, map_of, resampled, tokens_of

BLOCK, HEAD, REDUCTION, STEM, PLAIN, WIDE_STEM = 1, 2, 3, 4, 0, 5  # the authors' kinds of entries


class MaskedLayerNorm(nn.Module):
    """LayerNorm over the live channels of each sample alone, Bool[B 1 C], always the first ones; others are 0.

    x is 0 at the channels that are not live. A network of several widths at once is trained with it.
    """

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "B n C"], live: Bool[Tensor, "B 1 C"]) -> Float[Tensor, "B n C"]:
        count = live.sum(-1, keepdim=True).to(x.dtype)
        mean = x.sum(-1, keepdim=True) / count
        variance = x.square().sum(-1, keepdim=True) / count - mean.square()
        return ((x - mean) * (variance + self.eps).rsqrt() * self.weight + self.bias) * live


class ConvBN(nn.Module):
    """ReLU(batch norm(conv 3x3))."""

    def __init__(self, given: int, made: int, stride: int = 1) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(given, made, 3, stride, 1, bias=False), nn.BatchNorm2d(made)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        return relu(self.bn(self.conv(x)))


class ConvStem(nn.Module):
    """Float[B C H W] -> Float[B width H/patch W/patch]."""

    def __init__(self, channels: int, width: int, patch: int, middle: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = ConvBN(channels, middle, 2), ConvBN(middle, middle), ConvBN(middle, middle)
        self.proj = nn.Conv2d(middle, width, patch // 2, patch // 2)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        first = self.conv1(x)
        return self.proj(self.conv3(self.conv2(first)) + first)


class PatchStem(nn.Module):
    """One convolution."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        return self.proj(x)


class Reduction(nn.Module):
    """A quarter of the cells, `out` channels, no fewer than `width`; odd maps are filled up with zeros."""

    def __init__(self, width: int, out: int, grid: tuple[int, int]) -> None:
        super().__init__()
        if out < width:
            raise UserError(f"vit_res: a reduction from {width} to {out} channels; they cannot become fewer")
        self.grid, self.more = grid, out - width
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.patch_reduce = nn.Conv2d(width, out, 3, 2, 1)
        self.token_transform = nn.Linear(width, out)
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, grid[0] * grid[1], out))

    def forward(
        self, prefix: Float[Tensor, "B p C"], x: Float[Tensor, "B n C"], grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor, tuple[int, int]]:
        edge = (0, grid[1] % 2, 0, grid[0] % 2)
        mean, _ = tokens_of(avg_pool2d(pad(map_of(x, grid), edge), 2))
        cells, small = tokens_of(self.patch_reduce(pad(map_of(self.norm(x), grid), edge)))
        x = cells + resampled(self.pos_embed, self.grid, *small) + pad(mean, (0, self.more))
        prefix = self.token_transform(self.norm(prefix)) + pad(prefix, (0, self.more))
        return prefix, x, small


TINY = (
    (STEM, 192),
    *(((BLOCK, (192, 3, 64), (192, 768), 1),) * 4),
    (REDUCTION, 192, 384),
    *(((BLOCK, (384, 6, 64), (384, 1536), 1),) * 4),
    (REDUCTION, 384, 768),
    *(((BLOCK, (768, 12, 64), (768, 3072), 1),) * 4),
)


class ViTRes(Network):
    """definition: an entry a part, as the authors write it: [4, width] the stem of convolutions, [5, width, its
    channels], [0, width] a plain one; [1, [width, heads, head width], [width, hidden], 1] a block, 0 an absent one;
    [3, width, out] a reduction. size: rows and columns of the pictures whose maps have the positions' size. A map in
    front of each reduction and one at the end. The default is the published Res-Tiny.
    """

    names: ClassVar[list[tuple[str, str]]] = [
        (r"^patch_embed\.conv_proj\.", "stem.proj."),
        (r"^patch_embed\.", "stem."),
    ]
    dropped: ClassVar[str] = r"(cls_head|dst_head|patch_head)\."

    def __init__(
        self,
        definition: Sequence[Any] = TINY,
        patch: int = 14,
        size: Sequence[int] = (224, 224),
        prefix: int = 1,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        kind, width, *more = definition[0]
        if kind not in (STEM, WIDE_STEM, PLAIN):
            raise UserError(f"vit_res: the definition begins with {definition[0]}; it must be a stem, such as [4, 192]")
        if kind != PLAIN and patch % 2:
            raise UserError(f"vit_res: a stem of convolutions needs an even patch, not {patch}")
        self.stem: nn.Module = PatchStem(in_channels, width, patch)
        if kind != PLAIN:
            self.stem = ConvStem(in_channels, width, patch, more[0] if kind == WIDE_STEM else 24)
        self.grid = (size[0] // patch, size[1] // patch)
        self.tokens = nn.Parameter(0.02 * torch.randn(1, prefix, width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, prefix + self.grid[0] * self.grid[1], width))
        self.blocks, self.channels, grid, self.stride = nn.ModuleList(), list[int](), self.grid, patch
        for entry in definition[1:]:
            if entry[0] == REDUCTION:
                self.channels.append(width)
                grid, self.stride, width = (-(-grid[0] // 2), -(-grid[1] // 2)), 2 * self.stride, entry[2]
                self.blocks.append(Reduction(entry[1], entry[2], grid))
            elif entry[0] == BLOCK:
                (_, heads, head_dim), (_, hidden) = entry[1], entry[2]
                self.blocks.append(TokenBlock(width, heads, hidden, head_dim) if entry[3] else nn.Identity())
            elif entry[0] != HEAD:
                raise UserError(f"vit_res: the definition holds {entry}; its entries begin with 0, 1, 2, 3, 4 or 5")
        self.channels.append(width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def states(self, pixels: Float[Tensor, "B C H W"]) -> list[tuple[Tensor, Tensor, tuple[int, int]]]:
        """Prefix tokens, cells and grid of the stem and behind every entry."""
        x, grid = tokens_of(self.stem(pixels))
        count = self.tokens.shape[1]
        prefix = (self.tokens + self.pos_embed[:, :count]).expand(len(x), -1, -1)
        states = [(prefix, x + resampled(self.pos_embed[:, count:], self.grid, *grid), grid)]
        for block in self.blocks:
            prefix, x, grid = states[-1]
            if isinstance(block, Reduction):
                states.append(block(prefix, x, grid))
            else:
                both = block(torch.cat([prefix, x], dim=1))
                states.append((both[:, :count], both[:, count:], grid))
        return states

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> list[Tensor]:
        states, maps = self.states(pixels), []
        for number, block in enumerate(self.blocks):
            if isinstance(block, Reduction):
                _, x, grid = states[number]
                maps.append(map_of(x, grid))
        _, x, grid = states[-1]
        return [*maps, map_of(self.norm(x), grid)]
