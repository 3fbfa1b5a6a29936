"""CrossFormer and CrossFormer++ (2108.00154, 2303.06908): patches of several sizes, attention near and far by turns.

    stem      convolutions of several sizes with the smallest one's stride, side by side; LayerNorm (CEL)
    block     x += groups(LN x), adjacent cells in even blocks, cells `interval` apart in odd ones;  x += mlp(LN x)
    between   LayerNorm; convolutions of several sizes of stride 2, side by side
    ++        behind every third block that is not its stage's last: x = LN(depthwise 3x3 (x)), `cooling`

Written after the authors' code (cheerss/CrossFormer), whose numbers it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.backbones.network import Network
from generalist.tokenizers_mod.backbones.parts import FeedForward, depth_of
from generalist.tokenizers_mod.maps.base import convolved
from generalist.tokenizers_mod.maps.window import Window


class CrossScale(nn.Module):
    """Convolutions of several sizes and one stride, side by side: half of the channels by the first, half of the rest
    by the next ..., the last two alike. Float[B C H W] -> Float[B width H/stride W/stride]."""

    def __init__(self, channels: int, width: int, sizes: Sequence[int], stride: int) -> None:
        super().__init__()
        shares = [width // 2 ** (i + 1) for i in range(len(sizes) - 1)]
        shares.append(width // 2 ** (len(sizes) - 1))
        if sum(shares) != width or any(size < stride or (size - stride) % 2 for size in sizes):
            raise UserError(
                f"backbone: {width} channels by kernels {list(sizes)} of stride {stride}; the width must be a multiple "
                f"of {2 ** (len(sizes) - 1)}, and each kernel the stride and an even number more"
            )
        self.projs = nn.ModuleList(
            nn.Conv2d(channels, share, size, stride, (size - stride) // 2)
            for share, size in zip(shares, sizes, strict=True)
        )

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        return torch.cat([one(x) for one in self.projs], dim=1)


PROJS = "patch_embed.projs."


class CEL(Network):
    """CrossFormer's stem alone, one map of stride kernels[0]."""

    names: ClassVar[list[tuple[str, str]]] = [(r"^patch_embed\.projs\.", "scales.projs."), (r"^patch_embed\.", "")]
    dropped: ClassVar[str] = r"(layers|norm|head)\."

    def __init__(self, width: int = 96, kernels: Sequence[int] = (4, 8, 16, 32), in_channels: int = 3) -> None:
        super().__init__()
        self.channels, self.stride = [width], kernels[0]
        self.scales, self.norm = CrossScale(in_channels, width, kernels, kernels[0]), nn.LayerNorm(width)

    @classmethod
    def sizes(cls, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        kernels = [len(weights[f"patch_embed.projs.{i}.weight"][0, 0]) for i in range(depth_of(weights, PROJS))]
        if not kernels:
            return {}
        channels = weights[f"{PROJS}0.weight"].shape[1]
        return {"width": len(weights["patch_embed.norm.weight"]), "kernels": kernels, "in_channels": channels}

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> list[Tensor]:
        return [self.norm(self.scales(pixels).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)]


class CrossBlock(nn.Module):
    """cooling: a depthwise convolution and a LayerNorm behind it, without a residual."""

    def __init__(self, mixer: Window, width: int, hidden: int, cooling: bool) -> None:
        super().__init__()
        self.norm1, self.mixer = nn.LayerNorm(width), mixer
        self.norm2, self.mlp = nn.LayerNorm(width), FeedForward(width, hidden)
        self.ex_conv = nn.Conv2d(width, width, 3, padding=1, groups=width) if cooling else None
        self.ex_ln = nn.LayerNorm(width) if cooling else None

    def forward(self, x: Float[Tensor, "B H W D"]) -> Float[Tensor, "B H W D"]:
        x = x + self.mixer(self.norm1(x), None)
        x = x + self.mlp(self.norm2(x))
        if self.ex_conv is None or self.ex_ln is None:
            return x
        return self.ex_ln(convolved(self.ex_conv, x))


class Between(nn.Module):
    """Float[B H W D] -> Float[B H/2 W/2 2D]."""

    def __init__(self, width: int, kernels: Sequence[int]) -> None:
        super().__init__()
        self.norm, self.scales = nn.LayerNorm(width), CrossScale(width, 2 * width, kernels, 2)

    def forward(self, x: Float[Tensor, "B H W D"]) -> Float[Tensor, "B h w 2*D"]:
        return self.scales(self.norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def each_block(given: int | Sequence[int], depth: int) -> Sequence[int]:
    """One number a block. UserError for a list of another length."""
    found = [given] * depth if isinstance(given, int) else given
    if len(found) != depth:
        raise UserError(
            f"crossformer: groups or intervals {list(found)} for {depth} blocks; give a number, or one each"
        )
    return found


class CrossFormer(Network):
    """One entry a stage, of `merges` one less; width: of the first stage, doubled from stage to stage. The defaults are
    the published S; groups (4, 4, 14, 7), intervals (4, 2, 1, 1) and cooling make it a CrossFormer++. An entry of
    groups or intervals may be a list, one a block."""

    names: ClassVar[list[tuple[str, str]]] = [
        (r"^patch_embed\.projs\.", "stem.scales.projs."),
        (r"^patch_embed\.", "stem."),
        (r"^layers\.(\d+)\.blocks\.(\d+)\.", r"stages.\1.\2."),
        (r"^layers\.(\d+)\.downsample\.reductions\.", r"between.\1.scales.projs."),
        (r"^layers\.(\d+)\.downsample\.", r"between.\1."),
        (r"\.attn\.", ".mixer.attn."),
    ]
    dropped: ClassVar[str] = r"head\.|.*\.(biases|relative_position_index|attn_mask)$"

    def __init__(
        self,
        width: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        groups: Sequence[int | Sequence[int]] = (7, 7, 7, 7),
        intervals: Sequence[int | Sequence[int]] = (8, 4, 2, 1),
        ratios: Sequence[float] = (4, 4, 4, 4),
        kernels: Sequence[int] = (4, 8, 16, 32),
        merges: Sequence[Sequence[int]] = ((2, 4), (2, 4), (2, 4)),
        cooling: bool = False,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if any(len(g) != len(depths) for g in (heads, groups, intervals, ratios)) or len(merges) < len(depths) - 1:
            raise UserError(
                f"crossformer: {len(depths)} depths; heads, groups, intervals and ratios need as many entries, merges "
                "one less"
            )
        self.channels = [width * 2**i for i in range(len(depths))]
        self.stride = kernels[0] * 2 ** (len(depths) - 1)
        self.stem = CEL(width, kernels, in_channels)
        self.stages, self.between = nn.ModuleList(), nn.ModuleList()
        for stage, own in enumerate(self.channels):
            if own % heads[stage]:
                raise UserError(f"crossformer: {heads[stage]} heads do not divide a width of {own}")
            if stage:
                self.between.append(Between(self.channels[stage - 1], merges[stage - 1]))
            blocks = []
            sizes, steps = (each_block(e[stage], depths[stage]) for e in (groups, intervals))
            for i, (size, step) in enumerate(zip(sizes, steps, strict=True)):
                mixer = Window(own, heads[stage], "cross", size, step, i % 2 == 1, max(1, own // 16))
                cool = cooling and i % 3 == 2 and i < depths[stage] - 1
                blocks.append(CrossBlock(mixer, own, int(ratios[stage] * own), cool))
            self.stages.append(nn.Sequential(*blocks))
        self.norm = nn.LayerNorm(self.channels[-1])
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    @classmethod
    def sizes(cls, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """All but the sizes and intervals of the groups."""
        found: dict[str, list[Any]] = {"depths": [], "heads": [], "ratios": [], "merges": []}
        for stage in range(depth_of(weights, "layers.")):
            own, down = f"layers.{stage}.blocks.", f"layers.{stage}.downsample.reductions."
            hidden, width = weights[f"{own}0.mlp.fc1.weight"].shape
            found["depths"].append(depth_of(weights, own))
            found["heads"].append(len(weights[f"{own}0.attn.pos.pos3.2.bias"]))
            found["ratios"].append(hidden / width)
            merges = [len(weights[f"{down}{i}.weight"][0, 0]) for i in range(depth_of(weights, down))]
            found["merges"] += [merges] if merges else []
        return CEL.sizes(weights) | found | {"cooling": any(".ex_conv." in name for name in weights)}

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> list[Tensor]:
        x, maps = self.stem(pixels)[0].permute(0, 2, 3, 1), []
        for number, stage in enumerate(self.stages):
            if number:
                x = self.between[number - 1](x)
            x = stage(x)
            last = number == len(self.stages) - 1
            maps.append((self.norm(x) if last else x).permute(0, 3, 1, 2))
        return maps
