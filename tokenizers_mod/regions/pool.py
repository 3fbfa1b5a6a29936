"""Attention pooling of a map: one learned question over its cells."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AttentionPool(nn.Module):
    """CLIP's attention pooling (2103.00020, section 2.4) to `pooled` vectors: each query is the mean plus a row."""

    def __init__(self, channels: int, width: int, pooled: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(channels, width)
        self.query = nn.Parameter(torch.randn(pooled, width) * 0.02)
        self.attention = nn.MultiheadAttention(width, heads_for(width), batch_first=True)

    def forward(self, cells: Tensor, position: Tensor) -> Tensor:
        """Float[B hw C], Float[hw D] -> Float[B pooled D]."""
        x = self.inputs(cells)
        mean = x.mean(1, keepdim=True)
        keys = torch.cat([mean, x + position], dim=1)
        return self.attention(mean + self.query, keys, keys, need_weights=False)[0]


def heads_for(width: int) -> int:
    return max(h for h in (1, 2, 4, 8, 12, 16) if width % h == 0 and (h == 1 or width // h >= 16))
