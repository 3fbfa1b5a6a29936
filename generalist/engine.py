"""The few verbs of training that hide where it runs: loss -> backward -> step, and what a checkpoint holds.

`LocalEngine` is one process on one device. The DeepSpeed engine stands behind the same verbs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from data.errors import UserError, nearest
from data.types import Batch

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}


class Engine(Protocol):
    """What the loop needs. rank and world of the data-parallel group; device of the batches."""

    rank: int
    world: int
    device: torch.device

    def loss(self, batch: Batch) -> Tensor: ...
    def backward(self, loss: Tensor) -> None: ...
    def step(self, lr: float, share: float, omega: float) -> float: ...
    def save(self, folder: Path) -> None: ...
    def load(self, folder: Path) -> None: ...


class LocalEngine:
    """One process. precision: "fp32" or "bf16" (autocast; parameters stay fp32)."""

    rank, world = 0, 1

    def __init__(
        self, objective: nn.Module, optimizer: Optimizer, device: torch.device, precision: str = "fp32", clip: float = 0.0
    ) -> None:
        if precision not in PRECISIONS:
            raise UserError(f"engine.precision {precision!r}; {nearest(precision, PRECISIONS)}")
        self.objective = objective.to(device)
        self.optimizer, self.device, self.clip = optimizer, device, clip
        self.dtype = PRECISIONS[precision]

    def loss(self, batch: Batch) -> Tensor:
        if self.dtype is None:
            return self.objective(batch)
        with torch.autocast(self.device.type, self.dtype):
            return self.objective(batch)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, lr: float, share: float, omega: float) -> float:
        """Apply the gathered gradient at this learning rate; returns its norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        parameters = [p for g in self.optimizer.param_groups for p in g["params"] if p.grad is not None]
        norm = nn.utils.clip_grad_norm_(parameters, self.clip or float("inf"))
        if hasattr(self.optimizer, "task"):
            self.optimizer.task(share, omega)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def state(self) -> dict[str, Any]:
        return {
            "model": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
        }

    def save(self, folder: Path) -> None:
        torch.save(self.state(), folder / "state.pt")

    def load(self, folder: Path) -> None:
        state = torch.load(folder / "state.pt", map_location=self.device, weights_only=True)
        self.objective.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"].cpu())
