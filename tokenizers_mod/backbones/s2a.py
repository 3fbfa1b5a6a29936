"""S2AFormer (2025): four stages of strip attention between convolutions.

    stem      three conv 3x3, the first of stride 2, each with batch norm and GELU; conv 3x3 s2, LayerNorm
    block     f1 = x + depthwise 3x3 (x);  f2 = f1 + strip(LN f1);  f3 = f2 + local(LN f2);  f3 + mlp(LN f3)
    local     depthwise 3x3, GELU, batch norm, depthwise 3x3
    between   conv 3x3 s2, LayerNorm

From the paper's description, not compared with the authors' code; the sizes are ours.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.backbones.network import Network
from generalist.tokenizers_mod.backbones.parts import FeedForward, initialise
from generalist.tokenizers_mod.maps.base import convolved
from generalist.tokenizers_mod.maps.strip import Strip


def depthwise(width: int) -> nn.Conv2d:
    return nn.Conv2d(width, width, 3, padding=1, groups=width)


class Down(nn.Module):
    """Float[B C H W] -> Float[B H/2 W/2 width]."""

    def __init__(self, given: int, width: int) -> None:
        super().__init__()
        self.proj, self.norm = nn.Conv2d(given, width, 3, 2, 1), nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B h w D"]:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class S2ABlock(nn.Module):
    """A hybrid perception block, on maps."""

    def __init__(self, mixer: Strip, width: int, hidden: int) -> None:
        super().__init__()
        self.position, self.mixer = depthwise(width), mixer
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.local = nn.Sequential(depthwise(width), nn.GELU(), nn.BatchNorm2d(width), depthwise(width))
        self.mlp = FeedForward(width, hidden)

    def forward(self, x: Float[Tensor, "B H W D"]) -> Float[Tensor, "B H W D"]:
        x = x + convolved(self.position, x)
        x = x + self.mixer(self.norm1(x), None)
        x = x + self.local(self.norm2(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.mlp(self.norm3(x))


class S2AFormer(Network):
    """One entry a stage. reduces: by how much keys and values are fewer along each side; strip: channels a head of
    queries and keys."""

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 128, 256),
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (1, 2, 4, 8),
        reduces: Sequence[int] = (8, 4, 2, 1),
        ratios: Sequence[float] = (4, 4, 4, 4),
        strip: int = 1,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        each = (depths, heads, reduces, ratios)
        if any(len(given) != len(widths) for given in each):
            raise UserError(f"s2a: {len(widths)} widths; depths, heads, reduces and ratios need as many entries")
        self.channels, self.stride = list(widths), 2 ** (len(widths) + 1)
        parts: list[nn.Module] = []
        for number in range(3):
            parts += [nn.Conv2d(widths[0] if number else in_channels, widths[0], 3, 1 if number else 2, 1)]
            parts += [nn.BatchNorm2d(widths[0]), nn.GELU()]
        self.stem, self.downs, self.stages = nn.Sequential(*parts), nn.ModuleList(), nn.ModuleList()
        given = widths[0]
        for width, depth, head, reduce, ratio in zip(widths, *each, strict=True):
            if width % head:
                raise UserError(f"s2a: {head} heads do not divide a width of {width}")
            self.downs.append(Down(given, width))
            made = [S2ABlock(Strip(width, head, reduce, strip), width, int(ratio * width)) for _ in range(depth)]
            self.stages.append(nn.Sequential(*made))
            given = width
        initialise(self)

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> list[Tensor]:
        x, maps = self.stem(pixels), []
        for down, stage in zip(self.downs, self.stages, strict=True):
            x = stage(down(x)).permute(0, 3, 1, 2)
            maps.append(x)
        return maps
