"""Attention over packed tokens: one place that chooses how the groups of a layout are computed.

Sequences of equal length lie end to end, so a group is a view [count, length] and costs no copy and no
padding. Groups where every token sees every token go through the kernel without a mask; the rest get
the mask of their blocks, built once a forward pass and shared by all layers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from data.types import Layout
from generalist.cached import CachedLayout, StepLayout
from generalist.kernels import kernel
from generalist.padded import PaddedLayout
from generalist.relative import added
from generalist.rotary import turn


def group_masks(layout: Layout) -> list[Tensor | None]:
    """For each group Bool[count 1 length length], True = may be seen, or None where all may."""
    if isinstance(layout, PaddedLayout):
        return layout.masks()
    return [None if g.plain else visible(layout, g.start, g.count, g.length) for g in layout.groups]


def visible(layout: Layout, start: int, count: int, length: int) -> Tensor:
    """The one mask rule: key j is seen by query i iff block[j] <= block[i] and (not hidden[j] or i == j)."""
    block = layout.block[start : start + count * length].view(count, length)
    hidden = layout.hidden[start : start + count * length].view(count, length)
    earlier = block[:, None, :] <= block[:, :, None]
    itself = torch.eye(length, dtype=torch.bool, device=block.device)
    return (earlier & (~hidden[:, None, :] | itself)).unsqueeze(1)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    masks: list[Tensor | None],
    prompts: tuple[Tensor, Tensor] | None = None,
    implementation: str | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """softmax(q k^T / sqrt(d)) v within each sequence: Float[N H d] x 3 -> Float[N H d].

    prompts: keys and values Float[P H d] that every token of every sequence sees in front of its own
    (deep prompts, never queries and never turned). implementation: which kernel, by transformers' name.
    bias: Float[T + 1, H], added to the scores by the layout's offsets (`generalist.relative`).
    """
    if layout.angles is not None:
        q, k = turn(q, layout.angles), turn(k, layout.angles)
    if isinstance(layout, StepLayout):
        return layout.attend(q, k, v, prompts)
    if isinstance(layout, CachedLayout):
        layout.cache.keep(k, v)
    out = []
    # split, not slices: a slice's gradient is a tensor of all tokens, one for each group, and nearly all zero
    sizes = [group.count * group.length for group in layout.groups]
    parts = zip(*((t,) if len(sizes) == 1 else t.split(sizes) for t in (q, k, v)), strict=True)
    indices = [None] * len(sizes) if bias is None or layout.offsets is None else layout.offsets.index
    for group, mask, own, index in zip(layout.groups, masks, parts, indices, strict=True):
        shape = (group.count, group.length, *q.shape[1:])
        qs, ks, vs = (t.view(shape).transpose(1, 2) for t in own)
        if prompts is not None:
            ks, vs = (
                torch.cat([p.transpose(0, 1).expand(group.count, -1, -1, -1), t], dim=2)
                for p, t in zip(prompts, (ks, vs), strict=True)
            )
            if mask is not None and index is None:
                mask = torch.nn.functional.pad(mask, (len(prompts[0]), 0), value=True)
        if bias is not None and index is not None:
            mask = added(bias.to(q.dtype), index, mask, 0 if prompts is None else len(prompts[0]))
        o, weights = kernel(implementation)(qs, ks, vs, mask)
        if isinstance(layout, PaddedLayout):
            layout.keep(weights)
        out.append(o.transpose(1, 2).reshape(-1, *q.shape[1:]))
    return out[0] if len(out) == 1 else torch.cat(out)
