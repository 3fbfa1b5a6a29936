"""The layout of a padded batch: what clients hand over who pad instead of packing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from generalist.data.batch.types import Group, Layout


@dataclass
class PaddedLayout(Layout):
    """A padded batch [B n] laid end to end as one group; every token sees every real token of its row.

    real: Bool[B n] or None (all real); padding is seen by nobody. weights: where to keep every layer's
    attention weights (kernels that have them), or None. hidden_first: the first token is seen by itself only;
    causal: the tokens see themselves and those before them.
    """

    real: Tensor | None = None
    weights: list[Tensor] | None = None
    hidden_first: bool = False
    causal: bool = False

    @classmethod
    def of(cls, x: Tensor, real: Tensor | None, keep_weights: bool = False) -> PaddedLayout:
        """x: Float[B n D]."""
        b, n = x.shape[:2]
        none = torch.zeros(0, dtype=torch.long, device=x.device)
        groups = [Group(0, b, n, real is None)]
        return cls(groups=groups, block=none, hidden=none.bool(), real=real, weights=[] if keep_weights else None)

    def keep(self, weights: Tensor | None) -> None:
        """Take one layer's attention weights Float[B H n k], where they are wanted and the kernel has them."""
        if self.weights is not None and weights is not None:
            self.weights.append(weights)

    def masks(self) -> list[Tensor | None]:
        """Bool[B 1 1 n], or [B 1 n n] where it differs by query; True = may be seen; None where all may."""
        real = None if self.real is None else self.real[:, None, None, :]
        if not self.hidden_first and not self.causal:
            return [real]
        n, device = self.groups[0].length, self.block.device
        seen = torch.ones(n, n, dtype=torch.bool, device=device)
        seen = seen.tril() if self.causal else seen
        itself = torch.eye(n, dtype=torch.bool, device=device)
        if self.hidden_first:
            seen = seen.index_fill(1, torch.zeros(1, dtype=torch.long, device=device), False) | itself
        whole = seen.expand(self.groups[0].count, 1, n, n)
        # padding sees itself, so that no row of the mask is empty
        return [whole if real is None else whole & real | itself]
