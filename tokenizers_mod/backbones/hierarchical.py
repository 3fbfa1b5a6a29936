"""The frame of SpectFormer's hierarchical form (2304.06446) and of SVT (2311.01310): stages of one mixer each.

    stem      conv 7x7 s2, 2 x conv 3x3, each with batch norm and ReLU; conv 3x3 s2, LayerNorm
    block     x += mixer(LN x);  x += fc2(GELU(depthwise 3x3 (fc1 LN x)))
    between   LayerNorm at the end of a stage; conv 3x3 s2, LayerNorm

Written after the authors' code (badripatro/SpectFormers, badripatro/svt), whose numbers both have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from generalist.data.base.errors import UserError, nearest
from generalist.tokenizers_mod.backbones.network import Network
from generalist.tokenizers_mod.backbones.parts import depth_of, initialise
from generalist.tokenizers_mod.maps.base import MapOperator, convolved
from generalist.tokenizers_mod.maps.scattering import Scattering
from generalist.tokenizers_mod.maps.spectral import SpectralGate

MIXERS = ("attention", "spectral_gate", "scattering")
# which mixer an official block has, by the name of one of its weights
MARKS = {"complex_weight": "spectral_gate", "complex_weight_ll": "scattering", "q.weight": "attention"}


class MapAttention(MapOperator):
    """Attention among all cells of a map, all real."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.kv, self.proj = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "G H W D"], real: Bool[Tensor, "G H W"] | None) -> Float[Tensor, "G H W D"]:
        cells = x.flatten(1, 2)
        q = self.q(cells).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(cells).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)).view_as(x)


class ConvFeedForward(nn.Module):
    """fc2(GELU(depthwise 3x3 (fc1 x))): PVT v2's."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.local = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)

    def forward(self, x: Float[Tensor, "B H W D"]) -> Float[Tensor, "B H W D"]:
        return self.fc2(gelu(convolved(self.local, self.fc1(x))))


class HierarchicalBlock(nn.Module):
    """x += attn(norm1 x); x += mlp(norm2 x), on maps."""

    def __init__(self, mixer: MapOperator, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, eps=1e-6), mixer
        self.norm2, self.mlp = nn.LayerNorm(width, eps=1e-6), ConvFeedForward(width, hidden)

    def forward(self, x: Float[Tensor, "B H W D"]) -> Float[Tensor, "B H W D"]:
        x = x + self.attn(self.norm1(x), None)
        return x + self.mlp(self.norm2(x))


class Embed(nn.Module):
    """Float[B C H W] -> Float[B H/2 W/2 width], behind a stem Float[B width H/4 W/4] with one half its size."""

    def __init__(self, channels: int, width: int, stem: int = 0) -> None:
        """stem: channels of the three convolutions in front, 0 for none."""
        super().__init__()
        parts: list[nn.Module] = []
        for number in range(3 if stem else 0):
            size, stride, given = (3, 1, stem) if number else (7, 2, channels)
            parts += [nn.Conv2d(given, stem, size, stride, size // 2, bias=False), nn.BatchNorm2d(stem), nn.ReLU()]
        self.conv = nn.Sequential(*parts)
        self.proj = nn.Conv2d(stem or channels, width, 3, 2, 1)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B h w D"]:
        return self.norm(self.proj(self.conv(x)).permute(0, 2, 3, 1))


class Hierarchical(Network):
    """One entry a stage. mixers: of MIXERS; size: rows and columns of the pictures whose maps have the gates' size."""

    names: ClassVar[list[tuple[str, str]]] = [
        (r"^patch_embed(\d+)\.", r"embed.\1."),
        (r"^block(\d+)\.", r"blocks.\1."),
        (r"^norm(\d+)\.", r"norms.\1."),
        (r"mlp\.dwconv\.dwconv\.", "mlp.local."),
    ]
    dropped: ClassVar[str] = r"(post_network|head|aux_head)\.|.*\.attn\.[xi]fm\."

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 320, 448),
        depths: Sequence[int] = (3, 4, 6, 3),
        heads: Sequence[int] = (2, 4, 10, 14),
        ratios: Sequence[float] = (8, 8, 4, 4),
        mixers: Sequence[str] = ("attention", "attention", "attention", "attention"),
        stem: int = 32,
        size: Sequence[int] = (224, 224),
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        each = (depths, heads, ratios, mixers)
        if any(len(given) != len(widths) for given in each):
            raise UserError(f"backbone: {len(widths)} widths; depths, heads, ratios and mixers need as many entries")
        self.channels, self.stride = list(widths), 2 ** (len(widths) + 1)
        self.embed, self.blocks, self.norms = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        given, grid = in_channels, [-(-side // 2) for side in size]
        for number, (width, depth, head, ratio, mixer) in enumerate(zip(widths, *each, strict=True), 1):
            grid = [-(-side // 2) for side in grid]
            self.embed[str(number)] = Embed(given, width, stem if number == 1 else 0)
            made = [HierarchicalBlock(built(mixer, width, head, grid), width, int(ratio * width)) for _ in range(depth)]
            self.blocks[str(number)] = nn.Sequential(*made)
            self.norms[str(number)] = nn.LayerNorm(width, eps=1e-6)
            given = width
        initialise(self)

    @classmethod
    def sizes(cls, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """All but the heads, and of gates alone whether the columns are odd in number."""
        found: dict[str, list[Any]] = {"widths": [], "depths": [], "ratios": [], "mixers": []}
        size: list[int] = []
        for stage in range(1, 1 + sum(name.endswith(".proj.bias") for name in weights if name.startswith("patch_"))):
            own = f"block{stage}.0."
            hidden, width = weights[f"{own}mlp.fc1.weight"].shape
            mixer = next(m for mark, m in MARKS.items() if f"{own}attn.{mark}" in weights)
            gate = weights.get(f"{own}attn.complex_weight"), weights.get(f"{own}attn.complex_weight_ll")
            grid = [] if gate[0] is None else [len(gate[0]), 2 * (gate[0].shape[1] - 1)]
            grid = grid if gate[1] is None else list(gate[1].shape[1:])
            size = size or [side * 2 ** (stage + 1) for side in grid]
            for name, value in zip(
                found, (width, depth_of(weights, f"block{stage}."), hidden / width, mixer), strict=True
            ):
                found[name].append(value)
        if not found["widths"]:
            return {}
        stem, channels = weights["patch_embed1.conv.0.weight"].shape[:2]
        return found | {"stem": stem, "in_channels": channels} | ({"size": size} if size else {})

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> list[Tensor]:
        x, maps = pixels, []
        for stage in self.embed:
            x = self.norms[stage](self.blocks[stage](self.embed[stage](x))).permute(0, 3, 1, 2)
            maps.append(x)
        return maps


def built(mixer: str, width: int, heads: int, grid: list[int]) -> MapOperator:
    """A mixer by name, its weights of this grid's size."""
    if mixer not in MIXERS:
        raise UserError(f"backbone: mixer {mixer!r}; {nearest(mixer, MIXERS)} (valid: {', '.join(MIXERS)})")
    if mixer == "attention":
        if width % heads:
            raise UserError(f"backbone: {heads} heads do not divide a width of {width}")
        return MapAttention(width, heads)
    rows, columns = grid
    return (
        SpectralGate(width, rows, columns) if mixer == "spectral_gate" else Scattering(width, "channel", rows, columns)
    )


class HierarchicalSpectFormer(Hierarchical):
    """SpectFormer-H-S: spectral gates in the first two stages, attention in the last."""

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 320, 448),
        depths: Sequence[int] = (3, 4, 6, 3),
        heads: Sequence[int] = (2, 4, 10, 14),
        ratios: Sequence[float] = (8, 8, 4, 4),
        mixers: Sequence[str] = ("spectral_gate", "spectral_gate", "attention", "attention"),
        stem: int = 32,
        size: Sequence[int] = (224, 224),
        in_channels: int = 3,
    ) -> None:
        super().__init__(widths, depths, heads, ratios, mixers, stem, size, in_channels)


class SVT(Hierarchical):
    """SVT-H-S: scattering in the first stage, attention behind it."""

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 320, 448),
        depths: Sequence[int] = (3, 4, 6, 3),
        heads: Sequence[int] = (2, 4, 10, 14),
        ratios: Sequence[float] = (8, 8, 4, 4),
        mixers: Sequence[str] = ("scattering", "attention", "attention", "attention"),
        stem: int = 32,
        size: Sequence[int] = (224, 224),
        in_channels: int = 3,
    ) -> None:
        super().__init__(widths, depths, heads, ratios, mixers, stem, size, in_channels)
