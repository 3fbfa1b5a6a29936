"""`Answer`: what a model says of one record, in plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SHOWN = 10  # names that are told of many


@dataclass
class Answer:
    """names, probabilities: the candidates, likeliest first; `apart`: each is right or wrong by itself.

    value, mean: median and expectation of a number, a list of a forecast's steps, of lists where each step is of many
    series; interval: its 10 % and 90 % quantiles. boxes: what was found in a picture, as {"label", "score",
    "box": {"xmin" ...}, maybe "mask"}.
    text: what was written; log_p: its score.
    """

    names: list[str] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    apart: bool = False
    value: float | list[Any] | None = None
    mean: float | list[Any] | None = None
    interval: tuple[Any, Any] | None = None
    boxes: list[dict[str, Any]] = field(default_factory=list)
    text: str | None = None
    log_p: float | None = None

    def rows(self) -> list[list[Any]]:
        """[what, how much] in the order in which it is told."""
        if self.text is not None:
            return [[self.text, self.log_p]]
        if isinstance(self.value, list):
            return [[f"step +{i + 1}", _told(v)] for i, v in enumerate(self.value)]
        if self.value is not None and self.interval is not None:
            told = {"mean": self.mean, "median": self.value, "10 % quantile": self.interval[0]}
            return [[name, f"{v:.6g}"] for name, v in (told | {"90 % quantile": self.interval[1]}).items()]
        if self.boxes:
            return [[hit["label"], hit["score"]] for hit in self.boxes]
        pairs = [[name, p] for name, p in zip(self.names, self.probabilities, strict=True)]
        return pairs if self.apart else pairs[:SHOWN]

    def to_dict(self) -> dict[str, Any]:
        """What is printed as JSON: the rows, and a forecast's quantiles."""
        out: dict[str, Any] = {"answers": self.rows()}
        if isinstance(self.value, list) and self.interval is not None:
            out["quantiles"] = {"0.1": self.interval[0], "0.5": self.value, "0.9": self.interval[1]}
        return out


def _told(value: float | list[float]) -> str:
    """A number, or those of a step side by side."""
    return " ".join(f"{v:.6g}" for v in value) if isinstance(value, list) else f"{value:.6g}"
