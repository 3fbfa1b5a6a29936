"""Where the tokens of a padded batch stand: what clients hand over who pad instead of packing."""

from __future__ import annotations

import torch
from torch import Tensor

from generalist.data.batch.at import At
from generalist.data.batch.types import Group, Layout


def padded_at(x: Tensor, real: Tensor | None, hidden_first: bool = False, causal: bool = False) -> At:
    """A padded batch Float[B n D] laid end to end as one group; every token sees every real token of its row.

    real: Bool[B n] or None (all real); padding is seen by nobody. hidden_first: the first token is seen by itself only;
    causal: the tokens see themselves and those before them. What stands where is not known.
    """
    b, n = x.shape[:2]
    hidden = torch.zeros(b * n, dtype=torch.bool, device=x.device) if real is None else ~real.flatten()
    mask = seen(b, n, real, hidden_first, causal, x.device)
    return At(Layout([Group(0, b, n, mask is None)], torch.zeros_like(hidden, dtype=torch.long), hidden), mask=mask)


def seen(
    count: int, n: int, real: Tensor | None, hidden_first: bool, causal: bool, device: torch.device
) -> Tensor | None:
    """Bool[B 1 1 n], or [B 1 n n] where it differs by query; True = may be seen; None where all may."""
    row = None if real is None else real[:, None, None, :]
    if not hidden_first and not causal:
        return row
    full = torch.ones(n, n, dtype=torch.bool, device=device)
    full = full.tril() if causal else full
    itself = torch.eye(n, dtype=torch.bool, device=device)
    if hidden_first:
        full = full.index_fill(1, torch.zeros(1, dtype=torch.long, device=device), False) | itself
    whole = full.expand(count, 1, n, n)
    # padding sees itself, so that no row of the mask is empty
    return whole if row is None else whole & row | itself
