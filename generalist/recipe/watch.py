"""`Watch`: a callback of a recipe, told every number of a run as it happens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass
class Watch:
    """A dataclass of yours that extends this stands in the recipe: `watches=[Alarm(over=10.0)]`.

    All of it happens in the process that writes the log, between two steps; an error of a watch ends the run. A watch
    that has seen enough ends it gently by writing the file `stop` into the run's folder, as anybody else does.
    """

    def begin(self, out: Path) -> None:
        """Training is about to start or to go on; out: the run's folder."""

    def log(self, values: dict[str, float], step: int) -> None:
        """What a step logged, by name: "lr", "loss/TASK", and at a look "validation/TASK"."""

    def finish(self) -> None:
        """Training is over, whether it came to its end or not."""
