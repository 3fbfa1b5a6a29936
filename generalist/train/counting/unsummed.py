"""A step whose large products are not made, so that what it takes can be counted at the cost of its bookkeeping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

aten = torch.ops.aten
PRODUCTS = frozenset(
    {
        aten.mm.default,
        aten.addmm.default,
        aten.bmm.default,
        aten.baddbmm.default,
        aten.convolution.default,
        aten.convolution_backward.default,
        aten._scaled_dot_product_flash_attention_for_cpu.default,
        aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
    }
)
UNREAD = frozenset({aten.embedding_dense_backward.default})  # as large as a table of words


class Unsummed(TorchDispatchMode):
    """Matrix products, convolutions and attention have results of the right shapes and of no meaning.

    Finite numbers, which differ along the last axis, so that what chooses by them chooses; those of the gradients of
    tables, which nobody reads, are not even that. Enter it outside of a `FlopCounterMode`, which then counts as ever.
    On a CPU.
    """

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func not in PRODUCTS and func not in UNREAD:
            return func(*args, **(kwargs or {}))
        shapes = tree_map_only(torch.Tensor, lambda t: t.to("meta"), (args, dict(kwargs or {})))
        found = func(*shapes[0], **shapes[1])
        return tree_map_only(torch.Tensor, _filled if func in PRODUCTS else _empty, found)


def _empty(shape: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(shape.size(), shape.stride(), dtype=shape.dtype)


def _filled(shape: torch.Tensor) -> torch.Tensor:
    out = _empty(shape)
    last = shape.shape[-1] if shape.ndim else 1
    return out.copy_(torch.linspace(-1, 1, last, dtype=shape.dtype))
