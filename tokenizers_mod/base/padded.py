"""Batches as other tools hold them: padded tensors with a batch axis, and the way to and from token data.

The packed form (`generalist.data.batch.pack`) is what this project trains on; clients of Hugging Face models hand
over padded tensors. Both give the same tokens, so both give the same features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Span


def pad_spans(name: str, spans: Sequence[Span]) -> dict[str, Tensor]:
    """B spans of a modality with one row a token -> {name_key: [B n ...], name_mask: Int[B n]}, 1 = real.

    UserError when the modality keeps one row a sample, which no padding can express.
    """
    out = {}
    for key in spans[0].data:
        rows = [s.data[key] for s in spans]
        if any(len(r) != s.length for r, s in zip(rows, spans, strict=True)):
            raise UserError(
                f"{name} has no padded form (one row a sample, not a token); use model.encode(processor(...))"
            )
        out[f"{name}_{key}"] = pad_sequence(rows, batch_first=True)
    real = [torch.ones(s.length, dtype=torch.long) if s.mask is None else s.mask.long() for s in spans]
    out[f"{name}_mask"] = pad_sequence(real, batch_first=True)
    return out


def flat_rows(name: str, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None]:
    """The inverse: {name_key: [B n ...], name_mask: [B n]} -> ({key: [B * n, ...]}, Bool[B n] or None = all real)."""
    real = tensors.get(f"{name}_mask")
    data = {k.removeprefix(f"{name}_"): v.flatten(0, 1) for k, v in tensors.items() if k != f"{name}_mask"}
    return data, None if real is None else real.bool()


def stack_padded(tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Tensors [..., n_i, m_i] -> ([B, ..., n, m] filled with 0 at the end, Int[B n m] with 1 = real)."""
    n, m = (max(t.shape[axis] for t in tensors) for axis in (-2, -1))
    full = torch.stack([torch.nn.functional.pad(t, (0, m - t.shape[-1], 0, n - t.shape[-2])) for t in tensors])
    real = torch.zeros(len(tensors), n, m, dtype=torch.long)
    for i, t in enumerate(tensors):
        real[i, : t.shape[-2], : t.shape[-1]] = 1
    return full, real
