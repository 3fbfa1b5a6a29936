"""`search:SHARE`: how many heads and hidden units each layer keeps is searched for, at what `slice:SHARE` costs.

A candidate says for every part of every layer which of CHOICES of its units stay. It is tried as the whole model in
which the others' outgoing weights are zero and those that stay are refitted (`generalist.compress.ways.slicing`): the
masked supernet, which computes what the sliced network computes. Evolution as in ViT-ResNAS (2111.10493, section 3.3):
random candidates under the budget, then rounds of parents, of whom half of the next are crossed and half mutated. What
counts is the law's loss on training samples. A model that was trained with `model.elastic=true` has its units in an
order of worth already.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from generalist.compress.lessons import Lessons
from generalist.compress.ways.refit import Moments, least, observed
from generalist.compress.ways.slicing import blocks_of, parts_of, sliced
from generalist.compress.ways.weights import check_share
from generalist.compress.work import Work
from generalist.data.base.errors import UserError
from generalist.data.batch.types import Batch
from generalist.inspect.heads import weighing
from generalist.nn.mixers.base import Units

CHOICES = (0.25, 0.5, 0.75, 1.0)
MUTATED = 0.3  # of a candidate's parts
TRIES = 200  # draws for one candidate under the budget

Candidate = tuple[int, ...]  # units of every part


@dataclass
class Part:
    """What of a layer can be sized. cost: its multiply-adds in a pass, all units together; refitted: by how many stay
    the outgoing weight with zeros Float[out u] and the bias that goes with it."""

    name: str
    units: Units
    cost: float
    refitted: dict[int, tuple[Tensor, Tensor]]

    @property
    def choices(self) -> list[int]:
        return sorted(self.refitted)


@dataclass
class Search:
    """share: of the parts' multiply-adds. population, rounds, parents: of the evolution; samples: training samples on
    which candidates are compared (and twice as many to refit)."""

    share: float
    population: int = 48
    rounds: int = 6
    parents: int = 10
    samples: int = 192

    def check(self) -> None:
        check_share("search", self.share)
        if not (1 < self.parents <= self.population and self.rounds >= 0 and self.samples > 0):
            raise UserError("search: parents lie between 2 and the population, rounds and samples are positive")

    def run(self, work: Work) -> dict[str, Any]:
        parts, moments = parts_with_costs(work, 2 * self.samples)
        budget = self.share * sum(part.cost for part in parts)
        least_possible = sum(part.cost * part.choices[0] / part.units.count for part in parts)
        if least_possible > budget:
            raise UserError(
                f"search: the smallest network of this model has {least_possible / sum(p.cost for p in parts):.2f} of "
                f"its layers' multiply-adds, more than {self.share:g}; give a larger share"
            )
        batches, objective = some(work.lessons, self.samples, work.model.device), work.lessons.objective(work.model)
        objective.eval()

        def loss(candidate: Candidate) -> float:
            with worn(parts, candidate), torch.no_grad():
                return sum(float(objective(batch)) for batch in batches) / sum(batch.count for batch in batches)

        rng = random.Random(work.lessons.recipe.seed)
        even = evened(parts, self.share)
        best, tried = self.evolved(parts, budget, even, loss, rng)
        keep = {part.name: kept for part, kept in zip(parts, best, strict=True)}
        cost = cost_of(parts, best) / sum(part.cost for part in parts)
        found = {"tried": len(tried), "loss": tried[best], "loss of equal shares": tried.get(even), "cost": cost}
        sliced(work, moments, keep)
        return {name: value for name, value in found.items() if value is not None}

    def evolved(
        self, parts: list[Part], budget: float, even: Candidate, loss: Callable[[Candidate], float], rng: random.Random
    ) -> tuple[Candidate, dict[Candidate, float]]:
        """The best candidate, and the loss of every one that was tried."""
        tried: dict[Candidate, float] = {}

        def attempt(candidate: Candidate | None) -> None:
            if candidate is not None and candidate not in tried:
                tried[candidate] = loss(candidate)

        if cost_of(parts, even) <= budget * (1 + 1e-9):
            attempt(even)
        attempt(tuple(part.choices[0] for part in parts))
        for _ in range(self.population):
            attempt(drawn(parts, budget, partial(at_random, parts, rng)))
        for _ in range(self.rounds):
            first = sorted(tried, key=tried.__getitem__)[: self.parents]
            for number in range(self.population // 2):
                a, b = rng.choice(first), rng.choice(first)
                make = partial(crossed, a, b, rng) if number % 2 else partial(mutated, parts, a, rng)
                attempt(drawn(parts, budget, make))
        return min(tried, key=tried.__getitem__), tried


def some(lessons: Lessons, samples: int, device: torch.device) -> list[Batch]:
    """Training batches of about so many samples, not those that weights were refitted on first."""
    found, seen = list[Batch](), 0
    for batch in islice(lessons.batches(1), 10_000):
        found.append(batch.to(device))
        seen += batch.inputs.sequences
        if seen >= samples:
            break
    return found


def at_random(parts: list[Part], rng: random.Random) -> Candidate:
    return tuple(rng.choice(part.choices) for part in parts)


def crossed(a: Candidate, b: Candidate, rng: random.Random) -> Candidate:
    return tuple(rng.choice(both) for both in zip(a, b, strict=True))


def mutated(parts: list[Part], candidate: Candidate, rng: random.Random) -> Candidate:
    return tuple(
        rng.choice(part.choices) if rng.random() < MUTATED else now for part, now in zip(parts, candidate, strict=True)
    )


def drawn(parts: list[Part], budget: float, make: Callable[[], Candidate]) -> Candidate | None:
    """A candidate under the budget: the first that fits; None where none did."""
    for _ in range(TRIES):
        if cost_of(parts, candidate := make()) <= budget * (1 + 1e-9):
            return candidate
    return None


def evened(parts: list[Part], share: float) -> Candidate:
    """The candidate that is nearest to `slice`: of every part the most units within its share."""
    return tuple(max((k for k in p.choices if k <= share * p.units.count + 1e-9), default=p.choices[0]) for p in parts)


def cost_of(parts: list[Part], candidate: Candidate) -> float:
    """Multiply-adds of the parts: all of them are in proportion to the units."""
    return sum(part.cost * kept / part.units.count for part, kept in zip(parts, candidate, strict=True))


def parts_with_costs(work: Work, samples: int) -> tuple[list[Part], dict[str, Moments]]:
    """Every part with its cost in one pass and its refitted weights. UserError: there is none."""
    model = work.model
    named = {f"{n}.{kind}": own for n, block in blocks_of(model) for kind, own in parts_of(block).items()}
    if not named:
        raise UserError("search: no layer of this model has heads or hidden units that can be taken out; leave it out")
    found, _ = observed(work, [units.out for _, units in named.values()], samples)
    moments = dict(zip(named, found, strict=True))
    batch = next(work.lessons.batches(2)).to(model.device)
    with torch.no_grad(), weighing(model), FlopCounterMode(display=False) as counter:
        model.features(batch.inputs)
    counts = {place.partition(".")[2]: sum(own.values()) for place, own in counter.get_flop_counts().items()}
    parts = []
    for name, (_, units) in named.items():
        sizes = sorted({max(1, round(share * units.count)) for share in CHOICES})
        refitted = {keep: whole_weight(units, moments[name], keep) for keep in sizes}
        parts.append(Part(name, units, counts[name.removeprefix("encoder.")] / 2, refitted))
    return parts, moments


def whole_weight(units: Units, moments: Moments, keep: int) -> tuple[Tensor, Tensor]:
    """The outgoing weight with zeros for the units that leave, and what is added to its bias."""
    kept, weight, bias, _ = least(units.out.weight, moments, units.count, keep)
    size = units.out.in_features // units.count
    columns = (kept.unsqueeze(1) * size + torch.arange(size)).flatten()
    full = torch.zeros_like(units.out.weight)
    full[:, columns.to(full.device)] = weight.to(full)
    return full, bias.to(full)


@contextmanager
def worn(parts: list[Part], candidate: Candidate) -> Iterator[None]:
    """The whole model as this candidate."""
    before = []
    with torch.no_grad():
        for part, kept in zip(parts, candidate, strict=True):
            out = part.units.out
            before.append((out.weight.clone(), None if out.bias is None else out.bias.clone()))
            weight, bias = part.refitted[kept]
            out.weight.copy_(weight)
            if out.bias is not None:
                out.bias.add_(bias)
    try:
        yield
    finally:
        with torch.no_grad():
            for part, (weight, own) in zip(parts, before, strict=True):
                part.units.out.weight.copy_(weight)
                if own is not None:
                    part.units.out.bias.copy_(own)
