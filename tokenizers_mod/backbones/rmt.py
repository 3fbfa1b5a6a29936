"""RMT (Retentive Networks Meet Vision Transformers, 2309.11523): four stages of Manhattan attention.

    stem      conv 3x3 s2, conv 3x3, conv 3x3 s2, conv 3x3, each with batch norm, all but the last with GELU
    block     x += depthwise 3x3;  x += g1 * manhattan(LN x);  x += g2 * fc2(u + depthwise 3x3 (u)), u = GELU(fc1 LN x)
    between   conv 3x3 s2, batch norm

Written after the authors' code (qhfan/RMT), whose numbers it has; weights by `generalist convert backbone --kind rmt`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.backbones.network import Network
from generalist.tokenizers_mod.maps.base import convolved
from generalist.tokenizers_mod.maps.decay import Manhattan


class FeedForward(nn.Module):
    """fc2(u + depthwise 3x3 (u)), u = GELU(fc1 x)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.local = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)

    def forward(self, x: Float[Tensor, "B H W D"]) -> Float[Tensor, "B H W D"]:
        x = nn.functional.gelu(self.fc1(x))
        return self.fc2(x + convolved(self.local, x))


class RMTBlock(nn.Module):
    """layer_scale: initial gain of the residual branches a channel, 0 for none."""

    def __init__(self, mixer: Manhattan, width: int, hidden: int, layer_scale: float = 0.0) -> None:
        super().__init__()
        self.position = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm1, self.mixer = nn.LayerNorm(width, eps=1e-6), mixer
        self.norm2, self.mlp = nn.LayerNorm(width, eps=1e-6), FeedForward(width, hidden)
        self.gamma1: nn.Parameter | None = None
        self.gamma2: nn.Parameter | None = None
        if layer_scale:
            self.gamma1 = nn.Parameter(torch.full((width,), layer_scale))
            self.gamma2 = nn.Parameter(torch.full((width,), layer_scale))

    def forward(self, x: Float[Tensor, "B H W D"]) -> Float[Tensor, "B H W D"]:
        x = x + convolved(self.position, x)
        mixed = self.mixer(self.norm1(x), None)
        x = x + (mixed if self.gamma1 is None else self.gamma1 * mixed)
        mixed = self.mlp(self.norm2(x))
        return x + (mixed if self.gamma2 is None else self.gamma2 * mixed)


class RMT(Network):
    """One entry a stage; the defaults are the published T. axes: whether attention runs along axes; scaled: whether
    the residual branches have a gain a channel that starts at `layer_scale`."""

    names: ClassVar[list[tuple[str, str]]] = [
        (r"^patch_embed\.proj\.", "stem."),
        (r"^layers\.(\d+)\.blocks\.(\d+)\.", r"stages.\1.\2."),
        (r"^layers\.(\d+)\.downsample\.reduction\.", r"between.\1.0."),
        (r"^layers\.(\d+)\.downsample\.norm\.", r"between.\1.1."),
        (r"retention_layer_norm\.", "norm1."),
        (r"final_layer_norm\.", "norm2."),
        (r"retention\.lepe\.conv\.", "mixer.local."),
        (r"retention\.(q|k|v|out)_proj\.", r"mixer.\1."),
        (r"ffn\.dwconv\.conv\.", "mlp.local."),
        (r"ffn\.", "mlp."),
        (r"pos\.conv\.", "position."),
        (r"gamma_", "gamma"),
    ]
    dropped: ClassVar[str] = r"(proj|norm|head)\.|layers\.\d+\.Relpos\."

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (2, 2, 8, 2),
        heads: Sequence[int] = (4, 4, 8, 16),
        spans: Sequence[float] = (4, 4, 6, 6),
        ratios: Sequence[float] = (3, 3, 3, 3),
        axes: Sequence[bool] = (True, True, False, False),
        initials: Sequence[float] = (2, 2, 2, 2),
        scaled: Sequence[bool] = (False, False, False, False),
        layer_scale: float = 1e-6,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        each = (depths, heads, spans, ratios, axes, initials, scaled)
        if any(len(given) != len(widths) for given in each):
            raise UserError(f"rmt: {len(widths)} widths; depths, heads, spans, ratios ... need as many entries")
        self.channels, self.stride = list(widths), 2 ** (len(widths) + 1)
        self.stem = stem(in_channels, widths[0])
        self.stages = nn.ModuleList()
        for width, depth, head, span, ratio, along, initial, gain in zip(widths, *each, strict=True):
            self.stages.append(
                nn.Sequential(
                    *(
                        RMTBlock(
                            Manhattan(width, head, along, initial, span),
                            width,
                            int(ratio * width),
                            layer_scale if gain else 0.0,
                        )
                        for _ in range(depth)
                    )
                )
            )
        self.between = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b)) for a, b in pairwise(widths)
        )

    @classmethod
    def sizes(cls, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """All but which stages run along axes."""
        found: dict[str, list[Any]] = {name: [] for name in ("widths", "depths", "heads", "spans", "ratios", "scaled")}
        found["initials"] = []
        stage = 0
        while f"layers.{stage}.blocks.0.ffn.fc1.weight" in weights:
            own = f"layers.{stage}.blocks."
            hidden, width = weights[f"{own}0.ffn.fc1.weight"].shape
            powers = -torch.log2(1 - weights[f"layers.{stage}.Relpos.decay"].double().exp())  # initial + span n / heads
            heads = len(powers)
            span = float(powers[1] - powers[0]) * heads if heads > 1 else 0.0
            depth = 1 + max(int(key.split(".")[3]) for key in weights if key.startswith(own))
            values = (width, depth, heads, round(span, 3), hidden / width, f"{own}0.gamma_1" in weights)
            for name, value in zip(found, values, strict=False):
                found[name].append(value)
            found["initials"].append(round(float(powers[0]), 3))
            stage += 1
        return found | {"layer_scale": 1.0} if stage else {}

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> list[Tensor]:
        x, maps = self.stem(pixels), []
        for number, stage in enumerate(self.stages):
            if number:
                x = self.between[number - 1](x)
            x = stage(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            maps.append(x)
        return maps


def stem(channels: int, width: int) -> nn.Sequential:
    """Float[B channels H W] -> Float[B width H/4 W/4]."""
    half, parts = width // 2, list[nn.Module]()
    sizes = [(channels, half, 2), (half, half, 1), (half, width, 2), (width, width, 1)]
    for number, (given, made, stride) in enumerate(sizes):
        parts += [nn.Conv2d(given, made, 3, stride, 1), nn.BatchNorm2d(made)]
        parts += [nn.GELU()] if number < len(sizes) - 1 else []
    return nn.Sequential(*parts)
