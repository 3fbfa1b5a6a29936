"""Kaldi's log-mel filter bank, by its formulas."""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Float
from torch import Tensor

from generalist.data.base.constants import constant

FRAME, SHIFT = 0.025, 0.010  # seconds, Kaldi's defaults
PREEMPHASIS = 0.97
LOG_FLOOR = torch.finfo(torch.float32).eps


@constant(8)
def _window(length: int, kind: str) -> Tensor:
    """Symmetric analysis window [length]; "povey" is Hann to the power of .85 (Kaldi's own)."""
    hann = torch.hann_window(length, periodic=False, dtype=torch.float64)
    return {"hann": hann, "povey": hann**0.85}[kind].float()


@constant(8)
def _mel_matrix(rate: int, mels: int, fft: int, low: float, high: float) -> Tensor:
    """Triangles equally spaced and triangular in Kaldi's mel scale: [fft / 2 + 1, mels]."""
    from transformers.audio_utils import mel_filter_bank

    with warnings.catch_warnings():
        # with many mels the lowest triangles fall between two FFT bins and are empty, in Kaldi too
        warnings.filterwarnings("ignore", message="At least one mel filter")
        matrix = mel_filter_bank(
            fft // 2 + 1, mels, low, high, rate, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True
        )
    return torch.from_numpy(matrix).float()


def frame_size(rate: int) -> tuple[int, int]:
    """(samples of a frame, samples between frames) at this sampling rate."""
    return int(rate * FRAME), int(rate * SHIFT)


def fbank(
    waveform: Float[Tensor, " t"],
    rate: int,
    mels: int = 128,
    window: str = "hann",
    low: float = 20.0,
    high: float = 0.0,
) -> Float[Tensor, "frames mels"]:
    """Kaldi's log-mel filter bank, without dither and without an energy column.

    waveform: [t] samples. low, high: Hz, the filters' range; high <= 0 counts from half the rate down.
    Returns [frames, mels], natural logarithms; frames = 1 + (t - frame) // shift (`snip_edges`: no padding).
    Each frame loses its mean, is pre-emphasised (first sample repeated), windowed and zero-padded to a
    power of two. Kaldi's `htk_compat` only moves the energy column, so it makes no difference here.
    ValueError when the waveform is shorter than one frame.
    Source: Kaldi feature-window.cc and mel-computations.cc; torchaudio.compliance.kaldi.fbank.
    """
    length, shift = frame_size(rate)
    if len(waveform) < length:
        raise ValueError(f"{len(waveform)} samples are shorter than one frame of {length}")
    frames = waveform.float().unfold(0, length, shift)
    frames = frames - frames.mean(dim=1, keepdim=True)
    previous = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
    frames = (frames - PREEMPHASIS * previous) * _window(length, window)
    fft = 1 << (length - 1).bit_length()
    power = torch.fft.rfft(frames, n=fft).abs().square()
    energy = power @ _mel_matrix(rate, mels, fft, low, high if high > 0 else rate / 2 + high)
    return energy.clamp_min(LOG_FLOOR).log()
