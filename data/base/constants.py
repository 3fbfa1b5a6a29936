"""Small tensors that are the same for every sample, made once and shared.

Not `functools.lru_cache`: what is made while a model is traced (torch.export, torch.compile, counted FLOPs), in
inference mode or on another default device is no ordinary tensor, and kept it would spoil every later call in this
process.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

T = TypeVar("T")


def constant(size: int) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Keeps up to `size` results of a function by its (hashable, positional) arguments, the oldest go first.

    Nobody may write into what it returns.
    """

    def decorate(make: Callable[..., T]) -> Callable[..., T]:
        held: dict[tuple, T] = {}

        @wraps(make)
        def call(*arguments: object) -> T:
            if torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
                return make(*arguments)
            found = held.get(arguments)
            if found is None:
                with torch.inference_mode(False):  # those of inference mode could never be part of training
                    found = make(*arguments)
                if ordinary(found):
                    if len(held) >= size:
                        held.pop(next(iter(held)), None)
                    held[arguments] = found
            return found

        return call

    return decorate


def ordinary(value: object) -> bool:
    """Whether all tensors in it (it may be an object that holds some) are plain ones in memory."""
    if isinstance(value, Tensor):
        return type(value) is Tensor and value.device.type == "cpu"
    if isinstance(value, dict):
        return all(map(ordinary, value.values()))
    return all(map(ordinary, vars(value).values())) if hasattr(value, "__dict__") else True
