"""Numbers as candidates: bins of a value, or of what a linear forecast leaves over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Span
from generalist.tasks.candidates import ridge
from generalist.tasks.candidates.answers import Answer
from generalist.tasks.candidates.base import CandidateSet
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.numbers import bins


@dataclass
class Numbers(CandidateSet):
    """K bins of a standardised value as number tokens: [summary, number]; labels are values.

    edges: K + 1 increasing bin edges in z units; sigma: width of the Gaussian soft label (HL-Gauss),
    in bins. value = z * std + mean. auxiliary: weight of the squared error of the expectation (of values within the
    edges), 0 for the pure law. widths: of intervals, in times of what the likelihood says around its median ([] = as it
    says): one, or of a forecast one a step ahead.
    """

    edges: list[float]
    sigma: float = 2.0
    mean: float = 0.0
    std: float = 1.0
    auxiliary: float = 0.0
    widths: list[float] = field(default_factory=list, kw_only=True)
    kind: ClassVar[str] = "numbers"
    members: ClassVar[tuple[str, ...]] = ("number",)

    def __post_init__(self) -> None:
        if len(self.edges) < 3:
            raise UserError("number candidates need at least two bins (three edges)")

    def _edges(self, like: Tensor) -> Tensor:
        return torch.tensor(self.edges, device=like.device, dtype=torch.float32)

    def sequences(self, modalities: dict[str, Modality]) -> list[list[Span]]:
        summary, number = modalities["summary"], modalities["number"]
        centres = bins.centres(torch.tensor(self.edges))
        return [[summary.span(None).ask([0]), number.span(number.read([float(c)]))] for c in centres]

    def labels(self, modalities: dict[str, Modality]) -> list[str]:
        centres = bins.centres(torch.tensor(self.edges)) * self.std + self.mean
        return [f"{c:.4g}" for c in centres.tolist()]

    def target(self, labels: Tensor) -> Tensor:
        return bins.soft_labels(labels.float(), self._edges(labels), self.sigma)

    def answers(self, labels: Tensor) -> int:
        return int((~labels.isnan()).sum())

    def penalty(self, log_p: Tensor, labels: Tensor) -> Tensor | None:
        if not self.auxiliary:
            return None
        z = labels.float()
        # a value beyond the last bin cannot be answered: without the bound one sample would be the whole gradient
        known = z.nan_to_num().clamp(self.edges[0], self.edges[-1])
        error = (self.expectation(log_p) - known) ** 2
        return self.auxiliary * (error * ~z.isnan()).sum().reshape(1)

    def misfits(self, log_p: Tensor, labels: Tensor) -> Tensor | None:
        real = ~labels.isnan()
        return self.crps(log_p[real].float(), labels[real].float())

    def expectation(self, log_p: Tensor) -> Tensor:
        """Mean of the distribution in z units: [... K] -> [...]."""
        return bins.expectation(log_p.exp(), bins.centres(self._edges(log_p)))

    def quantile(self, log_p: Tensor, q: float) -> Tensor:
        """Quantile in z units: [... K] -> [...]."""
        return bins.quantile(log_p.exp(), self._edges(log_p), torch.tensor([q])).squeeze(-1)

    def changed(self, before: Tensor, after: Tensor) -> Tensor:
        """Whether the median leaves the 10 to 90 % of before."""
        middle = self.quantile(after, 0.5)
        return (middle < self.quantile(before, 0.1)) | (middle > self.quantile(before, 0.9))

    def read_off(self, log_p: Tensor, modalities: dict[str, Modality]) -> Answer:
        low, value, high = (float(self.quantile(log_p, q) * self.std + self.mean) for q in (0.1, 0.5, 0.9))
        wide = self.widths[0] if self.widths else 1.0
        low, high = (value + wide * (edge - value) for edge in (low, high))
        mean = float(self.expectation(log_p) * self.std + self.mean)
        return Answer(value=value, mean=mean, interval=(low, high))

    def crps(self, log_p: Tensor, labels: Tensor) -> Tensor:
        """Continuous ranked probability score in z units: [... K], [...] -> [...]."""
        return bins.crps(log_p.exp(), self._edges(log_p), labels.float())


@dataclass
class Residuals(Numbers):
    """Number candidates for what a linear forecast leaves over: label = z - location(past).

    weights: the matrix of `tasks.candidates.ridge` as text; context: its rows, the past values that it reads.
    """

    weights: str = ""
    context: int = 1
    kind: ClassVar[str] = "residuals"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.matrix = ridge.from_text(self.weights, self.context)

    def location(self, past: Tensor) -> Tensor:
        """The linear forecast of a normalised past: [t] -> [h], in z units."""
        return ridge.newest(past, self.context).float() @ self.matrix
