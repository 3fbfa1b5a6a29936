"""A tensor of the official code beside ours, in one line: how far apart, and how far is allowed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

FORWARD, GRADIENT = 1e-5, 5e-5


@dataclass
class Row:
    """One compared tensor: the largest error relative to the reference's largest value."""

    case: str
    tensor: str
    error: float
    tolerance: float


def compare(case: str, tensor: str, ours: Tensor, reference: Tensor, tolerance: float = FORWARD) -> Row:
    """UserError-free: shapes that differ are an infinite error."""
    if ours.shape != reference.shape:
        return Row(case, tensor, float("inf"), tolerance)
    difference = float((ours.detach().double() - reference.double()).abs().max())
    largest = float(reference.double().abs().max())
    return Row(case, tensor, difference / largest if largest else difference, tolerance)
