"""Many questions of long causal sequences, each over what is before it, without a mask of all of them at once.

A kernel that is given a mask keeps it for the gradient. Here the queries go in blocks, each over the keys up to its
last question alone, and the masks of the blocks are made again in the backward pass. On a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from generalist.nn.attention.asked import Queries
from generalist.nn.attention.parts import Equal

SEEN = 2**16  # entries of a mask that are held at once
KINDS = (torch.float32, torch.float64)
forward_of = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def fits(of: Queries, q: Tensor) -> bool:
    """Whether the questions of a part go this way: they are many and causal, and nothing is traced or cast."""
    if not isinstance(of.part, Equal) or of.count * of.longest * of.part.group.length <= SEEN or q.dtype not in KINDS:
        return False
    cast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") != q.dtype
    traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    return of.part.causal and not cast and not traced


def of_prefixes(of: Queries, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Float[w H d] of the questions over keys and values Float[tokens H d] of the part -> Float[w H d]."""
    places = of.rows(of.part.within(of.asked))  # in order; 0 where a sequence has fewer
    found = _OfPrefixes.apply(of.rows(q).transpose(1, 2), of.part.rows(k), of.part.rows(v), places)
    assert isinstance(found, Tensor)
    return of.packed(found)


def _blocks(places: Tensor, length: int, dtype: torch.dtype) -> Iterator[tuple[slice, slice, Tensor]]:
    """Queries, the keys before the last of them, and Float[count 1 queries keys], -inf where a key is not seen.

    The last block first: what it leaves behind has room for all that follow.
    """
    count, longest = places.shape
    each = max(1, SEEN // (count * length))
    for start in reversed(range(0, longest, each)):
        own = places[:, start : start + each]
        keys = int(own.max()) + 1
        hidden = torch.arange(keys) > own.unsqueeze(-1)
        mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf).unsqueeze(1)
        yield slice(start, start + each), slice(keys), mask


class _OfPrefixes(torch.autograd.Function):
    """q Float[count H longest d], k and v Float[count H n d], places Int[count longest] -> as q."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, places: Tensor) -> Tensor:
        out, sums = torch.empty_like(q), []
        for own, before, mask in _blocks(places, k.shape[2], q.dtype):
            o, s = forward_of(q[:, :, own], k[:, :, before], v[:, :, before], attn_mask=mask)
            out[:, :, own] = o
            sums.append(s)
        ctx.save_for_backward(q, k, v, places, out, *sums)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, places, out, *sums = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        of_q, of_k, of_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for (own, before, mask), s in zip(_blocks(places, k.shape[2], q.dtype), sums, strict=True):
            queries, o, g = (t[:, :, own] for t in (q, out, grad))
            keys, values = k[:, :, before], v[:, :, before]
            # the softmax's gradient written out (1706.03762, section 3.2.1), in the memory of one block's scores
            p = (queries @ keys.transpose(-1, -2)).mul_(scale).add_(mask).sub_(s.unsqueeze(-1)).exp_()
            _add(of_v[:, :, before], p, g)
            p.mul_((g @ values.transpose(-1, -2)).sub_((g * o).sum(-1, keepdim=True))).mul_(scale)
            of_q[:, :, own] = p @ keys
            _add(of_k[:, :, before], p, queries)
        return of_q, of_k, of_v, None


def _add(total: Tensor, p: Tensor, x: Tensor) -> None:
    """Add p^T x, Float[count H m n] and Float[count H m d], to Float[count H n d] where it lies."""
    for into, left, right in zip(total.unbind(0), p.unbind(0), x.unbind(0), strict=True):
        into.baddbmm_(left.transpose(-1, -2), right)
