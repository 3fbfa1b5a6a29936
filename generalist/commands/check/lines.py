"""What a check found: one line, passed, failed or left out, and how the lines are shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from generalist.data.base.errors import UserError

EXACT, ROUNDED = 1e-5, 2e-2  # fp32 in another order, bf16


class Fault(AssertionError):
    """What is under test does not do what it must; the message says what it does instead, in one line."""


class LeftOut(Exception):
    """A check that says nothing about what is under test; the message says why."""


@dataclass(frozen=True)
class Line:
    """outcome: "ok", "FAILED" or "left out". said: what was measured, or what is wrong."""

    check: str
    outcome: str
    said: str

    @property
    def passed(self) -> bool:
        return self.outcome != "FAILED"

    def __str__(self) -> str:
        return f"{self.outcome:<8} {self.check}: {self.said}"


def lines_of(checks: Mapping[str, Callable[[Any], str]], subject: Any) -> Iterator[Line]:
    """Every check on the subject, a line each; none stops the others."""
    for name, check in checks.items():
        try:
            yield Line(name, "ok", check(subject))
        except LeftOut as reason:
            yield Line(name, "left out", str(reason))
        except Fault as fault:
            yield Line(name, "FAILED", str(fault))
        except Exception as error:  # whatever foreign code raises is what is wrong with it
            told = (str(error).splitlines() or [""])[0]
            yield Line(name, "FAILED", f"{type(error).__name__}: {told}")


def rounded(features: Callable[[], Tensor]) -> str:
    """How far unit features, Float[n D], are under bf16 autocast from those in fp32. Fault: too far."""
    exact = normalize(features(), dim=-1)
    with torch.autocast("cpu", torch.bfloat16):
        found = normalize(features().float(), dim=-1)
    apart = float((found - exact).norm(dim=-1).max())
    if not apart <= ROUNDED:
        raise Fault(f"unit features in bf16 and fp32 are {apart:.2g} apart, more than {ROUNDED:.0e}")
    return f"{apart:.1g} apart"


def refused(take: Callable[[], Any], what: str, says: str) -> None:
    """Fault unless taking it ends in a UserError, one line that says this (a regular expression)."""
    try:
        take()
    except UserError as error:
        if "\n" in str(error).strip():
            raise Fault(f"{what}: more than one line is said: {str(error)!r}") from error
        if not re.search(says, str(error)):
            raise Fault(f"{what}: {str(error)!r} does not say {says!r}") from error
    except Exception as error:
        raise Fault(f"{what}: {type(error).__name__} instead of a UserError: {error}") from error
    else:
        raise Fault(f"{what} is taken, though it must be refused with {says!r}")


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference over the largest value."""
    if a.shape != b.shape:
        raise Fault(f"shapes {tuple(a.shape)} and {tuple(b.shape)}")
    if not (a.isfinite().all() and b.isfinite().all()):
        raise Fault("values are NaN or infinite")
    return float(((a - b).abs().max() / b.abs().max().clamp(min=1e-3)).detach())


def same(a: Tensor, b: Tensor, tolerance: float, what: str) -> str:
    """A line on how far they are apart; Fault beyond the tolerance."""
    found = difference(a, b)
    if found > tolerance:
        raise Fault(f"{what} differ by {found:.2g} of the largest value, more than {tolerance:.0e}")
    return f"within {found:.1g}"


def short(raw: Any) -> str:
    """A raw value in few enough letters for a line."""
    text = " ".join(repr(raw).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
