"""DeepSpeed as it is installed: imported, its accelerator looked at, its optimizer held back and started anew."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.train.engines import portable
from generalist.train.engines.base import (
    finish_gradient,
)
from generalist.train.optimizer import BalancedAdamW

SHARED_MEMORY = "deepspeed_shm_comm"


def load_deepspeed() -> Any:
    """`import deepspeed`, quiet, and without the operator that needs a compiler."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed

    deepspeed.ops.__compatible_ops__[SHARED_MEMORY] = False
    deepspeed.utils.logger.setLevel(logging.ERROR)
    return deepspeed


def check_accelerator(device: torch.device) -> None:
    """UserError where the environment tells DeepSpeed another kind of device than the run's (its norms would mix)."""
    if device.type == "cpu":  # also beside a GPU that is not asked for
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    told = os.environ.get("DS_ACCELERATOR", device.type)
    if told != device.type:
        raise UserError(f"DS_ACCELERATOR={told} but the run is on {device.type}; unset it or set engine.device={told}")


class Gate:
    """Stands before the optimiser's `step`: lets it happen or not, and knows the whole gradient's norm.

    A gradient that is not finite never passes (DeepSpeed sees to it at stages 1 to 3).
    """

    def __init__(self, optimizer: torch.optim.Optimizer, clip: float = 0.0) -> None:
        self.optimizer, self.inner, self.open, self.clip = optimizer, optimizer.step, True, clip
        self.zero: Any = None  # DeepSpeed's own optimiser around this one, at stages 1 to 3
        self._norm = float("nan")
        vars(optimizer)["step"] = self.step

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        if self.zero is None:
            self._norm = finish_gradient(self.optimizer, self.clip)
            if self._norm - self._norm != 0:  # NaN or infinity
                return None
        return self.inner() if self.open else None

    def last(self) -> float:
        """L2 norm of the gradient of the last step over all parameters and ranks."""
        return self._norm if self.zero is None else float(self.zero._global_grad_norm)


def fresh_state(optimizer: torch.optim.Optimizer, parameter: Tensor) -> None:
    """What both optimisers would make at their first step; made before it, so that a checkpoint can be loaded."""
    count = 0 if isinstance(optimizer, BalancedAdamW) else torch.tensor(0.0)
    moments = {key: torch.zeros_like(parameter, dtype=torch.float32) for key in portable.MOMENTS}
    optimizer.state[parameter] = {"step": count, **moments}
