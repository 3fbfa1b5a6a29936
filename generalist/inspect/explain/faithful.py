"""How faithful an explanation is: what the answer loses when only the tokens that it points at are shown.

AD, average drop: mean of max(0, p - p') / p in per cent, p of the answer, p' of the same under the mask; less is
better. IC, increase in confidence: per cent of the records with p' > p. The masks are the explanation brought to 0..1,
whole and with all but its largest 50 and 15 % of the tokens at 0 (T-TAME, 2403.04523, section 4).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from generalist.inspect.asking.look import Look

SHARES = (1.0, 0.5, 0.15)


def average_drop(p: Float[Tensor, " B"], under: Float[Tensor, " B"]) -> float:
    """Per cent."""
    return float(((p - under).clamp(min=0) / p).mean() * 100)


def increase(p: Float[Tensor, " B"], under: Float[Tensor, " B"]) -> float:
    """Per cent."""
    return float((under > p).double().mean() * 100)


def unit(look: Look, heat: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Heat brought to 0..1 over each record's open tokens; 1 throughout where it is the same everywhere."""
    out = torch.ones_like(heat)
    for b in range(look.count):
        own = look.open & (look.packed.owner == b)
        if bool(own.any()):
            low, high = heat[own].min(), heat[own].max()
            out[own] = (heat[own] - low) / (high - low) if high > low else torch.ones_like(heat[own])
    return out


def topped(look: Look, mask: Float[Tensor, " N"], share: float) -> Float[Tensor, " N"]:
    """The mask with all but the largest share of each record's open tokens at 0, one at least."""
    out = mask.clone()
    for b in range(look.count):
        own = (look.open & (look.packed.owner == b)).nonzero().squeeze(1)
        least = len(own) - max(1, round(share * len(own)))
        out[own[mask[own].argsort(stable=True)[:least]]] = 0
    return out


def drawn_anew(look: Look, mask: Float[Tensor, " N"], rng: torch.Generator) -> Float[Tensor, " N"]:
    """The same values at other tokens of their record."""
    out = mask.clone()
    for b in range(look.count):
        own = (look.open & (look.packed.owner == b)).nonzero().squeeze(1)
        out[own] = mask[own[torch.randperm(len(own), generator=rng).to(own.device)]]
    return out


def masked(look: Look, blank: Float[Tensor, "N D"], mask: Float[Tensor, " N"]) -> Float[Tensor, "N D"]:
    """Tokens between what they are (1) and what they are without content (0); the question's own stay."""
    kept = torch.where(look.open, mask.to(look.x.dtype), torch.ones_like(look.x[:, 0])).unsqueeze(1)
    return kept * look.x + (1 - kept) * blank


@torch.no_grad()
def under(look: Look, blank: Tensor, mask: Tensor, answers: Tensor) -> Float[Tensor, " B"]:
    """p of the answers under a mask."""
    return look.of(look.log_p(masked(look, blank, mask)), answers).exp().double()
