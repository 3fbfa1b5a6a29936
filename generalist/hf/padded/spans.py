"""Padded tensors back to spans, and packed tokens back to padded rows: for all that asks where tokens stand."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.batch.at import At
from generalist.data.batch.types import Packed, Span
from generalist.tokenizers_mod.base.base import Modality

ASKED = "which this model looks at; use model.encode(processor(...))"


def spans_of(modality: Modality, name: str, tensors: dict[str, Tensor], placed: bool) -> tuple[list[Span], Tensor]:
    """Padded tensors of a modality, B samples -> their spans, as `Modality.span` makes them, and which of the padded
    tokens are real, Bool[B n]. placed: whether it matters where tokens stand; UserError where the tensors do not say.
    """
    data, real = modality.padded(tensors)
    batch = next(iter(tensors.values())).shape[0]
    count = next(iter(data.values())).shape[0] // batch
    keep = torch.ones(batch, count, dtype=torch.bool) if real is None else real.cpu()
    place = modality.padded_place(tensors, real)
    if placed and place is None and modality.axes > 1:
        raise UserError(f"{name}: its padded tensors do not say where tokens stand, {ASKED}")
    rows = {key: value.unflatten(0, (batch, count)).cpu() for key, value in data.items()}
    found = []
    for i in range(batch):
        shape, own = grid_of(modality, keep[i], None if place is None else place[i].cpu())
        mine = {key: value[i, own] for key, value in rows.items()}
        length = int(own.sum())
        causal = torch.ones(length, dtype=torch.bool) if modality.is_causal() else None
        mask = None if bool(keep[i, own].all()) else keep[i, own]
        found.append(Span(name, mine, length, mask, causal, grid=shape))
    return found, keep


def grid_of(
    modality: Modality, real: Bool[Tensor, " n"], place: Int[Tensor, "n 4"] | None
) -> tuple[tuple[int, ...] | None, Bool[Tensor, " n"]]:
    """The grid of one sample's tokens, and which of the padded ones are in it.

    place: row, column, rows and columns of whole maps of one size in order.
    """
    if place is None:
        if modality.axes != 1:
            return None, real
        numbers = torch.arange(1, len(real) + 1)
        inside = numbers <= (numbers * real).amax()
        return (int(inside.sum()),), inside
    row, column, rows, columns = place.unbind(-1)
    inside = (row < rows) & (column < columns)
    shape = int(rows[0]), int(columns[0])
    maps = int(inside.sum()) // max(1, shape[0] * shape[1])
    if bool((real & ~inside).any()):
        raise UserError(f"{modality.name}: what its mask calls real is no rectangle from the first patch on")
    return (shape if maps == 1 else (maps, *shape)), inside


class States:
    """A tap that keeps what these places put out, and for which packed token each row stands."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.seen: list[tuple[Tensor, Tensor | None]] = []

    def __call__(self, name: str, x: Tensor, at: At) -> Tensor:
        if name in self.names:
            self.seen.append((x, at.origin))
        return x


def padded_rows(
    x: Float[Tensor, "N D"], origin: Int[Tensor, " N"] | None, packed: Packed, real: Bool[Tensor, "B n"]
) -> Float[Tensor, "B n D"]:
    """Packed tokens as rows of their sequences, 0 behind the last.

    origin: for which packed token each stands; None: for its own, real then says where they stood among padded ones.
    """
    owner = packed.owner if origin is None else packed.owner[origin]
    counts = torch.bincount(owner, minlength=packed.sequences)
    if origin is not None:
        real = torch.arange(int(counts.max()), device=x.device) < counts.unsqueeze(1)
    full = x.new_zeros(*real.shape, x.shape[-1])
    full[real] = x[owner.argsort(stable=True)]
    return full
