"""A table's device half: a token a cell, of its column and of its value."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import embedding, embedding_bag

from generalist.tokenizers_mod.base.tokenizer import Tokenizer
from generalist.tokenizers_mod.tables.schema import Column


class TableTokens(Tokenizer):
    """column vector + (category vector, or the number's features times the column's own weights).

    Features of a number z: [asinh z, one a bin: how much of the bin lies below z, in 0..1].
    """

    left: Tensor
    wide: Tensor

    def __init__(self, columns: list[Column], categories: int, width: int) -> None:
        super().__init__()
        self.column = nn.Parameter(torch.randn(max(len(columns), 1), width) * 0.5)
        self.category = nn.Parameter(torch.randn(categories, width) * 0.5)
        left, wide = _bins(columns)
        self.register_buffer("left", left)
        self.register_buffer("wide", wide)
        features = 1 + left.shape[1]
        self.weight = nn.Parameter(torch.randn(len(left) * features, width) / features**0.5)

    def forward(self, data: dict[str, Tensor]) -> Float[Tensor, "N width"]:
        """{"column": [N], "value": [N], "category": [N]} -> [N, width]."""
        column, value, category = data["column"], data["value"].float(), data["category"]
        filled = ((value.unsqueeze(-1) - self.left[column].float()) / self.wide[column].float()).clamp(0, 1)
        features = torch.cat([value.asinh().unsqueeze(-1), filled], dim=-1)
        number = (category == NUMBER).unsqueeze(-1)
        features = (features * number).to(self.weight.dtype)
        size = features.shape[-1]
        index = column.unsqueeze(-1) * size + torch.arange(size, device=column.device)
        # sum_f features[n, f] * weight[column[n], f]: a bag, so that no [N, f, width] is laid out
        x = embedding_bag(index, self.weight, mode="sum", per_sample_weights=features)
        return x + embedding(column, self.column) + embedding(category, self.category) * ~number


def _bins(columns: list[Column]) -> tuple[Tensor, Tensor]:
    """Standardised left edges and widths of the quantile bins, [C, bins] each; absent bins are never reached."""
    edges = [
        np.unique((np.asarray(c.quantiles, dtype=np.float64) / c.std - c.mean / c.std).clip(-LARGEST, LARGEST))
        for c in columns
    ]
    count = max([len(e) - 1 for e in edges] + [1])
    left, wide = np.full((max(len(columns), 1), count), 2 * LARGEST), np.ones((max(len(columns), 1), count))
    for i, e in enumerate(edges):
        if len(e) > 1:
            left[i, : len(e) - 1], wide[i, : len(e) - 1] = e[:-1], np.diff(e)
    return torch.from_numpy(left).float(), torch.from_numpy(wide.clip(1e-6)).float()


NUMBER, MISSING, UNKNOWN, FIRST = 0, 1, 2, 3
LARGEST = 1e6  # standardised values are cut here, far outside any bin
