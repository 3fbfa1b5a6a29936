"""The exponents of p ∝ p_model^a · p_ordinary^b by validation answers, and whether both are worth having at all.

Both together, the model alone and the ordinary method alone are each fitted on four fifths of the validation answers
and judged on the fifth that they did not see. Both are taken only where they gain more than one standard error over
the better of the two: what two exponents gain by chance is no reason to leave the one that is known to be good.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from generalist.tasks.measures.lines import KINDS, Columns

FOLDS = 5
LEAST = 20  # validation answers, below which nothing is fitted: both count evenly unless one is plainly better
MOST = 10.0  # an exponent
BLOCKS = 30  # of neighbouring records, whose means say how sure a mean is: windows of one series are not independent
RESAMPLES = 200
WAYS = {"both": (True, True), "model": (True, False), "ordinary": (False, True)}


@dataclass
class Evidence:
    """Validation answers of n records. sides: log p of the model and of the ordinary method, Float[n ... K] each; two
    such pairs where the answers are each other's partners.

    misfits: log p of every side for the records `rows` -> Float[rows], a proper score of each; columns: log p of every
    side for all records -> what the task keeps of them (`generalist.tasks.measures.lines`).
    """

    sides: list[tuple[Tensor, Tensor]]
    misfits: Callable[[list[Tensor], Tensor], Tensor]
    columns: Callable[[list[Tensor]], Columns]

    def __len__(self) -> int:
        return len(self.sides[0][0])

    def joined(self, exponents: Tensor, rows: Tensor) -> list[Tensor]:
        """log p of both, Float[rows ... K] a side. exponents: Float[rows or 1, 2]."""
        a, b = exponents.unbind(-1)
        return [both(model[rows], other[rows], a, b) for model, other in self.sides]


def both(model: Tensor, other: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """log p ∝ a · model + b · other, Float[n ... K]; a and b: one of all, or Float[n]."""
    shape = (-1, *[1] * (model.ndim - 1))
    return (a.view(shape) * model + b.view(shape) * other).log_softmax(-1)


@dataclass
class Choice:
    """way: "both", "model" or "ordinary"; a, b: its exponents."""

    way: str
    a: float
    b: float


def chosen(evidence: Evidence, kind: str, metric: str, higher: bool) -> Choice:
    """What validation data vouch for. kind, metric: of the kept answers; higher: whether more of it is better."""
    every = torch.arange(len(evidence))
    few = len(evidence) < LEAST
    found = {way: _out_of_fold(evidence, every, way, few) for way in WAYS}
    misfits = {way: evidence.misfits(evidence.joined(ab, every), every).numpy() for way, ab in found.items()}
    columns = {way: evidence.columns(evidence.joined(ab, every)) for way, ab in found.items()}
    values = _resampled(columns, kind, metric, higher)
    single = _single(misfits, values)
    gain, error = _mean(misfits[single] - misfits["both"])
    worse, doubt = values[single][0] - values["both"][0], float(np.std(values[single] - values["both"]))
    vouched = gain > -error if few else gain > error
    way = "both" if vouched and not worse > doubt else single
    a, b = _even(way) if few else fitted(evidence, every, way)
    return Choice(way, a, b)


def _single(misfits: dict[str, np.ndarray], values: dict[str, np.ndarray]) -> str:
    """The better of the two alone: by the task's own measure where that tells them apart, else by the misfit."""
    apart = values["model"] - values["ordinary"]
    if abs(apart[0]) > np.std(apart):
        return "model" if apart[0] > 0 else "ordinary"
    return "model" if misfits["model"].mean() <= misfits["ordinary"].mean() else "ordinary"


def _out_of_fold(evidence: Evidence, every: Tensor, way: str, few: bool) -> Tensor:
    """Exponents for each record from the other folds, Float[n 2]."""
    if few:
        return torch.tensor([_even(way)], dtype=torch.float64).expand(len(every), 2)
    found = torch.zeros(len(every), 2, dtype=torch.float64)
    for fold in range(FOLDS):
        held = every % FOLDS == fold
        found[held] = torch.tensor(fitted(evidence, every[~held], way), dtype=torch.float64)
    return found


def _even(way: str) -> tuple[float, float]:
    a, b = WAYS[way]
    return (float(a), float(b)) if a != b else (0.5, 0.5)


def fitted(evidence: Evidence, rows: Tensor, way: str = "both") -> tuple[float, float]:
    """The a and b of least mean misfit on these records; 0 for what the way leaves out."""
    from scipy.optimize import minimize

    def of(ab: np.ndarray) -> tuple[float, np.ndarray]:
        at = torch.tensor(ab, dtype=torch.float64, requires_grad=True)
        loss = evidence.misfits(evidence.joined(at.unsqueeze(0), rows), rows).mean()
        return loss.item(), torch.autograd.grad(loss, at)[0].numpy()

    bounds = [(0.0, MOST if free else 0.0) for free in WAYS[way]]
    with torch.enable_grad():
        a, b = minimize(of, _even(way), jac=True, method="L-BFGS-B", bounds=bounds).x
    return round(float(a), 4), round(float(b), 4)


def _mean(values: np.ndarray) -> tuple[float, float]:
    """The mean of [n] and its standard error, over blocks of neighbours."""
    blocks = [part.mean() for part in np.array_split(values, min(BLOCKS, len(values)))]
    return float(values.mean()), float(np.std(blocks, ddof=1) / np.sqrt(len(blocks))) if len(blocks) > 1 else np.inf


def _resampled(columns: dict[str, Columns], kind: str, metric: str, higher: bool) -> dict[str, np.ndarray]:
    """The metric of each way, more being better: over all records, then over the same resamples of them, Float[R]."""
    record = next(iter(columns.values()))["record"]
    _, owner = np.unique(record, return_inverse=True)
    count = int(owner.max()) + 1
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    weights = np.concatenate([np.ones((1, count)), drawn])[:, owner]
    sign = 1.0 if higher else -1.0
    return {way: sign * np.asarray(KINDS[kind][0](held, weights)[metric], dtype=float) for way, held in columns.items()}
