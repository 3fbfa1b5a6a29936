"""Any picture network over the frames of a film: {"library": "frames", "name", "settings": {"of": its description}}."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from generalist.tokenizers_mod.libraries.tower import Tower, build_tower


def build(description: dict[str, Any], size: tuple[int, ...], kind: str, any_size: bool) -> Tower:
    """size: (frames, 3, height, width)."""
    return FramesTower(build_tower(description["settings"]["of"], (size[2], size[3]), kind), kind)


class FramesTower(Tower):
    """Films Float[B T 3 H W] -> maps [Float[B C T*h w], ...]: frame under frame, so that a row tells time too."""

    net: Tower

    def __init__(self, net: Tower, kind: str) -> None:
        super().__init__(net, kind)

    def blank(self, size: tuple[int, ...], **like: Any) -> Tensor:
        return torch.zeros(1, *size, **like)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        maps = self.net(pixels.flatten(0, 1))
        return [m.unflatten(0, pixels.shape[:2]).transpose(1, 2).flatten(2, 3) for m in maps]

    def whole_state(self) -> dict[str, Tensor]:
        return self.net.whole_state()

    def load(self, tensors: dict[str, Tensor], where: str) -> None:
        self.net.load(tensors, where)
