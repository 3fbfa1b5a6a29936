"""Resemblyzer's encoder of voices (1710.10467, generalized end-to-end loss): three LSTMs over windows of a mel
spectrogram, whose last state is one vector a window; a voice is their mean, of length one.

A description: {"library": "voice", "name": "resemblyzer", "settings": {}}. What goes in is Float[B windows 160 40],
what `generalist.tokenizers_mod.libraries.voices.sound` makes of a sound.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.libraries.tower import Tower, fit

NAME = "resemblyzer"
FRAMES, MELS, WIDTH, LAYERS = 160, 40, 256, 3
OF_ITS_LOSS = ("similarity_weight", "similarity_bias")


def describe(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    if name != NAME or settings:
        raise UserError(f"encoder: of voices there is {NAME!r}, which has no settings")
    return {"library": "voice", "name": NAME, "settings": {}}


def build(description: dict[str, Any], size: tuple[int, ...], kind: str, any_size: bool) -> Tower:
    describe(description["name"], description["settings"])
    return VoiceTower(Voice(), kind)


class Voice(nn.Module):
    """Float[B 160 40] -> Float[B 256], not negative, of length one."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MELS, WIDTH, LAYERS, batch_first=True)
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, mels: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(mels)
        return normalize(self.linear(hidden[-1]).relu(), dim=1)


class VoiceTower(Tower):
    """As "last", a token a window."""

    def blank(self, size: tuple[int, ...], **like: Any) -> Tensor:
        return torch.zeros(1, *size, **like)

    def shapes(self, size: tuple[int, ...]) -> list[tuple[int, int, int]]:
        return [(1, 1 if self.kind == "embedding" else size[0], WIDTH)]

    def maps(self, pixels: Tensor) -> list[Tensor]:
        windows = self.net(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
        return [windows.transpose(1, 2).unsqueeze(2)]

    def embedding(self, pixels: Tensor) -> Tensor:
        return normalize(self.maps(pixels)[0].mean((2, 3)), dim=1)

    def load(self, tensors: dict[str, Tensor], where: str) -> None:
        fit(self.net, tensors, where, lambda name: name in OF_ITS_LOSS)
