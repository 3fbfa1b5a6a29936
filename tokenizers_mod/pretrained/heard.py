"""Sounds through a picture network: the log-mel spectrogram as its picture, time from left to right.

Networks trained on photographs tell sounds by their spectrograms well (PANNs' and AST's starting point: ImageNet
weights, 2104.01778 section 2.2); a frozen one goes over each sound once, and what it makes of it is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.audio.audio import Audio
from generalist.tokenizers_mod.audio.fbank import fbank
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.pretrained.backbone import Backbone

LOWEST, HIGHEST = -14.0, 2.0  # log energies that are black and white


@dataclass
class Heard(Backbone):
    """A `Backbone` that reads sounds. rate: Hz that they are brought to; mels: rows of the spectrogram.

    below: what of a sound is black: so many natural logarithms of energy below its own loudest cell, which is white
    (12: 52 dB); 0 = the same two energies for all sounds.

    Networks whose pixels have a mean and a deviation alone (timm's); `aspect` and `augment` are not for sounds.

    >>> sound = Heard(backbone="test_efficientnet", size=64, maps="embedding")
    >>> sound.span(sound.read((np.ones(8000), 8000))).length
    1
    """

    name: ClassVar[str] = "audio"
    raw: ClassVar[str] = Audio.raw
    kind: ClassVar[str] = "audio"

    rate: int = 16000
    hears: ClassVar[bool] = True
    mels: int = 128
    below: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.below < float("inf"):
            raise UserError(f"{self.name}: below is {self.below}; it is a range of log energies, 0 = a fixed one")

    def _heard(self) -> Audio:
        if "_audio" not in self.__dict__:
            self.__dict__["_audio"] = Audio(rate=self.rate, mels=self.mels, patch=[self.mels, 4], stride=[self.mels, 4])
        return self.__dict__["_audio"]

    def _decoded(self, raw: Any) -> Tensor:
        """-> Float[3 mels frames] in 0..1, three equal channels."""
        wave = self._heard().read(raw)
        wave = pad(wave, (0, max(0, self.rate // 2 - len(wave))))  # half a second at least: a picture of some width
        mel = fbank(wave - wave.mean(), self.rate, self.mels).T.flip(0)
        low, high = (mel.max() - self.below, mel.max()) if self.below else (LOWEST, HIGHEST)
        return ((mel - low) / (high - low)).clamp(0, 1).expand(3, -1, -1).contiguous()

    def prepared(self, value: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """The whole spectrogram at the network's size, nothing cropped, with the network's mean and deviation."""
        self.adopt()
        square = interpolate(value[None], self.sides, mode="bilinear", antialias=True, align_corners=False)[0]
        mean, std = (torch.tensor(self.pixels[key]).view(3, 1, 1) for key in ("mean", "std"))
        return (square - mean) / std

    def plain(self, raw: Any) -> Any:
        return self._heard().plain(raw)

    def about(self) -> list[Any]:
        return [*super().about(), self.rate, self.mels, *([self.below] if self.below else [])]

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.pretrained.examples import heard

        return heard()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k != "_audio"}
