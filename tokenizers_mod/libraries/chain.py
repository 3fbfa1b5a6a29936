"""A network that is a chain of parts, cut in two: the front stays as it is and runs once a sample, the tail learns.

Features of early stages hold for most pictures, those of late ones are the old task's (Yosinski et al. 2014,
1411.1792): with a front that is kept, tuning costs a sample the last stages alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from generalist.data.base.errors import UserError, one_line
from generalist.tokenizers_mod.libraries.tower import Tower

STAGES = ("blocks", "stages")  # what timm's networks call the parts that follow each other


def cut(net: nn.Module, tail: int, name: str) -> tuple[list[nn.Module], list[nn.Module]]:
    """(the front, the tail): the last `tail` stages and all behind them. UserError: no stages, or not so many."""
    parts, stages = [], list[nn.Module]()
    for own, part in net.named_children():
        if own in STAGES and isinstance(part, nn.Sequential):
            stages = list(part)
        parts += list(part) if own in STAGES and isinstance(part, nn.Sequential) else [part]
    if not stages:
        raise UserError(
            f"{name}: tail={tail} is for networks of stages in a row (EfficientNet, ConvNeXt); leave it out"
        )
    if tail >= len(stages):
        raise UserError(
            f"{name}: tail is {tail}, the network has {len(stages)} stages; leave it out to tune all of them"
        )
    first = len(parts) - 1 - parts[::-1].index(stages[-tail])
    return parts[:first], parts[first:]


def beginning(net: nn.Module, stages: int, name: str) -> list[nn.Module]:
    """Everything up to the end of the first `stages` stages. UserError: no stages in a row, or not so many."""
    found = next((len(p) for own, p in net.named_children() if own in STAGES and isinstance(p, nn.Sequential)), 0)
    if not 0 < stages < found:
        has = f"{found} stages, of which the first 1 to {found - 1} may be taken" if found else "no stages in a row"
        raise UserError(f"{name}: stages is {stages}; the network has {has}")
    return cut(net, found - stages, name)[0]


def through(parts: Sequence[nn.Module], x: Tensor) -> Tensor:
    """What comes out of parts that follow each other."""
    for part in parts:
        x = part(x)
    return x


def front_state(net: nn.Module, tail: int, name: str) -> dict[str, Tensor]:
    """Names and values of the front."""
    front, _ = cut(net, tail, name)
    return {f"{i}.{key}": value for i, part in enumerate(front) for key, value in part.state_dict().items()}


@torch.no_grad()
def front_shape(tower: Tower, size: tuple[int, ...], tail: int, name: str) -> list[int]:
    """[h, w, C] of what the front makes of a picture. UserError: the parts one after another are not the network."""
    front, rest = cut(tower.net, tail, name)
    tower.eval()
    pixels = tower.blank(size) + torch.linspace(-1, 1, size[-1])
    try:
        held = through(front, pixels)
        same = held.ndim == 4 and torch.allclose(through(rest, held), tower.net(pixels), atol=1e-4, rtol=1e-4)
    except Exception as error:  # parts that want more than what the one before them made
        raise UserError(
            f"{name}: tail={tail} cuts a network that is no chain ({one_line(error)}); leave it out"
        ) from error
    if not same:
        raise UserError(f"{name}: tail={tail} cuts a network that is no chain of its stages; leave it out")
    return [held.shape[2], held.shape[3], held.shape[1]]
