"""What every residual branch adds to the answer (`generalist.nn.paths`): the encoder's output is their sum.

    share      of what is delivered at the question that the path makes up, <path, delivered> / |delivered|^2; the
               shares of all paths sum to one
    nll rise   mean -log p of the right answer without the path, less that of the whole
    drop       of the task's metric, turned so that more is worse

A path is taken out of the sum alone, of inputs and candidates alike; later branches see the stream as it was.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from generalist.data.stream.source import Records
from generalist.evaluate.answer import answer
from generalist.inspect.asking.look import Look, frozen, looks
from generalist.inspect.base import Analyser
from generalist.inspect.heads import values
from generalist.inspect.training import Training
from generalist.model.objective import Objective
from generalist.nn.paths import Paths, paths_of
from generalist.tasks.base.task import Task

MOST = 512  # records of which shares are taken


class PathEffects(Analyser):
    """The analysis `--what paths`."""

    needs_answers: ClassVar[bool] = True

    def run(
        self, task: Task, records: Records, objective: Objective, training: Training | None = None
    ) -> dict[str, Any]:
        encoder, model = objective.model.encoder, objective.model
        names = paths_of(encoder)
        whole = values(answer(task, records, objective))
        with frozen(model):
            parts = [shares(look, Paths(encoder)) for look in looks(task, records.spread(MOST), objective)]
        share = torch.cat(parts).mean(0).tolist()
        lines = []
        for name, own in zip(names, share, strict=True):
            with model.tapped(Paths(encoder, [name])):
                without = values(answer(task, records, objective))
            worse = whole["value"] - without["value"]
            line = {"path": name, "share": own, "drop": worse if task.higher_is_better else -worse}
            lines.append(line | ({"nll rise": without["nll"] - whole["nll"]} if "nll" in whole else {}))
        about = {"task": task.name, "metric": task.metric, "n": len(records), **whole}
        return about | {"paths": lines}

    def table(self, found: dict[str, Any]) -> str:
        """The paths as they follow one another."""
        lines = [
            f"{found['task']}: {found['metric']} {found['value']:.4g} over {found['n']} records; without each path"
        ]
        for line in found["paths"]:
            rise = f"   nll rise {line['nll rise']:8.4f}" if "nll rise" in line else ""
            lost = f"{found['metric']} lost {line['drop']:8.4f}"
            lines.append(f"  {line['path']:<16} share {line['share']:7.3f}{rise}   {lost}")
        return "\n".join(lines)


@torch.no_grad()
def shares(look: Look, paths: Paths) -> Tensor:
    """What share of what is delivered at each question every path makes up: Float[M paths]."""
    with look.model.tapped(paths):
        look.queries()
    assert paths.delivered is not None
    asked = look.packed.asked
    delivered = paths.delivered[asked].double()
    own = torch.stack([paths[name][asked].double() for name in paths.names], 1)
    return (own * delivered.unsqueeze(1)).sum(2) / delivered.square().sum(1, keepdim=True)
