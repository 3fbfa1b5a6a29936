"""What Resemblyzer makes of a sound before its network sees it: made loud, a mel spectrogram, windows of 1.6 s.

The numbers are the package's own (`normalize_volume`, `compute_partial_slices`, librosa's `melspectrogram`: power, not
its logarithm). Its third step, long silences cut out by webrtcvad, is left out: that is another program's judgement.
"""

from __future__ import annotations

from functools import cache
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generalist.tokenizers_mod.libraries.voices.tower import FRAMES, MELS

EXTRACTOR = "Voice"
RATE, HOP, SPAN = 16000, 160, 400  # Hz; samples of a frame's step and of its length
LOUDNESS = -30.0  # decibels of full scale that a quieter sound is raised to
A_SECOND, COVERED = 1.3, 0.75  # windows; of a last window, how much must be sound


class VoiceExtractor:
    """In the place of a feature extractor of transformers: {"input_features": Float[1 windows 160 40]}."""

    sampling_rate = RATE
    model_input_names = ("input_features",)

    def __call__(self, wave: np.ndarray, **of_the_library: Any) -> dict[str, Tensor]:
        sound = loud(torch.as_tensor(wave, dtype=torch.float32))
        starts = windows(len(sound))
        end = (starts[-1] + FRAMES) * HOP
        frames = mels(torch.nn.functional.pad(sound, (0, max(0, end - len(sound)))))
        return {"input_features": torch.stack([frames[start : start + FRAMES] for start in starts])[None]}


def loud(wave: Tensor) -> Tensor:
    """Float[t] raised to the usual loudness, where it is quieter; silence stays."""
    level = wave.double().square().mean().sqrt()
    wanted = 10 ** (LOUDNESS / 20)
    return wave if level == 0 or level >= wanted else wave * (wanted / level).float()


def windows(samples: int) -> list[int]:
    """The first frames of the windows that a sound is seen through, one at least."""
    step = round(RATE / A_SECOND / HOP)
    starts = list(range(0, max(1, ceil((samples + 1) / HOP) - FRAMES + step + 1), step))
    covered = (samples - starts[-1] * HOP) / (FRAMES * HOP)
    return starts[:-1] if len(starts) > 1 and covered < COVERED else starts


@cache
def _filters() -> Tensor:
    from transformers.audio_utils import mel_filter_bank

    made = mel_filter_bank(SPAN // 2 + 1, MELS, 0.0, RATE / 2, RATE, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(made).float()


def mels(wave: Tensor) -> Tensor:
    """Float[t] -> Float[1 + t / 160, 40], power in each of 40 bands."""
    window = torch.hann_window(SPAN)
    found = torch.stft(wave, SPAN, HOP, window=window, center=True, pad_mode="constant", return_complex=True)
    return found.abs().square().T @ _filters()
