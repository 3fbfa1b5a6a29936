"""A few samples, and a few members of a large candidate set, in the place of all: what all take follows exactly.

What a step takes is a polynomial in how often the same samples and the same members stand in it: of degree two in the
samples where each is compared with every other's partner, of degree one else. So the few are measured once, twice and
where needed three times over, and the polynomial is read at the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from torch import Tensor

from generalist.data.batch.types import Batch, Example, Packed, Role, Span
from generalist.tasks.candidates.base import CandidateSet, Worded
from generalist.tokenizers_mod.base.base import Modality

SAMPLES = 4  # that stand for a batch
MEMBERS = 64  # that stand for a candidate set
KEPT = 100  # bytes that a layer keeps for its gradients, roughly, a token and channel
SMALL = 2**28  # bytes kept up to which all of a batch or set is measured


def small(tokens: float, width: int) -> bool:
    """Whether so many tokens need no others in their place."""
    return KEPT * width * tokens <= SMALL


@dataclass
class Drawn:
    """One micro batch of a task. batch: of the examples that were drawn; samples: how many they stand for; seconds:
    that reading so many takes."""

    batch: Batch
    examples: list[Example]
    collate: Callable[[list[Example]], Batch]
    samples: int
    seconds: float

    @property
    def times(self) -> float:
        """How often the examples stand in the whole batch."""
        return self.samples / len(self.examples)

    @property
    def repeats(self) -> tuple[int, ...]:
        """How often they are measured."""
        if self.times == 1:
            return (1,)
        return (1, 2) if self.batch.partners is None else (1, 2, 3)

    def repeated(self, times: int) -> Batch:
        return self.batch if times == 1 else self.collate(self.examples * times)

    @property
    def shape(self) -> Hashable:
        """What its cost follows from, besides the task's kind and candidates: those of one shape are measured once."""
        sides = [side for side in (self.batch.inputs, self.batch.partners) if side is not None]
        return self.samples, self.batch.smoothing > 0, tuple(map(_shape, sides))

    @property
    def tokens(self) -> float:
        """Of the whole batch, partners' too."""
        own = self.batch.inputs.tokens + (0 if self.batch.partners is None else self.batch.partners.tokens)
        return own * self.times


def _shape(packed: Packed) -> Hashable:
    layout, labels = packed.layout, packed.labels
    held = {m: {key: tuple(x.shape) for key, x in own.items()} for m, own in packed.data.items()}
    order = (layout.block.tolist(), layout.hidden.tolist(), packed.asked.tolist())
    return repr((layout.groups, held, order, None if labels is None else (labels.shape, labels.dtype)))


@dataclass
class Some(CandidateSet):
    """The members `numbers` of a set in its place; labels are spread over them.

    worded_as: the whole set's members by template, made once.
    """

    whole: CandidateSet
    numbers: list[int]
    worded_as: dict[str, Worded] = field(default_factory=dict)

    def sequences(self, modalities: dict[str, Modality]) -> list[list[Span]]:
        return self.worded(modalities, "{}").sequences

    def templates_of(self, modalities: dict[str, Modality]) -> list[str]:
        return self.whole.templates_of(modalities)

    def worded(self, modalities: dict[str, Modality], template: str) -> Worded:
        if template not in self.worded_as:
            self.worded_as[template] = self.whole.worded(modalities, template)
        own = self.worded_as[template]
        variants = {i: own.variants[n] for i, n in enumerate(self.numbers) if n in own.variants}
        return Worded([own.sequences[n] for n in self.numbers], variants)

    def labels(self, modalities: dict[str, Modality]) -> list[str]:
        own = self.whole.labels(modalities)
        return [own[n] for n in self.numbers]

    def target(self, labels: Tensor) -> Tensor:
        target = self.whole.target(labels)
        if target.is_floating_point():
            return target[..., self.numbers]
        return target.where(target < 0, target % len(self.numbers))

    def role(self, task: str = "") -> Role:
        return self.whole.role(task)


@dataclass
class Fewer:
    """A set as it is measured. worded: all its members; sets: once and twice the few, or all alone; times: how often
    the first holds all, by tokens; tokens: of all its members."""

    worded: Worded
    sets: tuple[CandidateSet, ...]
    times: float
    tokens: int


def fewer_of(sets: Mapping[str, CandidateSet], modalities: dict[str, Modality], width: int) -> dict[str, Fewer]:
    """`fewer` of every set; equal sets are put into words once."""
    known: list[tuple[CandidateSet, Worded]] = []
    found = {}
    for name, chosen in sets.items():
        worded = next((own for other, own in known if other == chosen), None)
        if worded is None:
            worded = chosen.worded(modalities, "{}")
            known.append((chosen, worded))
        found[name] = fewer(chosen, worded, width)
    return found


def fewer(chosen: CandidateSet, worded: Worded, width: int) -> Fewer:
    """Few members of a large set, spread evenly over it. Sets whose loss looks at all members stay whole."""
    sizes = [sum(span.length for span in spans) for spans in worded.sequences]
    tokens, count = sum(sizes), len(sizes)
    if small(tokens, width) or count <= 2 * MEMBERS or type(chosen).penalty is not CandidateSet.penalty:
        return Fewer(worded, (chosen,), 1.0, tokens)
    numbers = [i * count // MEMBERS for i in range(MEMBERS)]
    known = {"{}": worded}
    sets = tuple(Some(chosen, numbers * times, known) for times in (1, 2))
    return Fewer(worded, sets, tokens / sum(sizes[n] for n in numbers), tokens)


def weights(points: tuple[int, ...], at: float) -> list[float]:
    """By how much a polynomial's values at the points add up to its value at another (Lagrange's): [points]."""
    return [prod((at - other) / (own - other) for other in points if other != own) for own in points]


def at_whole(values: dict[tuple[int, int], Any], drawn: Drawn, members: Fewer | None) -> float:
    """The value at the whole batch and set, from those at (times the samples, times the members)."""
    points = (1, 2) if members is not None and len(members.sets) > 1 else (1,)
    of_members = weights(points, 1.0 if members is None else members.times)
    of_samples = weights(drawn.repeats, drawn.times)
    return sum(
        w * v * values[r, m]
        for r, w in zip(drawn.repeats, of_samples, strict=True)
        for m, v in zip(points, of_members, strict=True)
    )
