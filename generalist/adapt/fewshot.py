"""Few labelled samples drawn from many: seeded, by class, so that a draw can be made again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable

import torch

from generalist.data.base.errors import UserError
from generalist.data.stream.source import Chosen, Record, Records


def draw(
    records: Records,
    label: Callable[[Record], Hashable],
    shots: int | None = None,
    fraction: float | None = None,
    seed: int = 0,
) -> Records:
    """`shots` records a class, or floor(fraction * n) + 1 of a class's n (spec section 4); all if neither is given.

    UserError when both are given, a value cannot work, or a class has fewer than `shots` records.
    """
    if shots is None and fraction is None:
        return records
    if shots is not None and fraction is not None:
        raise UserError("give shots or fraction, not both")
    if shots is not None and shots < 1:
        raise UserError(f"shots must be at least 1, got {shots}")
    if fraction is not None and not 0 < fraction <= 1:
        raise UserError(f"fraction must lie in (0, 1], got {fraction}")
    members: dict[Hashable, list[int]] = defaultdict(list)
    for i in range(len(records)):
        members[label(records[i])].append(i)
    rng = torch.Generator().manual_seed(seed)
    places = []
    for name in sorted(members, key=str):
        own = members[name]
        wanted = shots if shots is not None else min(len(own), int((fraction or 0) * len(own)) + 1)
        if wanted > len(own):
            raise UserError(f"class {name!r} has {len(own)} training records, {wanted} shots asked for")
        places += [own[j] for j in torch.randperm(len(own), generator=rng)[:wanted].tolist()]
    order = torch.randperm(len(places), generator=rng).tolist()
    return Records(Chosen(records.rows, [places[j] for j in order]), dict(records.info))
