"""Channels of the convolutional stems in front of the encoder, taken out as heads and hidden units of layers are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from generalist.compress.ways.refit import Moments, least
from generalist.tokenizers_mod.vision.stem import ConvStem

SETTING = "stem"  # of a modality: channels of its stem's first convolution


@dataclass(frozen=True)
class Stem:
    """name: of the stem among the model's modules; modality: whose it is."""

    name: str
    modality: str
    stem: ConvStem

    @property
    def readers(self) -> list[str]:
        """The layers that read its convolutions' channels, by their names in the model."""
        return [f"{self.name}.{reader}" for _, reader in self.stem.inner()]


def stems_of(model: Any) -> list[Stem]:
    """The stems of a model's tokenizers, without those of weights that the model only names."""
    return [
        Stem(f"tokenizers.{modality}.{name}", modality, part)
        for modality, tokenizer in model.tokenizers.items()
        if SETTING in model.config.modalities[modality] and modality not in (model.config.referred or {})
        for name, part in tokenizer.named_modules()
        if isinstance(part, ConvStem)
    ]


@torch.no_grad()
def narrowed(own: Stem, moments: Sequence[Moments], share: float) -> tuple[dict[str, Tensor], int, float]:
    """The stem's tensors with this share of every convolution's channels, by their names in the model; how many the
    first has then; the largest share of an output's variance that is lost."""
    state, lost = {name: value.clone() for name, value in own.stem.state_dict().items()}, 0.0
    first = own.stem.channels
    hidden = max(1, round(share * first))
    for (conv, reader), of in zip(own.stem.inner(), moments, strict=True):
        weight = state[f"{reader}.weight"]
        count = len(state[f"{conv}.weight"])
        keep = hidden * (count // first)
        kept, fitted, bias, gone = least(weight.flatten(1), of, count, keep)
        shape = (len(weight), keep, *weight.shape[2:]) if weight.ndim > 2 else (len(weight), -1)
        state |= {name: state[name][kept.to(weight.device)] for name in (f"{conv}.weight", f"{conv}.bias")}
        state[f"{reader}.weight"] = fitted.reshape(shape).to(weight)
        state[f"{reader}.bias"] = state[f"{reader}.bias"] + bias.to(weight)
        lost = max(lost, gone)
    return {f"{own.name}.{name}": value for name, value in state.items()}, hidden, lost
