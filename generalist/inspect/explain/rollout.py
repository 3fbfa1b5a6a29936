"""Attention rollout: what flows from every token to the one that is asked, through all layers of attention.

Quantifying Attention Flow (2005.00928), as in the released code of 2111.10659 for patches: heads averaged, the lowest
weights set to 0, half of the identity added for the residual stream, rows normalised, layers multiplied.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.batch.at import At
from generalist.inspect.asking.look import Look
from generalist.inspect.heads import weighing

DISCARD = 0.9  # of a map's weights


def rollout(
    weights: Sequence[Float[Tensor, "B H n n"]], discard: float = DISCARD, published: bool = False
) -> Float[Tensor, "B n n"]:
    """How much of every token is in every other behind the last layer; rows sum to one.

    discard: share of the smallest weights of a map that count as 0, entry (0, 0) never. published: divides by the sums
    of rows along columns and discards in the first map of a batch alone, as the released code does.
    """
    found = torch.eye(weights[0].shape[-1], dtype=weights[0].dtype, device=weights[0].device).expand(
        len(weights[0]), -1, -1
    )
    for one in weights:
        mean = one.mean(1)
        flat = mean.flatten(1).clone()
        count = int(flat.shape[1] * discard)
        lowest = flat.topk(count, dim=1, largest=False).indices
        lowest = lowest[:1] if published else lowest
        for row, own in zip(flat, lowest, strict=False):
            row[own[own != 0]] = 0
        mixed = (flat.view_as(mean) + torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)) / 2
        sums = mixed.sum(-1)
        mixed = mixed / (sums.unsqueeze(1) if published else sums.unsqueeze(2))
        found = mixed @ found
    return found


class Flow:
    """A tap that keeps attention's weights of a pass, part by part. UserError where a step changed the tokens."""

    def __init__(self) -> None:
        self.of: dict[str, list[Tensor]] = defaultdict(list)

    def __call__(self, name: str, x: Tensor, at: At) -> Tensor:
        if name.endswith(".weights"):
            if at.origin is not None:
                raise UserError(
                    "attention rollout needs the tokens of the input in all layers; this model changes them"
                )
            self.of[name].append(x.detach())
        return x


@torch.no_grad()
def flows(look: Look) -> Float[Tensor, " N"]:
    """What flows from every token to those asked in its sequence, the largest open one 1; no weight is left out.

    UserError without attention.
    """
    flow = Flow()
    with weighing(look.model), look.model.tapped(flow):
        look.queries()
    if not flow.of:
        raise UserError("attention rollout needs attention; none of this model's token mixers is one")
    asked = torch.zeros(len(look.x), dtype=torch.bool, device=look.x.device)
    asked[look.packed.asked] = True
    out = torch.zeros(len(look.x), dtype=torch.float64, device=look.x.device)
    for number, group in enumerate(look.packed.layout.groups):
        rows = slice(group.start, group.start + group.count * group.length)
        maps = []
        for parts in flow.of.values():
            own = parts[number][..., -group.length :].double()  # without the prompts
            maps.append(own / own.sum(-1, keepdim=True).clamp(min=1e-12))
        of = asked[rows].view(group.count, group.length).double()
        out[rows] = (of.unsqueeze(1) @ rollout(maps, discard=0.0)).flatten()
    for b in range(look.count):
        own = look.open & (look.packed.owner == b)
        if bool(own.any()):
            out[own] = out[own] / out[own].max().clamp(min=1e-12)
    return out.float()
