"""What several published networks share: plain blocks of tokens, their start, positions resampled for other maps."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention


class SelfAttention(nn.Module):
    """Multi-head self-attention over Float[B n D]; head_dim: width of a head, 0 for width / heads."""

    def __init__(self, width: int, heads: int, head_dim: int = 0, bias: bool = True) -> None:
        super().__init__()
        inner = heads * (head_dim or width // heads)
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * inner, bias=bias), nn.Linear(inner, width)

    def forward(self, x: Float[Tensor, "B n D"]) -> Float[Tensor, "B n D"]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """fc2(GELU(fc1 x))."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class TokenBlock(nn.Module):
    """x += attn(norm1 x); x += mlp(norm2 x), over Float[B n D]."""

    def __init__(self, width: int, heads: int, hidden: int, head_dim: int = 0, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, eps=eps), SelfAttention(width, heads, head_dim)
        self.norm2, self.mlp = nn.LayerNorm(width, eps=eps), FeedForward(width, hidden)

    def forward(self, x: Float[Tensor, "B n D"]) -> Float[Tensor, "B n D"]:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def initialise(network: nn.Module) -> None:
    """Linears from a truncated normal of .02, convolutions from a normal of sqrt(2 / outputs they feed), no biases."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
        elif isinstance(module, nn.Conv2d):
            rows, columns = module.kernel_size
            nn.init.normal_(module.weight, std=sqrt(2 * module.groups / (rows * columns * module.out_channels)))
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def depth_of(weights: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered parts stand behind a prefix ("blocks.")."""
    return len({name.removeprefix(prefix).partition(".")[0] for name in weights if name.startswith(prefix)})


def resampled(places: Float[Tensor, "1 n D"], grid: tuple[int, int], rows: int, columns: int) -> Float[Tensor, "1 m D"]:
    """Positions of a grid's cells for a map of another size, bicubic; the same where it is its own."""
    if grid == (rows, columns):
        return places
    maps = places.unflatten(1, grid).permute(0, 3, 1, 2)
    return interpolate(maps, (rows, columns), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)


def tokens_of(x: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B n C"], tuple[int, int]]:
    """The cells of a map as tokens, row by row, and its size."""
    return x.flatten(2).transpose(1, 2), (x.shape[2], x.shape[3])


def map_of(x: Float[Tensor, "B n C"], grid: tuple[int, int]) -> Float[Tensor, "B C H W"]:
    """The way back."""
    return x.transpose(1, 2).unflatten(2, grid)
