"""`paths`: residual branches that pull validation down are left out of what the encoder delivers.

The output of a pre-norm encoder is a sum over its branches (`generalist.nn.paths`; the path ensemble, 2308.06548). Each
is taken out alone, then those whose absence lowers the law's loss on validation data together, the worst first, for as
long as the loss falls. Later branches see the stream as it was, so nothing becomes faster: what is gained is the score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from generalist.compress.lessons import Lessons
from generalist.compress.work import Work
from generalist.data.base.errors import UserError
from generalist.data.batch.types import Batch
from generalist.evaluate.answer import batches
from generalist.nn.paths import paths_of


@dataclass
class PathPruning:
    """samples: validation records of each task on which paths are judged (training ones where there are no others)."""

    samples: int = 256

    def check(self) -> None:
        if self.samples < 1:
            raise UserError(f"paths: samples={self.samples}; it must be at least 1, such as 256")

    def run(self, work: Work) -> dict[str, Any]:
        model, config = work.model, work.model.config
        names = [name for name in paths_of(model.encoder) if name not in config.dropped_paths]
        held = [batch.to(model.device) for batch in validation(work.lessons, self.samples)]
        objective = work.lessons.objective(model).eval()

        @torch.no_grad()
        def loss(dropped: list[str]) -> float:
            config.dropped_paths = dropped
            return sum(float(objective(batch)) for batch in held) / sum(batch.count for batch in held)

        before = list(config.dropped_paths)
        whole = best = loss(before)
        alone = {name: loss([*before, name]) for name in names}
        dropped = before
        for name in sorted((n for n in names if alone[n] < whole), key=alone.__getitem__):
            if len(dropped) < len(names) - 1 and (now := loss([*dropped, name])) < best:
                dropped, best = [*dropped, name], now
        config.dropped_paths = dropped
        work.other = work.other or dropped != before
        return {"dropped": ", ".join(dropped) or "none", "of": len(names), "loss": whole, "loss after": best}


def validation(lessons: Lessons, samples: int) -> list[Batch]:
    """Some records of each task's validation split, evenly spread, as batches."""
    found = []
    for name, task in lessons.prepared.tasks.items():
        records = lessons.prepared.records[name] if task.source is None else task.open("val")
        found += list(batches(task, records.spread(samples), 64))
    return found
