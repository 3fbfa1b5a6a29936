"""What is done to queries, keys and scores because of where their tokens stand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from generalist.data.batch.at import At


class Position(nn.Module):
    """Base: leaves everything as it is. kind(width of a head, heads, **settings)."""

    def turn(self, q: Tensor, k: Tensor, at: At) -> tuple[Tensor, Tensor]:
        """Queries and keys Float[N H d] -> the same, turned."""
        return q, k

    def bias(self, at: At, dtype: torch.dtype) -> Callable[[int], Tensor] | None:
        """For the number of a group of equal lengths what is added to its scores, Float[count H n n]; None: nothing."""
        return None

    def of_heads(self, kept: Tensor) -> dict[str, Tensor] | None:
        """Its tensors where the heads Int[k] alone are left; None where the others would then be other heads."""
        return self.state_dict()
