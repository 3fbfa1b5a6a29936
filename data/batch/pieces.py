"""Where the spans of a packed batch lie, known on the host: what a token mixer that works on grids is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor


class Piece(NamedTuple):
    """A span's place in the packed batch.

    shape: None for a set, (n,) of an ordered sequence, (H, W) of a picture, (T, H, W) of a film. cells: Int[length],
    which cells of the shape its tokens are, where some were masked, -1 for a token that is in no cell (padding, or left
    out without being taken out); None where it has all of them in order.
    bound: some of its tokens are causal or hidden, so what they see is not everything. asked: a question is asked at
    some of its tokens.
    """

    sequence: int
    start: int
    length: int
    shape: tuple[int, ...] | None = None
    cells: Tensor | None = None
    bound: bool = False
    asked: bool = False

    @property
    def total(self) -> int:
        """Cells of its shape."""
        return self.length if self.shape is None else prod(self.shape)

    def laid_out(self, own: Tensor, absent: int) -> Tensor:
        """Its tokens Int[length] in the cells of its shape, Int[total]; `absent` in a cell that has none."""
        if self.cells is None:
            return own
        there = self.cells >= 0
        return torch.full((self.total,), absent).index_copy(0, self.cells[there], own[there])

    def maps(self, axes: int) -> tuple[int, tuple[int, ...]]:
        """How many grids of `axes` axes it is, and their shape: a text of n tokens is 1 x n, a film T pictures."""
        assert self.shape is not None
        lead, own = self.shape[: max(0, len(self.shape) - axes)], self.shape[-axes:]
        return prod(lead), (1,) * (axes - len(own)) + tuple(own)


@dataclass
class Pieces:
    """The pieces of a batch column by column, in the order of its spans; made into `Piece`s for whoever asks."""

    sequence: list[int] = field(default_factory=list)
    start: list[int] = field(default_factory=list)
    length: list[int] = field(default_factory=list)
    shape: list[tuple[int, ...] | None] = field(default_factory=list)
    cells: dict[int, Tensor] = field(default_factory=dict)
    bound: set[int] = field(default_factory=set)
    asked: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, pieces: list[Piece]) -> Pieces:
        made = cls([p.sequence for p in pieces], [p.start for p in pieces], [p.length for p in pieces])
        made.shape = [p.shape for p in pieces]
        made.cells = {i: p.cells for i, p in enumerate(pieces) if p.cells is not None}
        made.bound = {i for i, p in enumerate(pieces) if p.bound}
        made.asked = {i for i, p in enumerate(pieces) if p.asked}
        return made

    def __len__(self) -> int:
        return len(self.start)

    def __iter__(self) -> Iterator[Piece]:
        columns = zip(self.sequence, self.start, self.length, self.shape, strict=True)
        return (Piece(*p, self.cells.get(i), i in self.bound, i in self.asked) for i, p in enumerate(columns))

    def placed(self) -> list[Piece]:
        """The pieces with tokens as they lie in the batch, from its first token to its last."""
        return sorted((piece for piece in self if piece.length), key=lambda piece: piece.start)

    def behind(self, tokens: int, sequences: int, other: Pieces) -> Pieces:
        """These, and `other`'s behind this many tokens and sequences."""
        own = len(self)
        return Pieces(
            [*self.sequence, *(sequence + sequences for sequence in other.sequence)],
            [*self.start, *(start + tokens for start in other.start)],
            [*self.length, *other.length],
            shape=[*self.shape, *other.shape],
            cells=self.cells | {own + i: cells for i, cells in other.cells.items()},
            bound=self.bound | {own + i for i in other.bound},
            asked=self.asked | {own + i for i in other.asked},
        )


def cells_of(pieces: list[Piece]) -> tuple[Tensor, Tensor]:
    """Of every token, as the pieces lie: the number of its piece, Int[N], and its cell, Int[N] (`Piece.cells`)."""
    lengths = torch.tensor([piece.length for piece in pieces])
    number = torch.arange(len(pieces)).repeat_interleave(lengths)
    cell = torch.arange(len(number)) - (lengths.cumsum(0) - lengths)[number]
    if told := [piece.cells for piece in pieces if piece.cells is not None]:
        cell[torch.tensor([piece.cells is not None for piece in pieces])[number]] = torch.cat(told)
    return number, cell
