"""Retention (ViR, 2310.19731; RetNet, 2307.08621): linear attention whose memory fades with distance.

    o_i = sum over the j that i sees of gamma_h^|p_i - p_j| (q_i . k_j) v_j

p counts the tokens that can be seen, so that what nobody sees takes no room. Three equal forms:

    parallel     all pairs at once, for short sequences and where not every token sees every token
    chunked      pairs within a chunk, what lies before and behind it as a sum of k v^T: linear in the length
    recurrent    s <- gamma s + k v^T, o = q s: one token after another, a state of heads x d x d whatever the length

gamma_h = 1 - exp(linspace(ln 1/32, ln 1/512, heads)). No rotation, gate or group norm, as in ViR's code
(anom63931/ViR), whose numbers it has. The released parallel form takes a softmax over all scores (`normalise`), those
of the future being 0: it has no recurrent form and is not causal.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from generalist.data.base.errors import UserError, nearest
from generalist.data.batch.at import At
from generalist.nn.attention.parts import Equal, equal
from generalist.nn.mixers.base import Mixer
from generalist.nn.spec import Needs

NORMALISE, DIRECTIONS = ("none", "softmax"), ("both", "causal")


class Retention(Mixer):
    """direction: "both" (the question stands first, so it must see what follows) or "causal": what lies before alone.

    normalise: "none", or the released "softmax". chunk: tokens a chunk.
    """

    stacked: ClassVar[dict[str, int]] = {"qkv": 3}

    def __init__(
        self, width: int, heads: int, direction: str = "both", normalise: str = "none", chunk: int = 64
    ) -> None:
        super().__init__()
        for what, value, valid in (("direction", direction, DIRECTIONS), ("normalise", normalise, NORMALISE)):
            if value not in valid:
                raise UserError(f"model: retention {what} {value!r}; {nearest(value, valid)}")
        if width % heads:
            raise UserError(f"model: retention: {heads} heads do not divide width {width}; change model.heads")
        if chunk < 1:
            raise UserError(f"model: retention chunk {chunk}; it is a number of tokens, such as 64")
        self.heads, self.direction, self.normalise, self.chunk = heads, direction, normalise, chunk
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    @classmethod
    def needs_with(cls, settings: dict[str, Any]) -> Needs:
        reach = "before" if settings.get("direction") == "causal" else "all"
        return Needs(causal=settings.get("normalise") != "softmax", reach=reach)

    def forward(self, x: Float[Tensor, "N D"], at: At) -> Float[Tensor, "N D"]:
        q, k, v = self.qkv(x).view(len(x), 3, self.heads, -1).unbind(1)
        q = q * q.shape[-1] ** -0.5
        decay = decays(self.heads, x.device)
        if at.cache is not None and (read := at.cache.remember(at.layer, k, v, decay)) is not None:
            mixed = torch.einsum("rhd,rhde->rhe", q, read.to(q.dtype))
        else:
            sizes = [group.count * group.length for group in at.groups]
            parts = at.once("sequences", lambda: equal(at))
            rows = zip(parts, q.split(sizes), k.split(sizes), v.split(sizes), strict=True)
            mixed = torch.cat([part.packed(self.mixed(part, at, a, b, c, decay)) for part, a, b, c in rows])
        return self.out(at.tap("heads", mixed).flatten(1))

    def kept(self, tokens: int) -> int:
        """Its state, heads x d x d, whatever the length."""
        return self.out.in_features**2 // self.heads

    def mixed(self, part: Equal, at: At, q: Tensor, k: Tensor, v: Tensor, decay: Tensor) -> Float[Tensor, "B H n d"]:
        """Sequences of one length, Float[tokens H d] x 3."""
        q, k, v = (part.rows(t) for t in (q, k, v))
        both, group = self.direction == "both", part.group
        if part.mask is None and self.normalise == "none":
            return chunked(q, k, v, decay, self.chunk, both)
        place = torch.arange(group.length, device=q.device)[None]
        if part.mask is not None:
            hidden = at.hidden[group.start : group.start + part.tokens].view(group.count, -1)
            place = (~hidden).long().cumsum(1) - (~hidden).long()
        return parallel(q, k, v, decay, place, part.mask, both, self.normalise)


def decays(heads: int, device: torch.device | None = None) -> Float[Tensor, " heads"]:
    """log(gamma) of every head."""
    at = torch.linspace(math.log(1 / 32), math.log(1 / 512), heads, device=device)
    return torch.log1p(-at.exp())


def fading(decay: Tensor, apart: Tensor) -> Tensor:
    """gamma_h^apart: Float[*] -> Float[H *], heads in front."""
    return torch.exp(decay.view(-1, *[1] * apart.ndim) * apart)


def parallel(
    q: Float[Tensor, "B H n d"],
    k: Float[Tensor, "B H n d"],
    v: Float[Tensor, "B H n d"],
    decay: Float[Tensor, " H"],
    place: Int[Tensor, "B|1 n"],
    mask: Tensor | None = None,
    both: bool = True,
    normalise: str = "none",
) -> Float[Tensor, "B H n d"]:
    """All pairs. place: p of every token; mask: Bool[B 1 1|n n], True = may be seen; both: forwards as well."""
    apart = (place[:, :, None] - place[:, None, :]).abs().float()
    fade = fading(decay, apart).transpose(0, 1).to(q.dtype)
    scores = q @ k.transpose(-1, -2) * (fade if both else fade.tril())
    if normalise == "softmax":
        return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1) @ v
    return (scores if mask is None else scores * mask) @ v


def chunked(
    q: Float[Tensor, "B H n d"],
    k: Float[Tensor, "B H n d"],
    v: Float[Tensor, "B H n d"],
    decay: Float[Tensor, " H"],
    chunk: int,
    both: bool = True,
) -> Float[Tensor, "B H n d"]:
    """Chunk by chunk, where every token may be seen."""
    n = q.shape[2]
    c = min(chunk, n)
    q, k, v = (nn.functional.pad(t, (0, 0, 0, -n % c)).unflatten(2, (-1, c)) for t in (q, k, v))
    at = torch.arange(c, device=q.device, dtype=torch.float)
    fade = fading(decay, (at[:, None] - at).abs()).to(q.dtype)
    out = (q @ k.transpose(-1, -2) * (fade if both else fade.tril())[:, None]) @ v
    if q.shape[2] > 1:
        first, last = (fading(decay, t)[:, None, :, None].to(q.dtype) for t in (at, c - 1 - at))  # to a chunk's ends
        gamma = decay.exp().view(-1, 1, 1, 1).to(q.dtype)
        whole = (c * decay).exp().view(-1, 1, 1)
        gone = summed(((k * last).transpose(-1, -2) @ v).float().unbind(2), whole).to(q.dtype)
        out = out + gamma * ((q * first) @ gone)
        if both:
            coming = summed(((k * first).transpose(-1, -2) @ v).float().flip(2).unbind(2), whole).flip(2).to(q.dtype)
            out = out + gamma * ((q * last) @ coming)
    return out.flatten(2, 3)[:, :, :n]


def summed(states: tuple[Tensor, ...], whole: Tensor) -> Float[Tensor, "B H C d d"]:
    """For every chunk the states of those in front of it, each faded by the chunks between. states: Float[B H d d]."""
    found = [torch.zeros_like(states[0])]
    for state in states[:-1]:
        found.append(found[-1] * whole + state)
    return torch.stack(found, dim=2)


def recurrent(
    q: Float[Tensor, "B H n d"],
    k: Float[Tensor, "B H n d"],
    v: Float[Tensor, "B H n d"],
    decay: Float[Tensor, " H"],
) -> tuple[Float[Tensor, "B H n d"], Float[Tensor, "B H d d"]]:
    """One token after another: what each reads, and the last state."""
    gamma = decay.exp().view(-1, 1, 1)
    state, out = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1]), []
    for at in range(q.shape[2]):
        state = gamma * state + k[:, :, at, :, None] * v[:, :, at, None, :]
        out.append((q[:, :, at, None, :] @ state).squeeze(2))
    return torch.stack(out, dim=2), state
