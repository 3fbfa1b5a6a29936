"""torch.compile applied from outside: the model's code, names and checkpoints stay as they are."""

from __future__ import annotations

import shutil
from typing import Any

import torch
from torch import nn

from generalist.data.base.errors import UserError


def compile_layers(objective: nn.Module) -> int:
    """Compile the channel mixer of every encoder layer, for any number of tokens; how many.

    The packed groups that attention works on change with every batch, so whole layers would be compiled anew all
    the time; a channel mixer sees one axis that varies. UserError where there is no C++ compiler.
    """
    model: Any = objective.model
    if next(model.parameters()).device.type == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        raise UserError("engine.compile=true needs a C++ compiler (g++ or clang++); install one or leave it off")
    torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, 4 * len(model.encoder.layers))
    for layer in model.encoder.layers:
        layer.mlp.compile(dynamic=True)
    return len(model.encoder.layers)
