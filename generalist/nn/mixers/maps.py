"""Mixers that work on maps: what is packed is gathered by shape, mixed and scattered."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from generalist.data.batch.at import At
from generalist.nn.mixers.base import Mixer, matrices
from generalist.nn.spec import Needs
from generalist.tokenizers_mod.maps.base import MapOperator


class GridMixer(Mixer):
    """A mixer of maps of `needs.axes` axes; only `mix` to write. Tokens that are of no map get nothing added.

    lines: whether texts and series, maps of one row, are mixed too.
    """

    needs = Needs(axes=2, causal=False, reach="grid", line=True)
    lines: bool = True

    def mix(self, maps: Float[Tensor, "G ... D"], real: Bool[Tensor, "G ..."] | None) -> Tensor:
        """Float[count *shape D], Bool[count *shape] or None (all real) -> Float[count *shape D]."""
        raise NotImplementedError(f"{type(self).__name__} must define mix")

    def forward(self, x: Float[Tensor, "N D"], at: At) -> Float[Tensor, "N D"]:
        return self.mixed(x, at, torch.zeros_like(x))

    def mixed(self, x: Float[Tensor, "N D"], at: At, out: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """out: a tensor of one's own, written over where tokens are of a map; the others stay as they are in it."""
        for grid in at.grids(self.needs.axes, self.lines):
            real = None if grid.real is None else grid.real.unflatten(1, grid.shape)
            maps = x.index_select(0, grid.index.flatten()).view(-1, *grid.shape, x.shape[1])
            mixed = self.mix(maps, real).flatten(0, len(grid.shape)).to(out.dtype)
            index = grid.index.flatten()
            if grid.real is not None:
                there = grid.real.flatten()
                index, mixed = index[there], mixed[there]
            out = out.index_copy_(0, index, mixed)
        return out


def needs_of(operator: type[nn.Module]) -> Needs:
    """What an operator on maps needs as a mixer, by what it says of itself; a plain module takes any map."""
    kind = operator if issubclass(operator, MapOperator) else MapOperator
    return Needs(axes=2, causal=False, reach="grid", fixed=kind.fixed, line=kind.line)


class MapMixer(GridMixer):
    """An operator on maps of two axes (`generalist.tokenizers_mod.maps`) as a token mixer."""

    def __init__(self, operator: nn.Module) -> None:
        super().__init__()
        self.operator, self.lines = operator, needs_of(type(operator)).line

    def mix(self, maps: Float[Tensor, "G ... D"], real: Bool[Tensor, "G ..."] | None) -> Tensor:
        return self.operator(maps, real)

    def matrices(self) -> Iterator[tuple[Tensor, int]]:
        return matrices(self.operator, self.operator.stacked if isinstance(self.operator, MapOperator) else {})
