"""Metrics as mergeable (sum, count): over batches, ranks and runs they just add."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Mean:
    """A running mean; `root` gives its square root (RMSE from squared errors)."""

    total: float = 0.0
    count: float = 0.0
    root: bool = False

    def __add__(self, other: Mean) -> Mean:
        return Mean(self.total + other.total, self.count + other.count, self.root)

    @property
    def value(self) -> float:
        if not self.count:
            return float("nan")
        mean = self.total / self.count
        return mean**0.5 if self.root else mean


def merge(a: dict[str, Mean], b: dict[str, Mean]) -> dict[str, Mean]:
    """Sums by name."""
    return a | {name: a[name] + mean if name in a else mean for name, mean in b.items()}


def mean_of(values) -> Mean:
    """A `Mean` of a tensor or sequence of numbers."""
    import torch

    values = torch.as_tensor(values, dtype=torch.float64)
    return Mean(float(values.sum()), float(values.numel()))


def surprise(log_p: Tensor, labels: Tensor) -> Mean:
    """Mean -log p of the labels in nats; Float[M K], int[M], all asked."""
    return mean_of(-log_p.gather(-1, labels.unsqueeze(-1)))


def accuracy(log_p: Tensor, labels: Tensor) -> Mean:
    """Share of answers whose likeliest candidate is the label; Float[M K], int[M] (-1 = not asked)."""
    asked = labels >= 0
    right = (log_p.argmax(-1) == labels) & asked
    return Mean(float(right.sum()), float(asked.sum()))
