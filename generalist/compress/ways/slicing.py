"""`slice:SHARE`: heads and hidden units are removed for real; every layer keeps that share of them.

What leaves is what the layer can do without on training data. With x what enters the layer's last linear W, C its
covariance, and g the columns of a unit (a head's channels or one hidden unit), taking g out costs

    tr(W_g [C^-1]_gg^-1 W_g^T)        W <- W - W_g [C^-1]_gg^-1 [C^-1]_g

the squared error of the layer's output once the units that stay are refitted by least squares: the Optimal Brain
Surgeon of groups (ZipLM, 2302.04089, equations 2 and 3). The cheapest unit goes, one after the other; the mean of what
left goes into the bias. No label is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from generalist.compress.lessons import Lessons
from generalist.compress.ways.weights import check_share
from generalist.compress.work import Work, with_state
from generalist.data.base.errors import UserError
from generalist.nn.encoder import Block
from generalist.nn.mixers.base import Units
from generalist.nn.mixers.table import layers_of
from generalist.recipe.layers import LayerSpec

DAMPING = 1e-3  # of the mean variance, added to every variance: what 1,000 samples do not tell

ROUNDS = 128  # in which the units of a layer leave: of more than so many, several at once


@dataclass
class Moments:
    """Of what enters a linear: how many rows, their mean Float[u] and covariance Float[u u], summed up in float64."""

    count: int = 0
    total: Tensor | None = None
    square: Tensor | None = None

    def add(self, x: Tensor) -> None:
        x = x.detach().flatten(0, -2).double().cpu()
        self.count += len(x)
        self.total = x.sum(0) + (0 if self.total is None else self.total)
        self.square = x.T @ x + (0 if self.square is None else self.square)

    @property
    def mean(self) -> Tensor:
        assert self.total is not None
        return self.total / max(1, self.count)

    @property
    def covariance(self) -> Tensor:
        assert self.square is not None
        found = self.square / max(1, self.count) - self.mean.outer(self.mean)
        damping = DAMPING * float(found.diagonal().mean().clamp(min=1e-12))
        return found + damping * torch.eye(len(found), dtype=found.dtype)


@contextmanager
def watching(linears: Sequence[nn.Linear]) -> Iterator[list[Moments]]:
    """The moments of what enters these linears inside."""
    found = [Moments() for _ in linears]
    handles = [
        linear.register_forward_pre_hook(lambda _, given, own=own: own.add(given[0]))
        for linear, own in zip(linears, found, strict=True)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def looked_at(model: Any, lessons: Lessons, samples: int) -> None:
    """Inputs and candidates of about so many training samples pass through the model."""
    objective, seen = lessons.objective(model).eval(), 0
    for batch in islice(lessons.batches(), 10_000):
        objective(batch.to(model.device))
        seen += batch.inputs.sequences
        if seen >= samples:
            return


def least(weight: Tensor, moments: Moments, count: int, keep: int) -> tuple[Tensor, Tensor, Tensor, float]:
    """The `keep` of `count` units that stay, Int[k]; the weight refitted to them, Float[out k u/count]; what is added
    to the bias, Float[out]; the share of the output's variance that is lost."""
    w, c = weight.detach().double().cpu(), moments.covariance
    size = w.shape[1] // count
    columns = torch.arange(w.shape[1]).view(count, size)
    left, inverse = list(range(count)), torch.linalg.inv(c)
    whole, lost, refitted = float((w @ c * w).sum()), 0.0, w.clone()
    at_once = max(1, (count - keep) // ROUNDS)
    while len(left) > keep:
        own = columns[torch.tensor(left)]  # [n d]
        blocks = torch.linalg.inv(inverse[own.unsqueeze(2), own.unsqueeze(1)])  # [n d d]
        of = refitted[:, own].transpose(0, 1)  # [n out d]
        costs = ((of @ blocks) * of).sum((1, 2))
        cheapest = costs.topk(min(at_once, len(left) - keep), largest=False).indices
        gone = own[cheapest].flatten()
        block = torch.linalg.inv(inverse[gone][:, gone])
        lost += float((refitted[:, gone] @ block * refitted[:, gone]).sum())
        across = block @ inverse[gone]  # [g u]
        refitted = refitted - refitted[:, gone] @ across
        inverse = inverse - inverse[:, gone] @ across
        left = [unit for place, unit in enumerate(left) if place not in set(cheapest.tolist())]
    kept = torch.tensor(left)
    stays = columns[kept].flatten()
    bias = w @ moments.mean - refitted[:, stays] @ moments.mean[stays]
    return kept, refitted[:, stays], bias, lost / whole if whole else 0.0


def blocks_of(model: Any) -> list[tuple[str, Block]]:
    """The encoder's blocks with their names, in the order of its layers."""
    return [(f"encoder.layers.{i}", one) for i, one in enumerate(model.encoder.layers) if isinstance(one, Block)]


def parts_of(block: Block) -> dict[str, tuple[Any, Units]]:
    """{"mixer" or "mlp": (the mixer, its units)} of those that have some."""
    found = {name: (part, part.units) for name, part in (("mixer", block.mixer), ("mlp", block.mlp))}
    return {name: (part, units) for name, (part, units) in found.items() if units is not None}


@torch.no_grad()
def sliced(work: Work, moments: dict[str, Moments], keep: dict[str, int]) -> dict[str, float]:
    """The model with so many units a part, by the part's name; {name: the share of its output's variance lost}."""
    model, config = work.model, work.model.config
    state, lost = model.state_dict(), dict[str, float]()
    stack: list[LayerSpec] = []
    for (name, block), layer in zip(blocks_of(model), layers_of(config), strict=True):
        for kind, (part, units) in parts_of(block).items():
            own = f"{name}.{kind}"
            chosen = least(units.out.weight, moments[own], units.count, keep.get(own, units.count))
            kept, weight, bias, lost[own] = chosen
            cut = part.cut(kept)
            last = next(f"{n}." for n, module in part.named_modules() if module is units.out)
            cut[f"{last}weight"] = weight.to(cut[f"{last}weight"])
            if f"{last}bias" in cut:
                cut[f"{last}bias"] = cut[f"{last}bias"] + bias.to(cut[f"{last}bias"])
            state |= {f"{own}.{key}": value for key, value in cut.items()}
            sizes: dict[str, Any] = {units.size: len(kept)}
            if units.size == "heads":
                sizes["head_dim"] = units.out.in_features // units.count
            layer = replace(layer, **sizes)
        stack.append(layer)
    moe = asdict(config.moe) | {"placement": "none"}  # experts stand in the stack by name
    work.becomes(with_state(model, state, steps=[asdict(layer) for layer in stack], layers=len(stack), moe=moe))
    return lost


@dataclass
class Slice:
    """Every layer keeps `share` of its heads and of its hidden units, at least one of each. samples: looked at."""

    share: float
    samples: int = 512

    def check(self) -> None:
        check_share("slice", self.share)
        if self.samples < 1:
            raise UserError(f"slice: samples={self.samples}; it must be at least 1, such as 512")

    def run(self, work: Work) -> dict[str, Any]:
        parts = {f"{n}.{k}": own for n, block in blocks_of(work.model) for k, own in parts_of(block).items()}
        if not parts:
            raise UserError(
                "slice: no layer of this model has heads or hidden units that can be taken out (experts, norms inside "
                "the mixers and positions that count heads stand in the way); leave slice out"
            )
        moments = observed(work, [units.out for _, units in parts.values()], self.samples)
        keep = {name: max(1, round(self.share * units.count)) for name, (_, units) in parts.items()}
        before = {name: units.count for name, (_, units) in parts.items()}
        sizes = {name: units.size for name, (_, units) in parts.items()}
        lost = sliced(work, dict(zip(parts, moments, strict=True)), keep)
        found: dict[str, Any] = {}
        for size in sorted(set(sizes.values())):
            own = [name for name in parts if sizes[name] == size]
            found |= {f"{size} before": sum(before[n] for n in own), f"{size} after": sum(keep[n] for n in own)}
        return found | {"largest share of a layer's output lost": max(lost.values())}


def observed(work: Work, linears: Sequence[nn.Linear], samples: int) -> list[Moments]:
    """The moments of what enters linears of the model on training samples. UserError: nothing ever did."""
    with watching(linears) as moments:
        looked_at(work.model, work.lessons, samples)
    if any(not own.count for own in moments):
        raise UserError("a layer of this model is never used by its tasks' training data; give other DATA")
    return moments
