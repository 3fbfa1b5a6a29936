"""What a linear or convolution computes without some of its inputs, refitted to those that stay by least squares.

With x what enters W, C its covariance, and g the columns of a unit (a head's channels, one hidden unit, a channel of a
convolution), taking g out costs

    tr(W_g [C^-1]_gg^-1 W_g^T)        W <- W - W_g [C^-1]_gg^-1 [C^-1]_g

the squared error of the output once the units that stay are refitted: the Optimal Brain Surgeon of groups (ZipLM,
2302.04089, equations 2 and 3). The cheapest unit goes, one after the other; the mean of what left goes into the bias.
No label is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from generalist.compress.lessons import Lessons
from generalist.compress.work import Work
from generalist.data.base.errors import UserError

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


def rows_into(module: nn.Module, x: Tensor) -> Tensor:
    """What a linear multiplies, Float[... u]; of a convolution Float[B C H W] the windows it looks at, Float[B L C k k]
    with the last three as one."""
    if not isinstance(module, nn.Conv2d):
        return x
    assert not isinstance(module.padding, str) and module.groups == 1
    size = (module.kernel_size[0], module.kernel_size[1])
    return nn.functional.unfold(x, size, module.dilation, module.padding, module.stride).transpose(1, 2)


@contextmanager
def watching(readers: Sequence[nn.Module]) -> Iterator[list[Moments]]:
    """The moments of what enters these linears and convolutions inside."""
    found = [Moments() for _ in readers]
    handles = [
        reader.register_forward_pre_hook(lambda module, given, own=own: own.add(rows_into(module, given[0])))
        for reader, own in zip(readers, found, strict=True)
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


def observed(
    work: Work, linears: Sequence[nn.Module], samples: int, others: Sequence[nn.Module] = ()
) -> tuple[list[Moments], list[Moments]]:
    """The moments of what enters linears of the model on training samples, and others, of which some may see nothing.

    UserError: nothing ever entered one of the first.
    """
    with watching([*linears, *others]) as moments:
        looked_at(work.model, work.lessons, samples)
    found, of_others = moments[: len(linears)], moments[len(linears) :]
    if any(not own.count for own in found):
        raise UserError("a layer of this model is never used by its tasks' training data; give other DATA")
    return found, of_others


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


def rest(weight: Tensor, moments: Moments, stays: Tensor, rounds: int = 40) -> Tensor:
    """The weight refitted where it stays (Bool[out u]) to what the whole one computed, Float64[out u], zero elsewhere.

    Conjugate gradients, every row its own, from the weight as it stands: each round lessens the squared error.
    """
    w, c = weight.detach().double().cpu(), moments.covariance
    mask, scale = stays.double().cpu(), c.diagonal()
    x = w * mask
    residual = ((w - x) @ c) * mask
    z = residual / scale
    way, was = z, (residual * z).sum(1, keepdim=True)
    for _ in range(rounds):
        across = (way @ c) * mask
        step = was / (way * across).sum(1, keepdim=True).clamp(min=1e-30)
        x, residual = x + step * way, residual - step * across
        z = residual / scale
        now = (residual * z).sum(1, keepdim=True)
        way, was = z + now / was.clamp(min=1e-30) * way, now
    return x
