"""What a modality's device half is, and what it may find besides tokens for the rows that it puts out.

A region proposer knows boxes, masks and a loss of its own, and only its matching tells which class a proposal should
be given: it hands back `Embedded` instead of bare tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeGuard

import torch
from torch import Tensor, nn


@dataclass
class Embedded:
    """x: Float[R D], the R output rows of one forward pass of a tokenizer; what else it knows of them:

    rows: {name: [R, ...]}, such as boxes. labels: Int[R], the label of each row that the tokenizer itself assigned
    (a set of objects matched to proposals), or None. loss: [1], the tokenizer's own loss summed over answers, so that
    it merges with the sum of -log p, or None.
    """

    x: Tensor
    rows: dict[str, Tensor] = field(default_factory=dict)
    labels: Tensor | None = None
    loss: Tensor | None = None

    @staticmethod
    def of(made: Tensor | Embedded) -> Embedded:
        """What a tokenizer's `forward` gave."""
        return made if isinstance(made, Embedded) else Embedded(made)

    def beside(self, x: Tensor, index: Tensor) -> Embedded:
        """Other tokens, and what is known of the rows `index` Int[M]."""
        labels = None if self.labels is None else self.labels[index]
        return Embedded(x, {name: value[index] for name, value in self.rows.items()}, labels, self.loss)


class Tokenizer(nn.Module):
    """forward(data: dict[str, Tensor]) -> Float[R D] or `Embedded`, one row a token of every span.

    A device half may be any module; one that is no `Tokenizer` asks one question a token and has no table.
    """

    def unfold(self, asked: Tensor) -> Tensor:
        """Encoded asked tokens Float[M D] -> their questions: the same, or Float[M a D] where each asks several."""
        return asked

    def table(self) -> nn.Embedding | None:
        """The table of learned rows by id that resizing and adapters look for, where there is one."""
        return None

    def hold(self) -> bool:
        """Keep what came pretrained as it is from here on; whether there is such."""
        return False

    def set_table(self, table: nn.Embedding) -> None:
        """Put another in the table's place."""
        raise NotImplementedError(f"{type(self).__name__} has no table of token embeddings")


class _State:
    bare = False


@contextmanager
def bare() -> Iterator[None]:
    """Device halves built inside read no weights from elsewhere."""
    before, _State.bare = _State.bare, True
    try:
        yield
    finally:
        _State.bare = before


def weights_follow() -> bool:
    """Whether what is built now gets its weights from a saved model, so that none are to be read from elsewhere."""
    return _State.bare or torch.get_default_device().type == "meta"


def taken(x: Tensor, layer: nn.Module) -> Tensor:
    """x in the precision that a layer takes: its weight's, or float32 where that is packed away (torch.ao's int8)."""
    weight = layer.weight
    return x.to(weight.dtype) if isinstance(weight, Tensor) else x.float()


def is_plain(weight: object) -> TypeGuard[Tensor]:
    """Whether a layer's weight is a tensor to compute with, and not packed: torch.ao hides it, torchao's knows little
    more than the product of a linear layer."""
    return type(weight) in (nn.Parameter, Tensor)
