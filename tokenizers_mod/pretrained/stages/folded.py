"""The first stages of a pretrained picture network without norms of batches, and the token made of their map.

A norm of batches in evaluation is a scale and a shift of every channel, which the convolution in front of it can do
(Jacob et al., "Quantization and training of neural networks", 1712.05877, section 3.2). Folded, a step is a third
quicker, no statistics of one task's batches are another task's, and adapting a model leaves none behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_weights

from generalist.data.base.errors import UserError, one_line
from generalist.tokenizers_mod.libraries.chain import beginning, through
from generalist.tokenizers_mod.libraries.tower import Tower


def folded(parts: list[nn.Module]) -> nn.Sequential:
    """Parts that follow each other, every norm of batches folded into the convolution in front of it."""
    whole = nn.Sequential(*parts)
    for parent in list(whole.modules()):
        for (_, conv), (name, norm) in pairs(parent):
            fold(conv, norm)
            parent.register_module(name, norm._modules.get("act") or nn.Identity())
    return whole


def pairs(parent: nn.Module) -> Iterator[tuple[tuple[str, nn.Conv2d], tuple[str, nn.BatchNorm2d]]]:
    """Convolutions and the norms of batches right behind them, by their names in the parent."""
    children = list(parent.named_children())
    for (one, conv), (other, norm) in pairwise(children):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            yield (one, conv), (other, norm)


@torch.no_grad()
def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Give the convolution the norm's scale and shift, as in evaluation."""
    assert norm.running_mean is not None and norm.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )


class StageToken(nn.Module):
    """Flattened pictures Float[N, 3 * side * side] -> Float[N, width]: the stages, a norm, a linear map of all cells.

    The map is flattened, not averaged: where a stroke of a drawing lies says what it is. input_size: the side in
    pixels that the network sees them at. UserError where the parts one after the other make no map.
    """

    def __init__(self, tower: Tower, stages: int, side: int, input_size: int, width: int, name: str) -> None:
        super().__init__()
        parts = beginning(tower.net, stages, name)
        for part in parts:
            part.eval()
        self.side, self.input_size, self.stages = side, input_size, folded(parts)
        device = next(self.stages.parameters()).device
        try:
            with torch.no_grad():
                cells = through(parts, torch.zeros(1, 3, input_size, input_size, device=device))
        except Exception as error:  # parts that want more than what the one before them made
            raise UserError(f"{name}: these stages are no chain ({one_line(error)}); take another network") from error
        inner = cells[0].numel()
        self.norm = nn.LayerNorm(inner)
        self.out = nn.Linear(inner, width)
        nn.init.zeros_(self.out.bias)

    def forward(self, patches: Tensor) -> Tensor:
        pixels = patches.unflatten(1, (3, self.side, self.side))
        if self.input_size != self.side:
            pixels = interpolate(pixels, (self.input_size, self.input_size), mode="bilinear", align_corners=False)
        pixels = pixels.contiguous(memory_format=torch.channels_last)  # quicker on a CPU
        return self.out(self.norm(self.stages(pixels).flatten(1)))
