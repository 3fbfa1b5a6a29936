"""One process on one device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Batch
from generalist.train.engines import portable
from generalist.train.engines.base import (
    PRECISIONS,
    check_precision,
    finish_gradient,
    group_names,
    one_order,
    read_meta,
    rng_state,
    set_rng_state,
    write_meta,
)
from generalist.train.engines.precision import Measured
from generalist.train.optimizer import BalancedAdamW, set_rate


class LocalEngine:
    """One process. precision: "fp32", "bf16" (autocast; parameters stay fp32) or "auto" (`engines.precision`)."""

    rank, world = 0, 1

    def __init__(
        self,
        objective: nn.Module,
        optimizer: Optimizer,
        device: torch.device,
        precision: str = "fp32",
        clip: float = 0.0,
    ) -> None:
        self.measured = Measured(objective, device) if precision == "auto" else None
        self.precision = "fp32" if self.measured else precision
        check_precision(self.precision, device)
        if precision == "fp16":
            raise UserError("engine.precision=fp16 needs a loss scale, which engine.kind=deepspeed has; or use bf16")
        self.objective = objective.to(device)
        self.optimizer, self.device, self.clip = optimizer, device, clip
        self.groups = group_names(objective, optimizer)

    def loss(self, batch: Batch) -> Tensor:
        if self.measured is not None:
            self.measured.look(lambda precision: self._loss(batch, precision))
            self.precision = self.measured.taken or "fp32"
        return self._loss(batch, self.precision)

    def _loss(self, batch: Batch, precision: str) -> Tensor:
        if (dtype := PRECISIONS[precision]) is None:
            return self.objective(batch)
        with torch.autocast(self.device.type, dtype):
            return self.objective(batch)

    def backward(self, loss: Tensor) -> None:
        with one_order(self.device):
            loss.backward()

    def step(self, lr: float, share: float, omega: float, apply: bool = True) -> float:
        set_rate(self.optimizer, lr)
        norm = finish_gradient(self.optimizer, self.clip)
        if apply and np.isfinite(norm):
            if isinstance(self.optimizer, BalancedAdamW):
                self.optimizer.task(share, omega)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def state(self) -> dict[str, Any]:
        state = {"model": self.objective.state_dict(), "optimizer": self.optimizer.state_dict(), "rng": rng_state()}
        return state if self.measured is None else state | {"precision": self.measured.taken}

    def save(self, folder: Path, write: portable.Write) -> None:
        write_meta(folder, {"engine": "local", "world": 1, "stage": 0, "groups": self.groups})
        write(self.state(), folder / "state.pt")

    def load(self, folder: Path, trust: bool = False) -> None:
        meta = read_meta(folder)
        if meta["engine"] == "local":
            state = portable.load(folder / "state.pt")
        else:
            state = portable.to_torch(portable.read(folder, meta, trust), self.groups, self.optimizer)
        self.objective.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        set_rng_state(state.get("rng"))
        if self.measured is not None:
            self.measured.taken = state.get("precision")

    def weights(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu() for name, value in self.objective.state_dict().items()}
