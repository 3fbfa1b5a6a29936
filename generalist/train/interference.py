"""How much a step on one task helps or harms another: gradient norms, cosines and first-order interference.

Uni-Perceiver-MoE (2206.04674; spec 3.4): a unit step on task j changes the loss of task i to first order by
Delta_ji = (g_j . g_i) / |g_j|, and I_ij = mean of Delta_ji / Delta_ii, the two gradients of Delta_ii from different
batches. Positive helps, negative interferes. Measured on the second feed-forward matrix of a few layers.
"""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from generalist.data.base.errors import UserError
from generalist.train.engines.local import LocalEngine


def watched(model: nn.Module) -> list[nn.Parameter]:
    """The `down` matrices of three layers, at a third, two thirds and the end (layers 3, 7, 11 of twelve)."""
    found = [p for name, p in model.named_parameters() if name.endswith("mlp.down.weight") and p.requires_grad]
    if not found:
        raise UserError("the model has no feed-forward matrix to measure interference on; set optimizer.interference=0")
    n = len(found)
    return [found[i] for i in sorted({max(0, round(n * part / 3) - 1) for part in (1, 2, 3)})]


class InterferenceMeter:
    """Keeps the last `keep` gradients of every task on the watched parameters, as they were before a step.

    `attach` listens to an optimiser; `after(task)` says whose gradient it was and gives numbers for the log.
    """

    def __init__(self, parameters: list[nn.Parameter], keep: int = 16) -> None:
        self.parameters, self.keep = parameters, keep
        self.samples: dict[str, deque[Tensor]] = {}
        self._pending: Tensor | None = None

    def attach(self, optimizer: Optimizer) -> InterferenceMeter:
        optimizer.register_step_pre_hook(lambda *given: self.take())
        return self

    def take(self) -> None:
        """Copy the gradient of now."""
        parts = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in self.parameters]
        self._pending = torch.cat(parts).detach().float().cpu()

    def after(self, task: str) -> dict[str, float]:
        """Give the taken gradient to its task: {"watched_norm", "cosine OTHER": ...} against each other's latest."""
        gradient, self._pending = self._pending, None
        if gradient is None:
            return {}
        said = {"watched_norm": float(gradient.norm())}
        for other, kept in self.samples.items():
            if other != task:
                said[f"cosine {other}"] = float(cosine(gradient, kept[-1]))
        self.samples.setdefault(task, deque(maxlen=self.keep)).append(gradient)
        return said

    def result(self) -> dict[str, Any]:
        """{"tasks", "samples", "norm" [T], "cosine" [T][T], "interference" [T][T]}: row i is helped by column j."""
        return matrices({task: torch.stack(list(kept)) for task, kept in sorted(self.samples.items())})

    def write(self, folder: Path) -> Path:
        path = folder / "interference.json"
        path.write_text(json.dumps(self.result(), indent=1))
        return path


def meter_for(keep: int, engine: Any) -> InterferenceMeter | None:
    """A meter on the engine's optimiser, or None where none is asked for. UserError where gradients are partitions."""
    if not keep:
        return None
    if not isinstance(engine, LocalEngine):
        raise UserError("optimizer.interference needs whole gradients in one process: engine.kind=local")
    return InterferenceMeter(watched(engine.objective), keep).attach(engine.optimizer)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Zero where one of them is zero."""
    return (a @ b) / (a.norm() * b.norm()).clamp(min=torch.finfo(torch.float32).tiny)


def matrices(gradients: dict[str, Tensor]) -> dict[str, Any]:
    """{task: Float[n P]}, n >= 2 gradients a task, -> the tables of `InterferenceMeter.result`.

    Cells of a task with fewer than two gradients are None: Delta_ii takes two batches.
    """
    names = list(gradients)
    unit = {k: nn.functional.normalize(g, dim=1) for k, g in gradients.items()}
    own: dict[str, Tensor | None] = {}
    for k, g in gradients.items():
        delta = unit[k] @ g.T  # [step's batch, batch whose loss changes]
        off = ~torch.eye(len(g), dtype=torch.bool)
        own[k] = delta[off].mean() if len(g) > 1 else None
    cosines: list[list[float | None]] = []
    harm: list[list[float | None]] = []
    for i in names:
        cosine_row: list[float | None] = []
        harm_row: list[float | None] = []
        for j in names:
            pair = unit[i] @ unit[j].T
            delta = unit[j] @ gradients[i].T
            if i == j:
                off = ~torch.eye(len(pair), dtype=torch.bool)
                pair, delta = pair[off], delta[off]
            base = own[i]
            cosine_row.append(float(pair.mean()) if pair.numel() else None)
            known = base is not None and delta.numel() and float(base) != 0
            harm_row.append(float(delta.mean() / base) if base is not None and known else None)
        cosines.append(cosine_row)
        harm.append(harm_row)
    return {
        "tasks": names,
        "samples": [len(gradients[k]) for k in names],
        "norm": [float(gradients[k].norm(dim=1).mean()) for k in names],
        "cosine": cosines,
        "interference": harm,
    }
