"""`engine.precision=auto`: the first steps are also computed in bf16, and the run goes on in what takes less work.

Half precision pays by machine and width: with matrix units for it (AMX, tensor cores) wide models train up to twice as
fast, narrow ones slower. While it is measured the run trains in fp32; what a measured pass leaves behind - gradients,
counters, the states of generators - is put back, so that the choice alone makes the difference.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from generalist.model.candidates import clock

LOOKS = 8  # batches that are measured, after a first one that only warms up
KINDS = ("fp32", "bf16")
WORTH = 0.97  # of fp32's cost, from which bf16 is taken


class Measured:
    """taken: "fp32" or "bf16", None while it is measured; part of a checkpoint. told: takes the line that says it."""

    def __init__(self, objective: nn.Module, device: torch.device) -> None:
        self.objective, self.device = objective, device
        self.taken: str | None = None
        self.costs: dict[str, list[float]] = {kind: [] for kind in KINDS}
        self.told: Callable[[str], object] = lambda line: print(line, file=sys.stderr, flush=True)

    def look(self, passed: Callable[[str], Tensor]) -> None:
        """A batch forward and backward in both. passed: the loss of the batch in a precision. Not where gradients of
        an earlier batch are kept, for they would be lost."""
        if self.taken is not None or any(p.grad is not None for p in self.objective.parameters()):
            return
        turn = len(self.costs["fp32"]) % 2
        for kind in KINDS[turn:] + KINDS[:turn]:
            self.costs[kind].append(self._cost(passed, kind))
        if len(self.costs["fp32"]) > LOOKS:
            fp32, bf16 = (sum(self.costs[kind][1:]) / LOOKS for kind in KINDS)
            self.taken = "bf16" if bf16 < WORTH * fp32 else "fp32"
            self.told(
                f"engine.precision=auto: {self.taken} is taken "
                f"(a step costs {1000 * fp32:.3g} ms in fp32, {1000 * bf16:.3g} ms in bf16)"
            )

    def _cost(self, passed: Callable[[str], Tensor], kind: str) -> float:
        kept = {name: buffer.clone() for name, buffer in self.objective.named_buffers()}
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            start = clock(self.device)
            passed(kind).sum().backward()
            cost = clock(self.device) - start
        self.objective.zero_grad(set_to_none=True)
        for name, buffer in self.objective.named_buffers():
            buffer.copy_(kept[name])
        return cost
