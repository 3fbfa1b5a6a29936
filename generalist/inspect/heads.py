"""Attention heads by silencing: what a task loses when one head's output is zero, and how far each head looks.

    nll rise     mean -log p of the right answer with the head silent, less that of the whole model: what it is worth
    drop         of the task's metric, turned so that more is worse
    map, line    mean attention distance: the way from query to key, weighted by attention, in cells of a picture's
                 grid, or in tokens of a text or series; over queries whose span has more than one token
    rings        where attention goes, ring by ring (`generalist.inspect.rings`)

Sources: silencing, Michel et al., "Are sixteen heads really better than one?" (1905.10650, section 3); mean attention
distance, ViT (2010.11929, appendix D.7). The candidates are encoded by the silenced model too: it is one encoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.batch.at import At
from generalist.data.stream.source import Records
from generalist.evaluate.answer import Answers, answer
from generalist.inspect.base import Analyser
from generalist.inspect.distances import Distances
from generalist.inspect.rings import Rings
from generalist.inspect.training import Training
from generalist.model.objective import Objective
from generalist.tasks.base.task import Task

HEADS = ".heads"  # how `generalist.nn.taps` names them, in front of attention's output matrix


class Silence:
    """A tap: head `head` of the attention called `name` puts out zero."""

    def __init__(self, name: str, head: int) -> None:
        self.name, self.head = name, torch.tensor([head])

    def __call__(self, name: str, x: Tensor, at: At) -> Tensor:
        return x.index_fill(1, self.head.to(x.device), 0) if name == self.name else x


class Heads(Analyser):
    """The analysis `--what heads`."""

    needs_answers: ClassVar[bool] = True

    def run(
        self, task: Task, records: Records, objective: Objective, training: Training | None = None
    ) -> dict[str, Any]:
        model, look, around = objective.model, Distances(), Rings()
        with weighing(model), model.tapped(look, around):
            answer(task, records, objective)
        if not look.heads:
            raise UserError("this model has no attention heads to silence; none of its token mixers is an attention")
        whole = values(answer(task, records, objective))
        lines = []
        for name, count in look.heads.items():
            for head in range(count):
                with model.tapped(Silence(name, head)):
                    silent = values(answer(task, records, objective))
                worse = whole["value"] - silent["value"] if task.higher_is_better else silent["value"] - whole["value"]
                line: dict[str, Any] = {"layer": name.split(".")[1], "head": head, "drop": worse}
                line |= look.means(name, head) | around.shares(name, head)
                lines.append(line | ({"nll rise": silent["nll"] - whole["nll"]} if "nll" in whole else {}))
        by = "nll rise" if "nll" in whole else "drop"
        lines.sort(key=lambda line: -line[by])
        about = {"task": task.name, "metric": task.metric, "n": len(records), "by": by, **whole}
        return about | {"heads": lines}

    def table(self, found: dict[str, Any]) -> str:
        """The heads, what is worth most first."""
        columns = [("layer", "layer"), ("head", "head"), ("nll rise", "nll rise"), ("drop", f"{found['metric']} lost")]
        columns += [("map", "cells on maps"), ("line", "tokens on lines")]
        lines = [{**line, **{f"{k} pattern": v for k, v in line["pattern"].items()}} for line in found["heads"]]
        columns += [("map pattern", "on maps to"), ("line pattern", "on lines to")]
        columns = [(key, title) for key, title in columns if any(line.get(key) is not None for line in lines)]
        rows = [[title for _, title in columns]]
        rows += [[_cell(line.get(key)) for key, _ in columns] for line in lines]
        widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
        head = f"{found['task']}: {found['metric']} {found['value']:.4g} over {found['n']} records; each head silenced"
        return "\n".join([head, *("  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows)])


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def values(answers: Answers) -> dict[str, float]:
    """The task's metric as "value", and its "nll" where the answers have one."""
    found = {"value": float(answers.metrics[answers.task.metric])}
    return found | ({"nll": float(answers.derived["nll"])} if "nll" in answers.derived else {})


@contextmanager
def weighing(model: Any) -> Iterator[None]:
    """The attention kernel that has weights to show, whatever the model's own is."""
    before = model.config._attn_implementation
    model.config._attn_implementation = "eager"
    try:
        yield
    finally:
        model.config._attn_implementation = before
