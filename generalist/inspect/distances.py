"""How far attention looks: a tap on attention's weights and heads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from generalist.data.batch.at import At

KINDS = ("map", "line")


@dataclass
class Apart:
    """Sequences of one length. of: {kind: (Float[count n n] how far two tokens stand apart, Bool[count n n] of which
    pairs that is known)}."""

    count: int
    length: int
    of: dict[str, tuple[Tensor, Tensor]]


def places(at: At) -> Tensor:
    """Of every token its map's number, row, column and axes: Int[N 4]; -1 maps are sets and lone tokens."""
    table = torch.full((len(at.block), 4), -1)
    number = 0
    for piece in at.pieces.placed():
        if piece.shape is None or piece.total < 2:
            continue
        count, (rows, columns) = piece.maps(2)
        cell = torch.arange(piece.length) if piece.cells is None else piece.cells
        frame, within = cell // (rows * columns), cell % (rows * columns)
        axes = torch.full_like(cell, len(piece.shape))
        own = torch.stack([number + frame, within // columns, within % columns, axes], dim=1)
        table[piece.start : piece.start + piece.length] = own
        number += count
    return table


def apart(at: At) -> list[Apart]:
    """For every group of equal lengths, how far its tokens stand apart."""
    table, found = places(at), []
    for group in at.groups:
        own = table[group.start : group.start + group.count * group.length].view(group.count, group.length, 4)
        same = (own[:, :, None, 0] == own[:, None, :, 0]) & (own[:, :, None, 0] >= 0)
        far = (own[:, :, None, 1:3] - own[:, None, :, 1:3]).double().norm(dim=-1)
        planar = own[:, :, 3] > 1
        of = {kind: (far, same & (planar == (kind == "map"))[:, :, None]) for kind in KINDS}
        found.append(Apart(group.count, group.length, of))
    return found


class Looks(ABC):
    """A tap that sums something of attention's weights by the name of the heads' tap and the kind of place."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], Tensor] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._part: Counter[str] = Counter()

    def __call__(self, name: str, x: Tensor, at: At) -> Tensor:
        if name == "embedded":  # a new pass
            self._part.clear()
        elif name.endswith(".weights"):
            self._look(name.removesuffix("weights") + "heads", x, at)
        return x

    @abstractmethod
    def _look(self, name: str, weights: Tensor, at: At) -> None:
        """weights: Float[count H n P + n] of the pass's next group."""


class Distances(Looks):
    """A tap that sums mean attention distances. heads: {name of the tap: how many heads} of every attention."""

    def __init__(self) -> None:
        super().__init__()
        self.heads: dict[str, int] = {}

    def __call__(self, name: str, x: Tensor, at: At) -> Tensor:
        if name.endswith(".heads"):
            self.heads[name] = x.shape[1]
        return super().__call__(name, x, at)

    def _look(self, name: str, weights: Tensor, at: At) -> None:
        """weights: Float[count H n P + n] of the pass's next group."""
        group = at.once("apart", lambda: apart(at))[self._part[name]]
        self._part[name] += 1
        assert weights.shape[0] == group.count and weights.shape[2] == group.length, "one part a group, as on a CPU"
        weights = weights[..., -group.length :].detach().cpu().double()  # without the prompts
        for kind, (far, known) in group.of.items():
            if not bool(known.any()):
                continue
            inside = weights * known[:, None]
            mass = inside.sum(-1)
            mean = (inside * far[:, None]).sum(-1) / mass.clamp(min=1e-300)  # Float[count H n]
            asked = known.any(-1)[:, None] & (mass > 0)
            self._sums[name, kind] = self._sums.get((name, kind), 0) + (mean * asked).sum((0, 2))
            self._counts[name, kind] += int(known.any(-1).sum())

    def means(self, name: str, head: int) -> dict[str, float | None]:
        """A head's mean distance on maps and on lines, None where the task has none."""
        return {
            kind: float(self._sums[name, kind][head]) / self._counts[name, kind] if self._counts[name, kind] else None
            for kind in KINDS
        }
