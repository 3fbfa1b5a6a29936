"""Which tokens go on: of a model with the step "keep" (IA-RED^2), which of the input are left at every such step."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.batch.at import At
from generalist.data.stream.source import Records
from generalist.inspect.asking.heats import heats
from generalist.inspect.asking.look import Look, frozen, looks
from generalist.inspect.base import Analyser
from generalist.inspect.explain.explain import said
from generalist.inspect.training import Training
from generalist.model.objective import Objective
from generalist.nn.steps.keep import Keep
from generalist.tasks.base.task import Task

MOST = 512  # records
SHOWN = 12


class Left(dict[str, Tensor]):
    """A tap that sees which tokens are left behind these layers: Bool[N] of the batch as it was packed."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names, self.tokens = names, 0

    def __call__(self, name: str, x: Tensor, at: At) -> Tensor:
        if name == "embedded":
            self.clear()
            self.tokens = len(x)
        elif name in self.names:
            left = torch.zeros(self.tokens, dtype=torch.bool, device=x.device)
            left[torch.arange(self.tokens, device=x.device) if at.origin is None else at.origin] = True
            self[name] = left
        return x


class KeptTokens(Analyser):
    """The analysis `--what keep`."""

    needs_answers: ClassVar[bool] = False

    def run(
        self, task: Task, records: Records, objective: Objective, training: Training | None = None
    ) -> dict[str, Any]:
        steps = [f"layers.{i}" for i, layer in enumerate(objective.model.encoder.layers) if isinstance(layer, Keep)]
        if not steps:
            raise UserError(
                "no step of this model leaves tokens out; train one with model.steps and the kind keep, or make one "
                "with generalist compress --method ia_red"
            )
        told, sums, total, samples = records.spread(MOST), dict.fromkeys(steps, 0), 0, list[dict[str, Any]]()
        with frozen(objective.model):
            for look in looks(task, told, objective):
                tap = Left(steps)
                with torch.no_grad(), objective.model.tapped(tap):
                    answers, p = _answers(look)
                total += int(look.open.sum())
                for name in steps:
                    sums[name] += int((tap[name] & look.open).sum())
                # how far each token came, of all such steps
                values = {"steps passed": torch.stack([tap[name] for name in steps]).float().mean(0)}
                for place in range(min(look.count, SHOWN - len(samples))):
                    record = told[look.numbers[place]]
                    about = {
                        "id": str(record.get("id", look.numbers[place])),
                        "answer": said(look, record, place, answers),
                    }
                    samples.append(about | {"p": float(p[place]), "heats": heats(look, place, record, values)})
        kept = [{"layer": name, "kept": sums[name] / total} for name in steps]
        return {"task": task.name, "n": len(told), "steps": kept, "samples": samples}

    def table(self, found: dict[str, Any]) -> str:
        """The share of the input's tokens that is left behind each step."""
        lines = [f"{found['task']}: tokens of {found['n']} records that go on"]
        return "\n".join([*lines, *(f"  behind {line['layer']}: {line['kept']:.3f}" for line in found["steps"])])


def _answers(look: Look) -> tuple[Tensor, Tensor]:
    log_p = look.log_p()
    answers = look.chosen(log_p)
    return answers, look.of(log_p, answers).exp()
