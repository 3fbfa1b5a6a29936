"""Attention over packed tokens: one place that hands the parts of a batch to the kernels.

Sequences of equal length lie end to end, so a group is a view [count, length] and costs no copy and no
padding. Groups where every token sees every token go through the kernel without a mask; the rest get
the mask of their blocks, built once a forward pass and shared by all layers (`generalist.nn.attention.parts`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from generalist.data.batch.at import At
from generalist.nn.attention.asked import queries_of
from generalist.nn.attention.kernels import kernel
from generalist.nn.attention.parts import Part, parts_of
from generalist.nn.attention.positions.base import Position
from generalist.nn.attention.prefixes import fits, of_prefixes


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    at: At,
    prompts: tuple[Tensor, Tensor] | None = None,
    positions: Sequence[Position] = (),
) -> Tensor:
    """softmax(q k^T / sqrt(d)) v within each sequence: Float[N H d] x 3 -> Float[N H d], or Float[W H d] of the tokens
    asked where `at.only`.

    prompts: keys and values Float[P H d] that every token of every sequence sees in front of its own
    (deep prompts, never queries and never turned). Kernels that have weights show them to the taps, part by part.
    """
    for position in positions:
        q, k = position.turn(q, k, at)
    if at.cache is not None and (met := at.cache.meet(at.layer, k, v)) is not None:
        return _one_query(q, *met, prompts)
    biases = [bias for position in positions if (bias := position.bias(at, q.dtype)) is not None]
    parts = parts_of(at, q, listed=bool(biases))
    whole = prompts is None and not biases and at.kernel in (None, "sdpa")
    if at.only and not biases:
        return _of_asked(q, k, v, at, prompts, parts, whole)
    out = []
    for number, (part, own) in enumerate(zip(parts, _split(parts, q, k, v), strict=True)):
        done = part.whole(own[0], own[1], own[2]) if whole else None
        if done is not None:
            out.append(done)
            continue
        qs, ks, vs = (part.rows(t) for t in own)
        if prompts is not None:
            ks, vs = (torch.cat([_each(p, part.count), t], dim=2) for p, t in zip(prompts, (ks, vs), strict=True))
        mask = _added(part.mask, biases, number, 0 if prompts is None else len(prompts[0]))
        o, weights = kernel(at.kernel)(qs, ks, vs, mask)
        if weights is not None and (tapped := at.tap("weights", weights)) is not weights:
            o = tapped @ vs
        out.append(part.packed(o))
    found = out[0] if len(out) == 1 else torch.cat(out)
    return found.index_select(0, at.asked) if at.only else found


def _split(parts: Sequence[Part], *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The rows of every part. Not by slices: a slice's gradient is a tensor of all tokens, one for each part, and
    nearly all zero."""
    sizes = [part.tokens for part in parts]
    return zip(*((t,) if len(sizes) == 1 else t.split(sizes) for t in tensors), strict=True)


def _of_asked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    at: At,
    prompts: tuple[Tensor, Tensor] | None,
    parts: list[Part],
    whole: bool,
) -> Tensor:
    """The same for the queries of the tokens asked alone: Float[W H d]."""
    queries = queries_of(at, parts)
    asking = q.index_select(0, at.asked).split([0 if of is None else len(of.asked) for of in queries])
    out = []
    for part, of, qs, (ks, vs) in zip(parts, queries, asking, _split(parts, k, v), strict=True):
        if of is None:
            continue
        done = part.whole(qs, ks, vs, of.asks) if whole else None
        if whole and fits(of, qs):
            done = of_prefixes(of, qs, ks, vs)
        if done is not None:
            out.append(done)
            continue
        qs, ks, vs = of.rows(qs).transpose(1, 2), part.rows(ks), part.rows(vs)
        if prompts is not None:
            ks, vs = (torch.cat([_each(p, part.count), t], dim=2) for p, t in zip(prompts, (ks, vs), strict=True))
        mask = _added(of.seen(), [], 0, 0 if prompts is None else len(prompts[0]))
        out.append(of.packed(kernel(at.kernel)(qs, ks, vs, mask)[0]))
    return out[0] if len(out) == 1 else torch.cat(out)


def _each(prompts: Tensor, count: int) -> Tensor:
    """Float[P H d] -> Float[count H P d]."""
    return prompts.transpose(0, 1).expand(count, -1, -1, -1)


def _added(mask: Tensor | None, biases: list[Callable[[int], Tensor]], number: int, prompts: int) -> Tensor | None:
    """What a kernel is given of who sees whom: Bool[count 1 1|n prompts + n], True = may be seen, or where there are
    biases Float[count H n prompts + n], -inf where a key may not be seen; None: all see all."""
    if not biases:
        return mask if mask is None or not prompts else pad(mask, (prompts, 0), value=True)
    found = reduce(torch.add, (bias(number) for bias in biases))
    if mask is not None:
        found = found.masked_fill(~mask, -torch.inf)
    return pad(found, (prompts, 0)) if prompts else found


def _one_query(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, prompts: tuple[Tensor, Tensor] | None) -> Tensor:
    """One query a sequence, Float[R H d], over keys and values Float[R H n d] of which Bool[R n] are real."""
    if prompts is not None:
        k, v = (torch.cat([_each(p, len(q)), t], 2) for p, t in zip(prompts, (k, v), strict=True))
        seen = pad(seen, (prompts[0].shape[0], 0), value=True)
    return scaled_dot_product_attention(q.unsqueeze(2), k, v, attn_mask=seen[:, None, None, :]).squeeze(2)
