"""The types that travel: `Span` -> `Example` -> `Packed` -> `Batch`.

Mask polarity is True = real, everywhere. Axis names: n tokens of a span, N tokens of a packed batch,
B sequences, M asked tokens (tokens that carry a label), K candidates, D the encoder's width.

One mask rule (Uni-Perceiver, 2112.01522 section 3, generalised): a token sees every real token of its
own and earlier blocks of its sequence; each causal token opens a new block. A hidden token is seen by
itself only (the answer slots of captioning training are hidden).

    causal   0 0 0 1 1 1        token 3 opens block 1, token 4 block 2 ...
    block    0 0 0 1 2 3        query i sees key j  <=>  block[j] <= block[i] and (not hidden[j] or i == j)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from generalist.data.base.constants import constant
from generalist.data.batch.pieces import Pieces
from generalist.data.batch.routes import Role

IGNORE = -1  # an integer label that is not asked; float labels use NaN


@constant(4096)
def _places(asked: tuple[int, ...]) -> Tensor:
    """One tensor for all spans that ask at these places; nearly all ask at the first."""
    return torch.tensor(asked, dtype=torch.long)


@dataclass(frozen=True)
class Span:
    """A run of n tokens of one modality, still raw: what a tokenizer's CPU half emits.

    data: tensors whose first axis concatenates over spans (usually one row a token: [n, ...]; a
        tokenizer that needs a whole sample keeps one row a span: [1, ...]).
    mask: Bool[n], True = real. None means all real.
    causal: Bool[n], True opens a new block. None means none does.
    hidden: Bool[n], True = seen by itself only. None means none is.
    asked: Int[m], the token positions in 0..n-1 where the question is asked. None means nowhere.
    labels: [m, ...], one row an asked token: class index (int64), values (float [m, a], NaN = not
        asked) or a distribution over the candidates (float [m, K]). None at inference.
    grid: the token grid: (n,) of an ordered sequence, (H, W) of patches, (T, H, W) of a film; None for a set.
    """

    modality: str
    data: dict[str, Tensor]
    length: int
    mask: Bool[Tensor, " n"] | None = None
    causal: Bool[Tensor, " n"] | None = None
    hidden: Bool[Tensor, " n"] | None = None
    asked: Int[Tensor, " m"] | None = None
    labels: Shaped[Tensor, "m ..."] | None = None
    grid: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        # three or four of them are made a sample: every line here is a share of the loader's time
        for name, flag in (("mask", self.mask), ("causal", self.causal), ("hidden", self.hidden)):
            if flag is not None and flag.shape != (self.length,):
                shape = tuple(flag.shape)
                raise ValueError(f"{self.modality} span: {name} has shape {shape}, expected ({self.length},)")
        asked = self.asked
        count = 0 if asked is None else asked.shape[0]
        if asked is not None and count:
            places = asked.tolist()
            low, high = min(places), max(places)
            if low < 0 or high >= self.length:
                raise ValueError(f"{self.modality} span: asked at token {low if low < 0 else high} of {self.length}")
        if self.grid is not None and prod(self.grid) != self.length:
            raise ValueError(f"{self.modality} span: grid {self.grid} has not {self.length} cells")
        if self.labels is not None and self.labels.shape[0] != count:
            raise ValueError(f"{self.modality} span: {len(self.labels)} labels for {count} asked tokens")

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        others = (self.mask, self.causal, self.hidden, self.asked, self.labels)
        return sum(t.nbytes for t in (*self.data.values(), *others) if t is not None)

    def ask(self, asked: Sequence[int] | Tensor, labels: Tensor | None = None) -> Span:
        """The same span with the question asked at these token positions."""
        asked = asked.long() if isinstance(asked, Tensor) else _places(tuple(asked))
        flags = self.mask, self.causal, self.hidden
        return Span(self.modality, self.data, self.length, *flags, asked, labels, self.grid)


@dataclass(frozen=True)
class Example:
    """One sample of one task: input spans in order, and for in-batch candidates the partner's spans."""

    inputs: list[Span]
    partner: list[Span] | None = None
    record: str = ""  # names the sample in errors and saved predictions
    key: int = 0  # partners with the same key are the same answer
    others: list[list[Span]] = field(default_factory=list)  # partners that are right as well, in evaluation


@dataclass(frozen=True)
class Group:
    """`count` consecutive sequences of equal `length` starting at packed token `start`.

    plain: True when every token sees every token, so that attention needs no mask.
    """

    start: int
    count: int
    length: int
    plain: bool


@dataclass
class Layout:
    """Who sees whom among N packed tokens: groups of equal-length sequences, Int[N] block, Bool[N] hidden.

    pieces: where the spans lie; None where nobody knows, as of padded tensors. asked: Int[W], the tokens at which a
    question is asked, each once, as they lie; asks: of each sequence, as they lie, how many of them; None: not known.
    """

    groups: list[Group]
    block: Int[Tensor, " N"]
    hidden: Bool[Tensor, " N"]
    pieces: Pieces | None = None
    asked: Int[Tensor, " W"] | None = None
    asks: list[int] | None = None

    @property
    def some(self) -> bool:
        """Whether questions are asked at some of the tokens and not at all of them."""
        return self.asks is not None and 0 < sum(self.asks) < sum(group.count * group.length for group in self.groups)

    def __add__(self, other: Layout) -> Layout:
        """The tokens of `self` followed by those of `other`."""
        shift, sequences = len(self.block), sum(group.count for group in self.groups)
        moved = [replace(g, start=g.start + shift) for g in other.groups]
        pieces = None
        if self.pieces is not None and other.pieces is not None:
            pieces = self.pieces.behind(shift, sequences, other.pieces)
        block, hidden = torch.cat([self.block, other.block]), torch.cat([self.hidden, other.hidden])
        asked = asks = None
        if self.asked is not None and other.asked is not None:
            asked = torch.cat([self.asked, other.asked + shift])
        if self.asks is not None and other.asks is not None:
            asks = self.asks + other.asks
        return Layout(self.groups + moved, block, hidden, pieces, asked, asks)

    def map(self, fn: Callable[[Tensor], Tensor]) -> Layout:
        asked = None if self.asked is None else fn(self.asked)
        return Layout(self.groups, fn(self.block), fn(self.hidden), self.pieces, asked, self.asks)


@dataclass
class Packed:
    """A batch of sequences with only real tokens, sorted by length, laid end to end (no padding).

    data: {modality: {key: rows}}; source/row: Int[N], token i is row `row[i]` of the output of the
    tokenizer of modality number `source[i]` (in the order of `data`).
    layout: who sees whom; owner: Int[N], the sequence each token belongs to (numbered as given to
    `pack`); first: Int[B], packed position of each sequence's first token.
    asked: Int[M] packed positions of the asked tokens in the order given; asked_owner: Int[M];
    asked_modality: the modality of the asked tokens (one a batch), labels: [M, ...] or None.
    """

    data: dict[str, dict[str, Tensor]]
    source: Int[Tensor, " N"]
    row: Int[Tensor, " N"]
    layout: Layout
    owner: Int[Tensor, " N"]
    first: Int[Tensor, " B"]
    asked: Int[Tensor, " M"]
    asked_owner: Int[Tensor, " M"]
    asked_modality: str = ""
    labels: Shaped[Tensor, "M ..."] | None = None
    kinds: list[str] = field(default_factory=list)  # modality of every span
    role: Role = field(
        default_factory=Role
    )  # input or candidate, and what stands on the other side: for a mixture of experts

    @property
    def tokens(self) -> int:
        return len(self.source)

    @property
    def sequences(self) -> int:
        return len(self.first)

    def map(self, fn: Callable[[Tensor], Tensor]) -> Packed:
        """The same batch with `fn` applied to every tensor."""
        moved: dict[str, Any] = {name: fn(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        data = {m: {k: fn(v) for k, v in d.items()} for m, d in self.data.items()}
        return replace(self, data=data, layout=self.layout.map(fn), **moved)

    def to(self, device, non_blocking: bool = True) -> Packed:
        return self.map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Packed:
        return self.map(lambda t: t.pin_memory())


@dataclass
class Batch:
    """One micro step of one task.

    candidates: the name of a shared candidate set, or None when `partners` hold the in-batch
    candidates (retrieval: row i's answer is partner i).
    scale: which learnable logit scale is used; smoothing: label smoothing of hard labels;
    count: answers asked in it; keys: Int[B], partners with the same key are the same answer; partner_owner: Int[P],
    whose partner each is, for an input has several in evaluation.
    skipped: one line for each broken sample that was left out, with its name and what is wrong with it.
    """

    task: str
    inputs: Packed
    candidates: str | None = None
    partners: Packed | None = None
    scale: str = "default"
    smoothing: float = 0.0
    count: int = 0
    records: list[str] = field(default_factory=list)
    keys: Int[Tensor, " B"] | None = None
    partner_owner: Tensor | None = None
    skipped: list[str] = field(default_factory=list)

    def to(self, device) -> Batch:
        partners = None if self.partners is None else self.partners.to(device)
        keys = None if self.keys is None else self.keys.to(device)
        owner = None if self.partner_owner is None else self.partner_owner.to(device)
        return replace(self, inputs=self.inputs.to(device), partners=partners, keys=keys, partner_owner=owner)

    def pin_memory(self) -> Batch:
        partners = None if self.partners is None else self.partners.pin_memory()
        return replace(self, inputs=self.inputs.pin_memory(), partners=partners)
