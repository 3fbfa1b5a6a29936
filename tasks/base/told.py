"""What each side of a task's question is told of the other: kept with the model, whose experts go by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

GIVEN = ("names", "pairs", "")  # what a task is asked among, in the order in which one is taken for a client


@dataclass(frozen=True)
class Told:
    """inputs, answers: modalities. input, candidate: kinds that stand on the other side of such a one.

    given: how a client can give other candidates: "names", "pairs" of two directions, or "" not at all. writes: the
    answer is written.
    """

    inputs: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    scale: str = "default"
    input: list[str] = field(default_factory=list)
    candidate: list[str] = field(default_factory=list)
    given: str = ""
    writes: bool = False

    def of(self, side: str) -> list[str]:
        """What "input" or "candidate" is told."""
        return self.input if side == "input" else self.candidate

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Told:
        """The inverse; what another version says besides is left out."""
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})
