"""Keys and values kept from one pass to the next, for answers that are written word by word.

A layer's input at a token decides that token's key and value (LN1, then the q, k, v matrix), so keeping keys and
values is keeping the layers' inputs (Uni-Perceiver spec 1.11) without computing them again at every word.

    read:   the whole beginning in one ordinary pass, all layers' keys and values kept
    write:  one token a sequence sees everything kept, in front of it the layer's prompts

Layers are known by their number, so whoever reads can tell whether all of them kept something.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad

from generalist.data.batch.types import Packed


@dataclass
class Cache:
    """Keys and values of R sequences, by layer: each Float[R H n d]; seen: Bool[R n], True = real, not hidden.

    A retention layer keeps its state Float[R H d d] instead, of one size whatever was read.
    append: None while the beginning is read; then whether the tokens of the coming passes, one a sequence, stay to be
    seen by those that follow.
    """

    index: Tensor  # Int[R n] packed positions of each sequence's tokens, padded by its first
    seen: Tensor
    layers: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)
    append: bool | None = None

    @staticmethod
    def of(packed: Packed, without: int = 0) -> Cache:
        """An empty cache for the sequences of a packed batch, all but their last `without` tokens."""
        count = torch.bincount(packed.owner, minlength=packed.sequences) - without
        within = torch.arange(int(count.max()), device=count.device)
        seen = within < count.unsqueeze(1)
        index = packed.first.unsqueeze(1) + within * seen
        return Cache(index, seen & ~packed.layout.hidden[index])

    def meet(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """Keys and values Float[N H d] of a layer -> those that one query a sequence sees, Float[R H n d] twice, and
        which of them are real, Bool[R n]; None while the beginning is read, which sees itself."""
        if self.append is None:
            self.layers[layer] = (k[self.index].transpose(1, 2), v[self.index].transpose(1, 2))
            return None
        n = self.seen.shape[1]
        past_k, past_v = self.layers[layer]
        met = torch.cat([past_k[:, :, :n], k.unsqueeze(2)], 2), torch.cat([past_v[:, :, :n], v.unsqueeze(2)], 2)
        if self.append:
            self.layers[layer] = met
        return *met, pad(self.seen, (0, 1), value=True)

    def remember(self, layer: int, k: Tensor, v: Tensor, decay: Tensor) -> Tensor | None:
        """Keys and values Float[N H d] of a retention layer (`generalist.nn.mixers.retention`), decay: log(gamma)
        Float[H] -> the state that one query a sequence reads, Float[R H d d], its own key and value in it; None while
        the beginning is read."""
        if self.append is None:
            behind = self.seen.flip(1).long().cumsum(1).flip(1) - 1  # tokens that are seen after each
            weight = torch.exp(decay[:, None, None] * behind) * self.seen  # [H R n]
            faded = k[self.index].float() * weight.permute(1, 2, 0).unsqueeze(-1)
            self.layers[layer] = (torch.einsum("rnhd,rnhe->rhde", faded, v[self.index].float()),)
            return None
        (state,) = self.layers[layer]
        state = decay.exp().view(-1, 1, 1) * state + (k[..., None] * v[..., None, :]).float()
        if self.append:
            self.layers[layer] = (state,)
        return state

    def passed(self) -> None:
        """The pass is over: what was appended in it is seen from now on."""
        if self.append:
            self.seen = pad(self.seen, (0, 1), value=True)

    def select(self, rows: Tensor) -> None:
        """Keep, reorder or repeat sequences: Int[R'] into the present ones."""
        self.layers = {layer: tuple(t[rows] for t in held) for layer, held in self.layers.items()}
        self.seen = self.seen[rows]

    @property
    def sequences(self) -> int:
        return len(self.seen)
