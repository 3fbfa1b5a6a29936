"""Tokens whose content is blanked, shuffled or replaced by noise, of any modality, at the places where they stand.

A modality says which of its tensors hold what a token shows (`Modality.blank`); position, column and channel are not
touched. Where it says nothing, as of a picture that is one token, the token itself is disturbed behind its tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from generalist.inspect.asking.look import Look, with_data
from generalist.tokenizers_mod.base.base import Modality


def contents(look: Look) -> dict[str, dict[str, float]]:
    """Of the task's inputs whose tensors have a row a token: {modality: {key: what a blank token shows}}."""
    found = {}
    for name, data in look.packed.data.items():
        blank = look.task.modalities[name].blank() if name in look.task.inputs else {}
        if blank and all(key in data and len(data[key]) == look.rows(name) for key in blank):
            found[name] = blank
    return found


def rows_of(look: Look, name: str, tokens: Bool[Tensor, " N"]) -> Tensor:
    """Rows of a modality's tensors that belong to these tokens, in their order."""
    number = list(look.packed.data).index(name)
    return look.packed.row[tokens & (look.packed.source == number)]


def measured(modality: Modality, value: Tensor) -> Tensor:
    """The part of a content that holds numbers, a view: where half of it says what was measured, the other half."""
    return value[:, : value.shape[1] // 2] if modality.flagged and value.ndim == 2 else value


Change = Callable[[Look, str, str, Tensor, Tensor], None]  # look, modality, key, its tensor, rows: changed in place


def changed(look: Look, tokens: Bool[Tensor, " N"], change: Change, bare: Callable[[Tensor], Tensor]) -> Tensor:
    """Float[N D] with the content of these tokens changed. bare: makes Float[n D] of tokens without content of their
    own, modality by modality."""
    known = contents(look)
    data = {name: dict(own) for name, own in look.packed.data.items()}
    for name, blank in known.items():
        rows = rows_of(look, name, tokens & look.open)
        for key in blank:
            data[name][key] = data[name][key].clone()
            change(look, name, key, data[name][key], rows)
    x = with_data(look, data) if known else look.x.clone()
    for number, name in enumerate(data):
        other = tokens & look.open & (look.packed.source == number)
        if name not in known and bool(other.any()):
            x = x.index_copy(0, other.nonzero().squeeze(1), bare(look.x[other]).to(x.dtype))
    return x


@torch.no_grad()
def blanked(look: Look) -> Float[Tensor, "N D"]:
    """Every open token without its content; of modalities without one the mean of the tokens at hand."""
    known = contents(look)

    def change(look: Look, name: str, key: str, value: Tensor, rows: Tensor) -> None:
        measured(look.task.modalities[name], value)[rows] = known[name][key]

    return changed(look, look.open, change, lambda own: own.mean(0, keepdim=True).expand_as(own))


@torch.no_grad()
def noisy(look: Look, tokens: Bool[Tensor, " N"], rng: torch.Generator) -> Float[Tensor, "N D"]:
    """Numbers become Gaussian with their mean and deviation, ids uniform over those at hand."""

    def change(look: Look, name: str, key: str, value: Tensor, rows: Tensor) -> None:
        own = measured(look.task.modalities[name], value)
        own[rows] = _noise_like(own, len(rows), rng)

    def bare(own: Tensor) -> Tensor:
        return _noise_like(own, len(own), rng)

    return changed(look, tokens, change, bare)


def _noise_like(value: Tensor, count: int, rng: torch.Generator) -> Tensor:
    shape = (count, *value.shape[1:])
    if not value.is_floating_point():
        return torch.randint(int(value.min()), int(value.max()) + 1, shape, generator=rng).to(value)
    drawn = torch.randn(shape, generator=rng).to(value)
    return drawn * value.std(correction=0) + value.mean()


@torch.no_grad()
def shuffled(look: Look, share: float, rng: torch.Generator) -> Float[Tensor, "N D"]:
    """Contents change places within their span; share: of a span's tokens, at least two where it has two."""
    source = torch.arange(len(look.x))
    for piece, _ in look.spans():
        moved = max(2, round(share * piece.length))
        if share <= 0 or piece.length < 2:
            continue
        which = torch.randperm(piece.length, generator=rng)[:moved] + piece.start
        source[which] = which.roll(1)  # a cycle: no content stays where it was
    source = source.to(look.x.device)
    row = look.packed.row

    def change(look: Look, name: str, key: str, value: Tensor, rows: Tensor) -> None:
        tokens = (look.packed.source == list(look.packed.data).index(name)) & look.open
        before = value.clone()
        value[row[tokens]] = before[row[source[tokens]]]

    x = changed(look, look.open, change, lambda own: own)
    bare = [name for name in look.packed.data if name in look.task.inputs and name not in contents(look)]
    for name in bare:
        tokens = (look.packed.source == list(look.packed.data).index(name)) & look.open
        x = x.index_copy(0, tokens.nonzero().squeeze(1), look.x[source[tokens]])
    return x
