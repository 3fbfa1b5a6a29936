"""The few collective operations that the law needs; every one works without a process group."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def sum_over_ranks(value: Tensor) -> Tensor:
    """Sum without gradient; the value itself in one process."""
    if world() == 1:
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        grad = grad.contiguous().clone()  # autograd may hand the same tensor to others
        dist.all_reduce(grad)
        return grad.chunk(world())[rank()]


def gather_constant(x: Tensor) -> Tensor:
    """Own rows first, with gradient, then those of the other ranks in rank order as constants: [B ...] -> [W*B ...].

    The official Uni-Perceiver's negatives (spec 1.9): after averaging, the encoder's gradient is 1/W of the exact one.
    """
    if world() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(world())]
    dist.all_gather(parts, x.detach().contiguous())
    return torch.cat([x, *(part for other, part in enumerate(parts) if other != rank())])


def gather(x: Tensor) -> Tensor:
    """Rows of all ranks in rank order, with gradient through every rank: Float[B D] -> Float[W*B D].

    Every rank must hold the same number of rows.
    """
    return x if world() == 1 else _Gather.apply(x)
