"""Attention over packed tokens: one place that hands the parts of a layout to the kernels.

Sequences of equal length lie end to end, so a group is a view [count, length] and costs no copy and no
padding. Groups where every token sees every token go through the kernel without a mask; the rest get
the mask of their blocks, built once a forward pass and shared by all layers (`generalist.nn.attention.parts`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from generalist.data.batch.types import Layout
from generalist.nn.attention.cached import CachedLayout, StepLayout
from generalist.nn.attention.kernels import kernel
from generalist.nn.attention.padded import PaddedLayout
from generalist.nn.attention.parts import Part
from generalist.nn.attention.relative import added
from generalist.nn.attention.rotary import turn


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    parts: list[Part],
    prompts: tuple[Tensor, Tensor] | None = None,
    implementation: str | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """softmax(q k^T / sqrt(d)) v within each sequence: Float[N H d] x 3 -> Float[N H d].

    prompts: keys and values Float[P H d] that every token of every sequence sees in front of its own
    (deep prompts, never queries and never turned). implementation: which kernel, by transformers' name.
    bias: Float[T + 1, H], added to the scores by the layout's offsets (`generalist.nn.attention.relative`).
    """
    if layout.angles is not None:
        q, k = turn(q, layout.angles), turn(k, layout.angles)
    if isinstance(layout, StepLayout):
        return layout.attend(q, k, v, prompts)
    if isinstance(layout, CachedLayout):
        layout.cache.keep(k, v)
    out = []
    # split, not slices: a slice's gradient is a tensor of all tokens, one for each part, and nearly all zero
    sizes = [part.tokens for part in parts]
    whole = prompts is None and bias is None and implementation in (None, "sdpa")
    rows = zip(*((t,) if len(sizes) == 1 else t.split(sizes) for t in (q, k, v)), strict=True)
    for part, own in zip(parts, rows, strict=True):
        done = part.whole(*own) if whole else None
        if done is not None:
            out.append(done)
            continue
        qs, ks, vs = (part.rows(t) for t in own)
        mask, index = part.mask, None if bias is None else part.index
        if prompts is not None:
            ks, vs = (
                torch.cat([p.transpose(0, 1).expand(part.count, -1, -1, -1), t], dim=2)
                for p, t in zip(prompts, (ks, vs), strict=True)
            )
            if mask is not None and index is None:
                mask = torch.nn.functional.pad(mask, (len(prompts[0]), 0), value=True)
        if bias is not None and index is not None:
            mask = added(bias.to(q.dtype), index, mask, 0 if prompts is None else len(prompts[0]))
        o, weights = kernel(implementation)(qs, ks, vs, mask)
        if isinstance(layout, PaddedLayout):
            layout.keep(weights)
        out.append(part.packed(o))
    return out[0] if len(out) == 1 else torch.cat(out)
