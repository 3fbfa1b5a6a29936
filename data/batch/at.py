"""`At`: where the tokens of one pass through the encoder stand; everything a mixer is told but the numbers.

The batch's own facts (who sees whom, where the spans lie) are its `Layout`, which `pack` writes and which travels with
it. `At` is made for one pass and adds what belongs to it: deep prompts, keys and values kept from earlier passes, the
attention kernel, whoever looks on, and what is computed once for all layers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.batch.cells import places
from generalist.data.batch.pack import grouped
from generalist.data.batch.pieces import Piece, Pieces, cells_of
from generalist.data.batch.routes import Routes
from generalist.data.batch.types import Group, Layout

T = TypeVar("T")


@runtime_checkable
class Tap(Protocol):
    """Looks on at a value by its name ("layers.3"), or hands back another in its stead."""

    def __call__(self, name: str, x: Tensor, at: At) -> Tensor: ...


@runtime_checkable
class KeysAndValues(Protocol):
    """Keys and values kept from pass to pass (`generalist.nn.attention.kv_cache`)."""

    append: bool | None

    def meet(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor] | None: ...

    def remember(self, layer: int, k: Tensor, v: Tensor, decay: Tensor) -> Tensor | None: ...


@dataclass(frozen=True)
class Grid:
    """All maps of one shape in a batch. index: Int[count cells], the packed token of every cell, row by row.

    real: Bool[count cells], False where a masked cell has no token (its index is then another token's); None: all real.
    """

    shape: tuple[int, ...]
    index: Int[Tensor, "count cells"]
    real: Bool[Tensor, "count cells"] | None = None


@dataclass(frozen=True)
class At:
    """What a step or mixer is told of the N packed tokens at hand.

    layout: groups, blocks, hidden tokens and pieces. mask: of a padded batch, Bool[B 1 1|n n], who sees whom in its
    one group; None: as the layout says. routes: what conditions a mixture of experts. prompts: Float[P D], keys and
    values in front of every sequence in this layer; layer_prompts: those of every layer. cache: keys and values of
    other passes. kernel: of attention, by transformers' name. name, layer: where in the encoder this is. origin:
    Int[N], for which token of the batch as it was packed each stands, where a step changed them; None: they are those.
    only: nothing but the tokens asked is read of what comes out (`layout.asked`), so no others need come out.
    """

    layout: Layout
    mask: Tensor | None = None
    routes: Routes | None = None
    layer_prompts: Sequence[Tensor | None] | None = None
    prompts: Tensor | None = None
    cache: KeysAndValues | None = None
    kernel: str | None = None
    taps: Sequence[Tap] = ()
    name: str = ""
    layer: int = 0
    origin: Tensor | None = None
    only: bool = False
    made: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def groups(self) -> list[Group]:
        return self.layout.groups

    @property
    def block(self) -> Int[Tensor, " N"]:
        return self.layout.block

    @property
    def hidden(self) -> Bool[Tensor, " N"]:
        return self.layout.hidden

    @property
    def writes(self) -> bool:
        """Whether its tokens stand alone: one a sequence, beside keys and values of a beginning that was read."""
        return self.cache is not None and self.cache.append is not None

    @property
    def pieces(self) -> Pieces:
        """Where the spans lie. UserError where nobody said so."""
        if self.layout.pieces is None:
            raise UserError(
                "padded tensors do not say where tokens stand, which this model looks at; "
                "use model.encode(processor(...))"
            )
        return self.layout.pieces

    @property
    def placed(self) -> list[Piece]:
        """The pieces with tokens as they lie (`Pieces.placed`)."""
        return self.once("placed", self.pieces.placed)

    @property
    def cells(self) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"]]:
        """Of which of them every token is, and in which cell it stands there; both on the host."""
        return self.once("cells", lambda: cells_of(self.placed))

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, made once a pass by the first who asks."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def tap(self, name: str, x: Tensor) -> Tensor:
        """x, shown to the taps and as they hand it on. name: behind that of the place ("layers.3.mixer")."""
        for tap in self.taps:
            x = tap(f"{self.name}.{name}".strip("."), x, self)
        return x

    @property
    def asked(self) -> Int[Tensor, " W"]:
        """The tokens at which a question is asked, as they lie."""
        assert self.layout.asked is not None
        return self.layout.asked

    def of_asked(self) -> At:
        """Where the tokens asked stand among themselves. Sequences keep their order, those without a question too."""
        assert self.layout.asks is not None
        plain = [group.plain for group in self.groups for _ in range(group.count)]
        groups = grouped(self.layout.asks, [not own for own in plain])
        layout = Layout(groups, self.block.index_select(0, self.asked), self.hidden.index_select(0, self.asked))
        routes = None if self.routes is None else self.routes.of(self.asked)
        origin = self.asked if self.origin is None else self.origin.index_select(0, self.asked)
        return replace(self, layout=layout, routes=routes, origin=origin, only=False, made={})

    def inside(self, name: str) -> At:
        """The same for a part of the present place."""
        return replace(self, name=f"{self.name}.{name}".strip("."))

    @property
    def sequences(self) -> tuple[Int[Tensor, " B"], Int[Tensor, " N"]]:
        """The first token of every sequence as they lie, and of which sequence every token is."""
        return self.once("sequences", self._sequences)

    def _sequences(self) -> tuple[Tensor, Tensor]:
        lengths = torch.tensor([group.length for group in self.groups for _ in range(group.count)])
        first, sequence = lengths.cumsum(0) - lengths, torch.arange(len(lengths)).repeat_interleave(lengths)
        return first.to(self.block.device), sequence.to(self.block.device)

    @property
    def place(self) -> Int[Tensor, "N 6"]:
        """Int[N 6], where every token stands in its map (`generalist.data.batch.cells`)."""
        return self.once("place", lambda: places(self.pieces).to(self.block.device, non_blocking=True))

    def grids(self, axes: int, lines: bool = True) -> list[Grid]:
        """The maps of all pieces that have one, brought to `axes` axes, by shape; a text is 1 x n, a film T pictures.

        lines: whether pieces of fewer axes, such as texts, are among them. Pieces with causal or hidden tokens are left
        out: what they may see is not a map.
        """
        return self.once(("grids", axes, lines), lambda: self._grids(axes, lines))

    def _grids(self, axes: int, lines: bool) -> list[Grid]:
        rows: dict[tuple[int, ...], list[Tensor]] = {}
        for piece in self.pieces.placed():
            if piece.shape is None or piece.bound or (len(piece.shape) < axes and not lines):
                continue
            count, shape = piece.maps(axes)
            index = piece.laid_out(torch.arange(piece.start, piece.start + piece.length), -1)
            rows.setdefault(shape, []).append(index.view(count, -1))
        found = []
        for shape, parts in rows.items():
            index = torch.cat(parts)
            real = None if bool((index >= 0).all()) else (index >= 0).to(self.block.device)
            found.append(Grid(shape, index.clamp(min=0).to(self.block.device), real))
        return found

    def of(self, layout: Layout) -> At:
        """The same tokens by another layout, which says all of who sees whom."""
        return replace(self, layout=layout, mask=None, made={})

    def rebuilt(self, changed: Sequence[tuple[Piece, Tensor]]) -> tuple[At, Tensor]:
        """Other tokens in the pieces' stead, and where the new tokens lie once sequences are sorted by length again.

        changed: for every piece with tokens, as they lie in the batch (`Pieces.placed`), what it is now (its start does
        not count) and the token that each new one stands for, Int[n']. Returns the new place and Int[N'], the order
        that brings new tokens, made piece after piece, there. Keys and values of other passes are not handed on.
        ValueError where a token that is asked, causal or hidden has no successor of its own.
        """
        before = self.placed
        source = torch.cat([source for _, source in changed])
        counts = [source.shape[0] for _, source in changed]
        for (new, _), count in zip(changed, counts, strict=True):
            if new.length != count:
                raise ValueError(f"{new.length} tokens stand for {count} tokens")
        number, inside = cells_of([new._replace(cells=None) for new, _ in changed])
        _all_there(before, counts, source - inside, number)
        plain = {group.start + i * group.length: group.plain for group in self.groups for i in range(group.count)}
        first: dict[int, int] = {}
        length: dict[int, int] = {}
        for old, (new, _) in zip(before, changed, strict=True):
            first.setdefault(old.sequence, old.start)
            length[old.sequence] = length.get(old.sequence, 0) + new.length
        ranked = sorted(first, key=lambda s: (length[s], not plain[first[s]], first[s]))
        groups = grouped([length[s] for s in ranked], [not plain[first[s]] for s in ranked])
        begin = dict(zip(ranked, accumulate([0, *(length[s] for s in ranked)]), strict=False))
        starts, pieces = [], []
        for new, _ in changed:
            starts.append(begin[new.sequence])
            pieces.append(new._replace(start=starts[-1]))
            begin[new.sequence] += new.length
        place = torch.tensor(starts)[number] + inside
        order = torch.empty_like(place).index_copy(0, place, torch.arange(len(place))).to(self.block.device)
        source = source.to(self.block.device)[order]
        asked = asks = None
        if self.layout.asks is not None:  # they are all there, each for itself; only their sequences changed places
            of = dict(zip(sorted(first, key=first.__getitem__), self.layout.asks, strict=True))
            asks = [of[s] for s in ranked]
            index = torch.arange(len(source), device=source.device)
            asked = torch.empty_like(self.block).index_copy(0, source, index)[self.asked].sort().values
        layout = Layout(groups, self.block[source], self.hidden[source], Pieces.of(pieces), asked, asks)
        routes = None if self.routes is None else self.routes.of(source)
        origin = source if self.origin is None else self.origin[source]
        return replace(self, layout=layout, mask=None, routes=routes, cache=None, origin=origin, made={}), order

    def __add__(self, other: At) -> At:
        """The tokens of `self` followed by those of `other`; all else as in `self`."""
        routes = None if self.routes is None or other.routes is None else self.routes + other.routes
        return replace(self, layout=self.layout + other.layout, routes=routes, made={})


def _all_there(before: list[Piece], counts: list[int], first: Tensor, number: Tensor) -> None:
    """ValueError unless pieces that are asked, causal or hidden kept all their tokens: `first` of each is its start."""
    starts = torch.tensor([old.start for old in before])
    moved = torch.zeros(len(before), dtype=torch.bool).index_put((number[first != starts[number]],), torch.tensor(True))
    for old, count, is_moved in zip(before, counts, moved.tolist(), strict=True):
        if (old.asked or old.bound) and (is_moved or count != old.length):
            raise ValueError(f"a step changed tokens of sequence {old.sequence} that are asked, causal or hidden")
