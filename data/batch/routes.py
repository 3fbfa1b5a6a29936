"""What conditions the routers of a mixture of experts: the role of a packed batch, and its tokens' rows.

A `Role` says on which side of the law a batch stands; with the kinds of its own tokens it gives the eight
attribute bits of conditional MoE (spec 3.2). `Routes` are those bits for every token of a packed batch,
each distinct row once: experts are merged once a row, not once a token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Role:
    """Which side a packed batch is on and what stands on the other.

    target: candidates or partners (True) or inputs. own: kinds that its sequences hold besides the tokens at hand
    (the next word alone, behind a picture that was read before). other: kinds of the tokens on the other side
    ("vision", "text"), None where nothing is known of it (`told`). task: its name, for routers that choose by task;
    "" where none is known.
    """

    target: bool = False
    own: tuple[str, ...] = ()
    other: tuple[str, ...] | None = None
    task: str = ""

    @property
    def told(self) -> tuple[str, ...]:
        """`other`, or what is usual: an input is asked among texts, a candidate answers pictures."""
        return (("vision",) if self.target else ("text",)) if self.other is None else self.other


@dataclass
class Routes:
    """Token i of a packed batch is routed by row index[i] of the table: Int[N], Int[R C] (R distinct rows).

    first: Int[N], the row of the first token of token i's sequence, where that token is not in the batch (a word
    written behind what was read before); None where it is.
    """

    index: Int[Tensor, " N"]
    table: Int[Tensor, "R C"]
    first: Int[Tensor, " N"] | None = None

    def __add__(self, other: Routes) -> Routes:
        """The tokens of `self` followed by those of `other`."""
        shifted = other.index + len(self.table)
        return Routes(torch.cat([self.index, shifted]), torch.cat([self.table, other.table]))

    def map(self, fn: Callable[[Tensor], Tensor]) -> Routes:
        return Routes(fn(self.index), fn(self.table), None if self.first is None else fn(self.first))

    def of(self, tokens: Tensor) -> Routes:
        """Those of some tokens, Int[N'], as they stand in the batch."""
        return Routes(self.index[tokens], self.table, None if self.first is None else self.first[tokens])

    @cached_property
    def counts(self) -> list[int]:
        """Tokens of each row."""
        return torch.bincount(self.index, minlength=len(self.table)).tolist()

    @cached_property
    def order(self) -> tuple[Tensor, Tensor] | None:
        """(token order that lays equal rows end to end, its inverse), None where they already lie so."""
        if len(self.index) < 2 or bool((self.index.diff() >= 0).all()):
            return None
        order = torch.argsort(self.index, stable=True)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order), device=order.device)
        return order, inverse
