"""What both models are given: pictures, sounds, clips and texts of one seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from generalist.hf.processor import GeneralistProcessor
from generalist.tokenizers_mod.base.capabilities import Writes

TEXTS = ["a photo of a cat", "two dogs, running", "the sound of rain on a roof"]


def pictures() -> list[np.ndarray]:
    """Two of unequal sides, uint8 [H W 3]."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in ((90, 120), (150, 100))]


def sounds(rate: int) -> list[tuple[np.ndarray, int]]:
    """Two of half a second and less."""
    rng = np.random.default_rng(0)
    return [(rng.normal(scale=0.1, size=rate // parts).astype(np.float32), rate) for parts in (2, 3)]


def clips() -> list[np.ndarray]:
    """Two of ten and of three frames, uint8 [T H W 3]."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (frames, 60, 80, 3), dtype=np.uint8) for frames in (10, 3)]


def pixels(modality: Any) -> Tensor:
    """Two normalised pictures of a square picture modality: Float[2 C size size]."""
    return torch.randn(2, modality.channels, modality.size, modality.size)


def raw_of(name: str, modality: Any) -> list[Any]:
    """What a modality of two towers is given, by its name."""
    return sounds(modality.rate) if name == "audio" else clips() if name == "video" else pictures()


def most_pieces(processor: GeneralistProcessor) -> int:
    """Tokens of the longest text that the converted model takes."""
    text = processor.built["text"]
    assert isinstance(text, Writes)
    return text.max_length
