"""What of a packed batch goes through attention together: sequences of one length, or on a GPU of several.

On a CPU every group of equal lengths is a call of its own, without padding. On a GPU a call costs more than it computes
where the groups are many and small, so neighbouring groups share one: those where every token sees every token go
through torch's variable-length kernel (float16 and bfloat16 only), all others are padded for the kernel alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from generalist.data.batch.at import At
from generalist.data.batch.types import Group

HALF = (torch.float16, torch.bfloat16)
T = TypeVar("T")
FEW = 8192  # padded tokens that cost a GPU no more than starting another kernel does


def lazy(make: Callable[[Any], T]) -> property:
    """A value made when first asked for. Not functools' cached_property, whose lock torch.compile cannot enter."""
    name = f"_{make.__name__}"

    def get(self: Any) -> T:
        if name not in self.__dict__:
            self.__dict__[name] = make(self)
        found: T = self.__dict__[name]
        return found

    return property(get)


@dataclass
class Equal:
    """Sequences of one length: a view of the packed tokens.

    given: Bool[count 1 1|n n], of a padded batch; at: whose blocks say who sees whom; neither: all see all.
    """

    group: Group
    given: Tensor | None = None
    at: At | None = None

    @lazy
    def blocks(self) -> tuple[Tensor, Tensor] | None:
        """Int[count n], the blocks of its tokens, and Bool[count n], which are hidden."""
        if self.at is None:
            return None
        own, shape = slice(self.group.start, self.group.start + self.tokens), (self.group.count, self.group.length)
        return self.at.block[own].view(shape), self.at.hidden[own].view(shape)

    @lazy
    def causal(self) -> bool:
        """Whether every token sees itself and all before it, and nothing else. On a CPU only: a GPU would wait."""
        if self.blocks is None or self.blocks[0].device.type != "cpu":
            return False
        block, hidden = self.blocks
        return not bool(hidden.any()) and bool((block[:, 1:] > block[:, :-1]).all())

    @lazy
    def mask(self) -> Tensor | None:
        """Bool[count 1 1|n n], True = may be seen, None = all; made where a kernel needs it."""
        return self.given if self.blocks is None else visible(*self.blocks)

    @property
    def tokens(self) -> int:
        return self.group.count * self.group.length

    @property
    def count(self) -> int:
        return self.group.count

    def rows(self, t: Tensor) -> Tensor:
        """Float[tokens H d] -> Float[count H n d]."""
        return t.view(self.group.count, self.group.length, *t.shape[1:]).transpose(1, 2)

    def packed(self, o: Tensor) -> Tensor:
        """The way back."""
        return o.transpose(1, 2).flatten(0, 1)

    def within(self, tokens: Tensor) -> Tensor:
        """Where some of its tokens, Int[w] of the batch, stand in their sequences."""
        return (tokens - self.group.start) % self.group.length

    def whole(self, q: Tensor, k: Tensor, v: Tensor, asks: list[int] | None = None) -> Tensor | None:
        """Attention by a kernel that needs no mask, where there is one. asks: queries of each sequence, None: all."""
        if asks is not None or not self.causal:
            return None
        return self.packed(scaled_dot_product_attention(self.rows(q), self.rows(k), self.rows(v), is_causal=True))


@dataclass
class Ragged:
    """Neighbouring groups in one call. starts: Int32[count + 1] of its sequences; plain: all of its tokens see all."""

    groups: list[Group]
    at: At
    starts: Tensor = field(init=False)

    def __post_init__(self) -> None:
        lengths = [0] + [group.length for group in self.groups for _ in range(group.count)]
        self.starts = torch.tensor(lengths, device=self.at.block.device).cumsum(0, dtype=torch.int32)

    @lazy
    def tokens(self) -> int:
        return sum(group.count * group.length for group in self.groups)

    @lazy
    def count(self) -> int:
        return sum(group.count for group in self.groups)

    @lazy
    def longest(self) -> int:
        return max(group.length for group in self.groups)

    @lazy
    def plain(self) -> bool:
        return all(group.plain for group in self.groups)

    @property
    def mask(self) -> Tensor:
        return self.padded[1]

    @lazy
    def padded(self) -> tuple[Tensor, Tensor]:
        """Where each token lies in [count, longest], Int[tokens], and their mask Bool[count 1 1|n n]; made once."""
        count, longest, first = self.count, self.longest, self.groups[0].start
        sizes = self.starts.diff().long()
        owner = torch.arange(count, device=sizes.device).repeat_interleave(sizes, output_size=self.tokens)
        within = torch.arange(self.tokens, device=sizes.device) - self.starts[:-1].long()[owner]
        real = torch.arange(longest, device=sizes.device) < sizes.unsqueeze(1)
        place, seen = owner * longest + within, real[:, None, None, :]
        if not self.plain:
            own = slice(first, first + self.tokens)
            block, hidden = (
                t.new_zeros(count * longest).index_copy(0, place, t[own]).view(count, longest)
                for t in (self.at.block, self.at.hidden)
            )
            itself = torch.eye(longest, dtype=torch.bool, device=block.device)
            seen = seen & visible(block, hidden) | itself  # so that no row of the mask is empty
        return place, seen

    def rows(self, t: Tensor) -> Tensor:
        """Float[tokens H d] -> Float[count H n d], 0 where there is no token."""
        shape = (self.count, self.longest)
        full = t.new_zeros(shape[0] * shape[1], *t.shape[1:]).index_copy(0, self.padded[0], t)
        return full.view(*shape, *t.shape[1:]).transpose(1, 2)

    def packed(self, o: Tensor) -> Tensor:
        """The way back."""
        return o.transpose(1, 2).flatten(0, 1).index_select(0, self.padded[0])

    def within(self, tokens: Tensor) -> Tensor:
        """Where some of its tokens, Int[w] of the batch, stand in their sequences."""
        return self.padded[0][tokens - self.groups[0].start] % self.longest

    def whole(self, q: Tensor, k: Tensor, v: Tensor, asks: list[int] | None = None) -> Tensor | None:
        """Attention by the variable-length kernel, or None where it does not take these tokens."""
        if not (self.plain and q.is_cuda and q.dtype in HALF and q.shape[-1] % 8 == 0 and q.shape[-1] <= 256):
            return None
        if asks is None:
            return varlen()(q, k, v, self.starts, self.starts, self.longest, self.longest)
        starts = torch.tensor([0, *asks], device=q.device).cumsum(0, dtype=torch.int32)
        return varlen()(q, k, v, starts, self.starts, max(asks), self.longest)


Part = Equal | Ragged


@cache
def varlen() -> Any:
    """torch's own variable-length attention; imported when a GPU first needs it."""
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn


def visible(block: Tensor, hidden: Tensor) -> Tensor:
    """The one mask rule: key j is seen by query i iff block[j] <= block[i] and (not hidden[j] or i == j).

    Int[count n], Bool[count n] -> Bool[count 1 n n].
    """
    earlier = block[:, None, :] <= block[:, :, None]
    itself = torch.eye(block.shape[1], dtype=torch.bool, device=block.device)
    return (earlier & (~hidden[:, None, :] | itself)).unsqueeze(1)


def equal(at: At) -> list[Equal]:
    """A part for every group of equal lengths."""
    return [_equal(at, group) for group in at.groups]


def _equal(at: At, group: Group) -> Equal:
    if at.mask is not None or group.plain:
        return Equal(group, at.mask)
    return Equal(group, at=at)


def shared(at: At, half: bool) -> list[Part]:
    """Neighbouring groups together: all plain ones where tokens have half precision, others while padding is cheap."""
    runs: list[list[Group]] = []
    for group in at.groups:
        run = runs[-1] if runs else []
        if run and run[-1].plain == group.plain and ((group.plain and half) or cheap([*run, group])):
            run.append(group)
        else:
            runs.append([group])
    return [Ragged(run, at) if len(run) > 1 else _equal(at, run[0]) for run in runs]


def cheap(groups: list[Group]) -> bool:
    """Whether padding these groups to one length costs less than a call for each."""
    tokens = sum(group.count * group.length for group in groups)
    padded = sum(group.count for group in groups) * max(group.length for group in groups)
    return padded <= max(FEW, 1.25 * tokens)


def parts_of(at: At, x: Tensor, listed: bool = False) -> list[Part]:
    """The parts of a pass through the encoder, made once. x: tokens of it; listed: a part for every group."""
    dtype = torch.get_autocast_dtype("cuda") if x.is_cuda and torch.is_autocast_enabled("cuda") else x.dtype
    alone = listed or not x.is_cuda or len(at.groups) == 1
    return at.once(("parts", alone), lambda: [*equal(at)] if alone else shared(at, dtype in HALF))
