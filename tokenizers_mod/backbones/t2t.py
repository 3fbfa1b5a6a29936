"""The tokens-to-token stem of T2T-ViT (2101.11986): windows that overlap become tokens, mixed between each two cuts.

    cut 7x7 s4 -> token module -> cut 3x3 s2 -> token module -> cut 3x3 s2 -> linear

A token module brings the cells of a window to `inner` channels: with a performer (kernel attention by fixed random
features, linear in tokens) or with softmax attention of one head. Written after the authors' code
(yitu-opensource/T2T-ViT), whose numbers it has; maps need not be square here.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention, unfold

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.backbones.network import Network

CUTS = ((7, 4, 2), (3, 2, 1), (3, 2, 1))  # kernel, stride and padding


class Performer(nn.Module):
    """Float[B n D] -> Float[B n inner]: v + proj(y), then + MLP(norm2); y_i = phi(q_i) S / (phi(q_i) z + 1e-8), S the
    sum of phi(k_j) v_j, z that of phi(k_j), phi(u) = exp(u w - |u|^2 / 2) / sqrt(m), w fixed, orthogonal, m = inner/2.
    """

    w: Tensor

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.features = inner // 2
        self.norm1, self.kqv = nn.LayerNorm(width), nn.Linear(width, 3 * inner)
        self.proj, self.norm2 = nn.Linear(inner, inner), nn.LayerNorm(inner)
        self.mlp = nn.Sequential(nn.Linear(inner, inner), nn.GELU(), nn.Linear(inner, inner))
        self.w = nn.Parameter(torch.empty(self.features, inner), requires_grad=False)
        nn.init.orthogonal_(self.w, sqrt(self.features))

    def phi(self, u: Float[Tensor, "B n inner"]) -> Float[Tensor, "B n m"]:
        return torch.exp(u @ self.w.T - u.square().sum(-1, keepdim=True) / 2) / sqrt(self.features)

    def forward(self, x: Float[Tensor, "B n D"]) -> Float[Tensor, "B n inner"]:
        k, q, v = self.kqv(self.norm1(x)).chunk(3, dim=-1)
        k, q = self.phi(k), self.phi(q)
        sums = k.transpose(1, 2) @ v
        y = (q @ sums) / (q @ k.sum(1).unsqueeze(-1) + 1e-8)
        y = v + self.proj(y)
        return y + self.mlp(self.norm2(y))


class TokenTransformer(nn.Module):
    """Float[B n D] -> Float[B n inner]: v + proj(softmax(q k^T / sqrt(D)) v), then + fc2(GELU(fc1 norm2))."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.scale = width**-0.5  # of what comes in, as published
        self.norm1, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * inner, bias=False)
        self.proj, self.norm2 = nn.Linear(inner, inner), nn.LayerNorm(inner)
        self.fc1, self.fc2 = nn.Linear(inner, inner), nn.Linear(inner, inner)

    def forward(self, x: Float[Tensor, "B n D"]) -> Float[Tensor, "B n inner"]:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        y = v + self.proj(scaled_dot_product_attention(q, k, v, scale=self.scale))
        return y + self.fc2(gelu(self.fc1(self.norm2(y))))


MODULES: dict[str, type[Performer | TokenTransformer]] = {"performer": Performer, "transformer": TokenTransformer}


class T2T(Network):
    """One map of stride 16. style: of the token modules, "performer" or "transformer"; inner: their channels."""

    names: ClassVar[list[tuple[str, str]]] = [
        (r"^tokens_to_token\.", ""),
        (r"\.attn\.", "."),
        (r"\.mlp\.fc", ".fc"),
    ]
    dropped: ClassVar[str] = r"(blocks|norm|head)\.|(cls_token|pos_embed)$"

    def __init__(self, width: int = 384, inner: int = 64, style: str = "performer", in_channels: int = 3) -> None:
        super().__init__()
        if style not in MODULES:
            raise UserError(f"t2t: style {style!r}; it is {' or '.join(MODULES)}")
        if inner < 2 or inner % 2:
            raise UserError(f"t2t: inner={inner}; an even number of channels is needed, such as 64")
        self.channels, self.stride = [width], 16
        self.attention1 = MODULES[style](in_channels * 49, inner)
        self.attention2 = MODULES[style](inner * 9, inner)
        self.project = nn.Linear(inner * 9, width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @classmethod
    def sizes(cls, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        stem = "tokens_to_token."
        if f"{stem}project.weight" not in weights:
            return {}
        width, cells = weights[f"{stem}project.weight"].shape
        return {
            "width": width,
            "inner": cells // 9,
            "style": "performer" if f"{stem}attention1.w" in weights else "transformer",
            "in_channels": len(weights[f"{stem}attention1.norm1.weight"]) // 49,
        }

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> list[Tensor]:
        x = pixels
        for cuts, module in zip(CUTS, (self.attention1, self.attention2, self.project), strict=True):
            cells, grid = cut(x, *cuts)
            x = module(cells).transpose(1, 2).unflatten(2, grid)
        return [x]


def cut(
    x: Float[Tensor, "B C H W"], kernel: int, stride: int, padding: int
) -> tuple[Float[Tensor, "B n Ckk"], tuple[int, int]]:
    """Windows that overlap, channel by channel, and their grid."""
    rows, columns = ((side + 2 * padding - kernel) // stride + 1 for side in x.shape[2:])
    return unfold(x, kernel, padding=padding, stride=stride).transpose(1, 2), (rows, columns)
