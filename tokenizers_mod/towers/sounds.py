"""The sound tower: spectrograms as the feature extractor of transformers makes them (CLAP)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from generalist.data.base.errors import UserError, nearest
from generalist.data.base.named import in_library
from generalist.tokenizers_mod.audio.audio import Audio
from generalist.tokenizers_mod.towers.tower import Tower


@dataclass
class SoundTower(Tower):
    """Sounds through a tower of transformers. processor: what its feature extractor's `to_dict` gives; rate: Hz.

    Of a sound longer than the extractor takes it cuts stretches at random; here always the same ones.
    """

    name: ClassVar[str] = "audio"
    hears: ClassVar[bool] = True
    raw: ClassVar[str] = "wav, flac or ogg path or bytes; (waveform, rate); {'array', 'sampling_rate'}"
    tensor_names: ClassVar[tuple[str, ...]] = ("input_features", "is_longer")
    side = "audio"

    rate: int = 48000

    def read(self, raw: Any) -> dict[str, Tensor]:
        wave = Audio(rate=self.rate).read(raw).numpy()
        state = np.random.get_state()
        np.random.seed(0)  # the library draws from the one generator of the process
        try:
            found = self.made(wave, sampling_rate=self.rate, return_tensors="pt")
        finally:
            np.random.set_state(state)
        return {key: torch.as_tensor(value)[0] for key, value in found.items() if key in self.tensor_names}

    @property
    def made(self) -> Any:
        """The library's feature extractor, made at the first use."""
        if "_made" not in self.__dict__:
            self.__dict__["_made"] = feature_extractor(self.processor)
        return self.__dict__["_made"]

    def plain(self, raw: Any) -> Any:
        return {"array": Audio(rate=self.rate).read(raw).numpy(), "sampling_rate": self.rate}

    def show(self, raw: Any) -> dict[str, Any]:
        return Audio(rate=self.rate).show(raw)


def feature_extractor(settings: dict[str, Any]) -> Any:
    """A feature extractor of transformers from its own settings. UserError where they name none of the library."""
    import transformers

    values = dict(settings)
    name = values.pop("feature_extractor_type", "")
    kind = in_library("transformers", name)
    if not (isinstance(kind, type) and issubclass(kind, transformers.FeatureExtractionMixin)):
        known = [n for n in dir(transformers) if n.endswith("FeatureExtractor")]
        raise UserError(f"audio: transformers has no feature extractor {name!r}; {nearest(name, known)}")
    return kind(**values)
