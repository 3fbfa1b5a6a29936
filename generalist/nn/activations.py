"""Activations by transformers' names: the usual ones from torch, the others from transformers once one is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from generalist.data.base.errors import UserError, nearest


class QuickGELU(nn.Module):
    """x · sigmoid(1.702 x), as in CLIP's first weights."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_pytorch_tanh": partial(nn.GELU, approximate="tanh"),
    "quick_gelu": QuickGELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "linear": nn.Identity,
}


def activation(name: str) -> nn.Module:
    """A module of its own. UserError names the nearest valid one."""
    if name in ACTIVATIONS:
        return ACTIVATIONS[name]()
    from transformers.activations import ACT2FN  # half a second, which few descriptions ask for

    if name not in ACT2FN:
        raise UserError(f"model: activation {name!r}; {nearest(name, ACT2FN)} (valid: {', '.join(ACT2FN)})")
    return ACT2FN[name]
