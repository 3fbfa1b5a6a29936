"""The few verbs of training that hide where it runs: loss -> backward -> step, and what a checkpoint holds.

`LocalEngine` is one process on one device. The DeepSpeed engine stands behind the same verbs.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint as recompute

from generalist.data.base.errors import UserError, nearest
from generalist.data.batch.types import Batch
from generalist.model.objective import Objective
from generalist.train.engines import portable

PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
META = "meta.json"


@runtime_checkable
class Engine(Protocol):
    """What the loop needs. rank and world of the data-parallel group; device of the batches."""

    rank: int
    world: int
    device: torch.device

    def loss(self, batch: Batch) -> Tensor:
        """Summed -log p of the batch: [1]."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add d loss / d parameters to what is gathered. The gradient of a step is the mean over ranks of the sum."""
        ...

    def step(self, lr: float, share: float, omega: float, apply: bool = True) -> float:
        """Apply the gathered gradient and forget it; its norm before clipping.

        Nothing changes where `apply` is False or the norm is not finite.
        """
        ...

    def save(self, folder: Path, write: portable.Write) -> None:
        """Hand every file of the state to `write(value, path)`; all ranks call it together."""
        ...

    def load(self, folder: Path, trust: bool = False) -> None:
        """The inverse of `save`, also from another engine, stage or number of processes.

        trust: read files of an earlier version too, in which there may be objects
        (`generalist.train.checkpoints.manifest`).
        """
        ...

    def weights(self) -> dict[str, Tensor]:
        """The whole model's state on the CPU of rank 0 ({} elsewhere); all ranks call it together."""
        ...


@contextmanager
def one_order(device: torch.device) -> Iterator[None]:
    """Gradients that fall on one row are added in one order, however many threads a CPU has: the same bytes every time.

    The framework's own tables are looked up in ways that are exact anyway; this also holds for code of others, where
    the gradient of `table[index]` is added atomically by all threads at once (torch 2.14, measured). One thread adds in
    one order by itself, faster than torch's serial way.
    """
    if device.type != "cpu" or torch.get_num_threads() == 1:
        yield
        return
    mode, fill = torch.get_deterministic_debug_mode(), torch._C._get_deterministic_fill_uninitialized_memory()
    torch.set_deterministic_debug_mode(max(mode, 1))
    torch._C._set_deterministic_fill_uninitialized_memory(fill and bool(mode))  # as it was: filling takes time
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch._C._set_deterministic_fill_uninitialized_memory(fill)


def check_precision(precision: str, device: torch.device) -> None:
    """UserError for a precision that does not exist or that this device cannot train in."""
    if precision == "auto":
        raise UserError("engine.precision=auto measures in one process (engine.kind=local); choose fp32 or bf16 here")
    if precision not in PRECISIONS:
        raise UserError(f"engine.precision {precision!r}; {nearest(precision, [*PRECISIONS, 'auto'])}")
    if precision == "fp16" and device.type == "cpu":
        raise UserError("engine.precision=fp16 does not train on a CPU (DeepSpeed refuses it too); use fp32 or bf16")


def finish_gradient(optimizer: Optimizer, clip: float) -> float:
    """The norm of the whole gradient, which is then clipped to `clip` (0 = not).

    A parameter that this task does not use has gradient zero, not none: its momentum goes on like everyone's (the
    paper's m decays at every step), and every ZeRO stage does the same.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    norm = nn.utils.get_total_norm([p.grad for p in parameters])
    if clip:
        nn.utils.clip_grads_with_norm_(parameters, clip, norm)
    return float(norm)


def group_names(objective: nn.Module, optimizer: Optimizer) -> list[list[str]]:
    """The names of the parameters of every optimiser group, in order."""
    names = {id(p): name for name, p in objective.named_parameters()}
    return [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]


def recompute_activations(objective: Objective) -> int:
    """Keep only the input of every encoder layer and compute the rest again in the backward pass; how many layers.

    Applied from outside (1604.06174): names, parameters and results stay as they are.
    """
    layers = list(objective.model.encoder.layers)
    for layer in layers:
        layer.forward = partial(recompute, layer.forward, use_reentrant=False)
    return len(layers)


def write_meta(folder: Path, meta: dict[str, Any]) -> None:
    (folder / META).write_text(json.dumps(meta))


def read_meta(folder: Path) -> dict[str, Any]:
    """Which engine wrote a checkpoint, on how many ranks, at which ZeRO stage. UserError when it does not say."""
    try:
        return json.loads((folder / META).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is not a checkpoint of this version ({error}); start the run anew") from error


def seed_all(seed: int) -> None:
    """Every generator whose state a checkpoint holds starts from the same place."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def rng_state() -> dict[str, Any]:
    """The random state of this process: torch's (CPU and current CUDA device), numpy's and Python's."""
    numbers = np.random.get_state()
    assert isinstance(numbers, tuple)
    words, position = numbers[1:3]
    version, state, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy": [torch.from_numpy(words.astype(np.int64)), int(position)],
        "python": [version, list(state), gauss],
    }


def set_rng_state(state: dict[str, Any] | None) -> None:
    if not state:
        return
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    words, position = state["numpy"]
    np.random.set_state(("MT19937", words.numpy().astype(np.uint32), position, 0, 0.0))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
