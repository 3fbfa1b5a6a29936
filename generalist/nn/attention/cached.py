"""Keys and values kept from one pass to the next, for answers that are written word by word.

A layer's input at a token decides that token's key and value (LN1, then the q, k, v matrix), so keeping keys and
values is keeping the layers' inputs (Uni-Perceiver spec 1.11) without computing them again at every word.

    read:   the whole beginning in one ordinary pass, all layers' keys and values kept      CachedLayout
    write:  one token a sequence sees everything kept, in front of it the layer's prompts   StepLayout
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from generalist.data.batch.types import Group, Layout, Packed


@dataclass
class Cache:
    """Keys and values of R sequences, layer by layer: each Float[R H n d]; seen: Bool[R n], True = real, not hidden."""

    index: Tensor  # Int[R n] packed positions of each sequence's tokens, padded by its first
    seen: Tensor
    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    @staticmethod
    def of(packed: Packed, without: int = 0) -> Cache:
        """An empty cache for the sequences of a packed batch, all but their last `without` tokens."""
        count = torch.bincount(packed.owner, minlength=packed.sequences) - without
        within = torch.arange(int(count.max()), device=count.device)
        seen = within < count.unsqueeze(1)
        index = packed.first.unsqueeze(1) + within * seen
        return Cache(index, seen & ~packed.layout.hidden[index])

    def keep(self, k: Tensor, v: Tensor) -> None:
        """The keys and values Float[N H d] of the next layer."""
        self.layers.append((k[self.index].transpose(1, 2), v[self.index].transpose(1, 2)))

    def select(self, rows: Tensor) -> None:
        """Keep, reorder or repeat sequences: Int[R'] into the present ones."""
        self.layers = [(k[rows], v[rows]) for k, v in self.layers]
        self.seen = self.seen[rows]

    @property
    def sequences(self) -> int:
        return len(self.seen)


@dataclass
class CachedLayout(Layout):
    """A layout whose keys and values are kept as the layers run."""

    cache: Cache = None  # type: ignore[assignment]


@dataclass
class StepLayout(Layout):
    """One token a sequence, R tokens. append: the token stays in the cache, to be seen by those that follow."""

    cache: Cache = None  # type: ignore[assignment]
    append: bool = False
    layer: int = 0

    def attend(self, q: Tensor, k: Tensor, v: Tensor, prompts: tuple[Tensor, Tensor] | None) -> Tensor:
        """Float[R H d] x 3, prompts Float[P H d] x 2 -> Float[R H d]; each call is the next layer."""
        past_k, past_v = self.cache.layers[self.layer]
        ks, vs = torch.cat([past_k, k.unsqueeze(2)], 2), torch.cat([past_v, v.unsqueeze(2)], 2)
        seen = pad(self.cache.seen, (0, 1), value=True)
        if self.append:
            self.cache.layers[self.layer] = (ks, vs)
        self.layer += 1
        if self.append and self.layer == len(self.cache.layers):
            self.cache.seen = seen
        if prompts is not None:
            pk, pv = (p.transpose(0, 1).expand(len(q), -1, -1, -1) for p in prompts)
            ks, vs = torch.cat([pk, ks], 2), torch.cat([pv, vs], 2)
            seen = pad(seen, (prompts[0].shape[0], 0), value=True)
        return scaled_dot_product_attention(q.unsqueeze(2), ks, vs, attn_mask=seen[:, None, None, :]).squeeze(2)


def reading(layout: Layout, cache: Cache) -> CachedLayout:
    """The same layout, with a fresh cache to fill."""
    return CachedLayout(**_fields(layout), cache=cache)


def writing(layout: Layout, cache: Cache, append: bool) -> StepLayout:
    """The layout of one token a sequence behind what is kept. The batch must hold one token a sequence."""
    values = _fields(layout) | {"groups": [Group(0, len(layout.block), 1, True)]}
    return StepLayout(**values, cache=cache, append=append)


def _fields(layout: Layout) -> dict[str, Any]:
    return {f.name: getattr(layout, f.name) for f in fields(Layout)}
