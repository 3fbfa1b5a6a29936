"""Sound: Kaldi log-mel filter bank cut into patches, the AST front end at any length.

Source: AST (Gong et al., 2104.01778) section 2; `spec/meta-transformer.md` section 6, Audio. Unlike AST
there is no zero tail: a clip has as many tokens as it has sound, and positions are a learned table over
mel rows plus sine-cosine over time, so that any length works.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import embedding

from generalist.data.base.errors import UserError
from generalist.data.base.limits import limits
from generalist.data.batch.cells import cells
from generalist.data.batch.types import Span
from generalist.data.media.sounds import mixed, read_sound
from generalist.tokenizers_mod.audio.fbank import fbank, frame_size
from generalist.tokenizers_mod.base.base import Modality, check_finite, sincos
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.base.padded import stack_padded
from generalist.tokenizers_mod.base.raw import as_array, as_rate, resampled
from generalist.tokenizers_mod.base.tokenizer import Tokenizer, taken
from generalist.tokenizers_mod.base.views import check_windows, read_once, stretch
from generalist.tokenizers_mod.vision.image import places


@dataclass
class Audio(Modality):
    """Mono sound -> patches of a log-mel spectrogram, time-major: T x M tokens.

    rate: Hz. mels: filters. patch, stride: [mel, time] in filters and frames of 10 ms.
    mean, std: patches are (log-mel - mean) / (2 std); the defaults are AST's for AudioSet.
    max_seconds: longer clips are cut, at random in training and in the middle otherwise; 0 = never. windows: evaluation
    looks at so many cuts of a longer clip, evenly from its start to its end, and averages their probabilities.
    mask_mels, mask_frames: SpecAugment, the widest masked band in training (one of each); 0 = none.

    >>> audio = Audio(rate=16000, mels=128)
    >>> audio.span(audio.read((np.zeros(8000), 8000))).grid  # one second at 8 kHz: 98 frames of 10 ms, 9 x 12 patches
    (9, 12)
    """

    name: ClassVar[str] = "audio"
    axes: ClassVar[int] = 2
    hears: ClassVar[bool] = True
    raw: ClassVar[str] = "wav, flac or ogg path or bytes; (waveform, rate); {'array', 'sampling_rate'}"
    count: ClassVar[str] = (
        "((max(F, patch[1]) - patch[1]) // stride[1] + 1) * ((mels - patch[0]) // stride[0] + 1); "
        "F = 1 + (t - rate // 40) // (rate // 100) frames of t samples at `rate`"
    )

    rate: int = 16000
    mels: int = 128
    patch: list[int] = field(default_factory=lambda: [16, 16])
    stride: list[int] = field(default_factory=lambda: [10, 10])
    mean: float = -4.2677393
    std: float = 4.5689974
    window: str = "hann"
    max_seconds: float = 0.0
    windows: int = 1
    mask_mels: int = 0
    mask_frames: int = 0

    def __post_init__(self) -> None:
        self.patch, self.stride = list(self.patch), list(self.stride)
        if self.window not in ("hann", "povey"):
            raise UserError(f"audio: window is {self.window!r}; use 'hann' or 'povey'")
        if len(self.patch) != 2 or len(self.stride) != 2 or min(*self.patch, *self.stride) < 1:
            raise UserError(f"audio: patch {self.patch} and stride {self.stride} must be two sizes >= 1: [mel, time]")
        if self.patch[0] > self.mels:
            raise UserError(
                f"audio: a patch of {self.patch[0]} mels does not fit {self.mels}; lower patch or raise mels"
            )
        if self.std <= 0 or self.rate < 1000:
            raise UserError(f"audio: std {self.std} must be > 0 and rate {self.rate} at least 1000 Hz")
        check_windows("audio", self.windows, "max_seconds", self.max_seconds)

    @property
    def views(self) -> int:
        """How often evaluation looks at a clip."""
        return self.windows

    @property
    def rows(self) -> int:
        """Patches over the mel axis."""
        return (self.mels - self.patch[0]) // self.stride[0] + 1

    def read(self, raw: Any) -> Float[Tensor, " t"]:
        """-> waveform float32 [t], mono, at `rate`.

        Arrays may be [t], [t, channels] or [channels, t] (the shorter axis is the channels), integer
        samples are scaled to [-1, 1]. UserError: unreadable, empty, NaN, no rate, shorter than a frame.
        """
        return read_once(self, raw, self._read)

    def plain(self, raw: Any) -> Any:
        return {"array": self.read(raw).numpy(), "sampling_rate": self.rate}

    def _read(self, raw: Any) -> Float[Tensor, " t"]:
        array, rate, what = _load(raw, self._whole)
        array = as_array(array, what)
        if array.size == 0:
            raise UserError(f"{what}: no samples; remove the clip")
        if array.ndim not in (1, 2) or array.dtype.kind not in "iuf":
            raise UserError(
                f"{what}: {array.dtype} array of shape {array.shape}; expected numbers [t] or [t, channels]"
            )
        if array.dtype.kind in "iu":
            info = np.iinfo(array.dtype)
            offset = 0.0 if array.dtype.kind == "i" else (info.max + 1) / 2
            array = (array.astype(np.float64) - offset) / (info.max + 1 - offset)
        check_finite(array, what)
        if np.abs(array).max() > 1e6:
            raise UserError(f"{what}: samples up to {np.abs(array).max():.3g}; scale the waveform to [-1, 1]")
        if array.ndim == 2:
            array = mixed(array.T if array.shape[1] > array.shape[0] else array)
        held = limits()
        rate = as_rate(rate, what, held.low_hz, held.high_hz)
        if not rate.is_integer():
            raise UserError(f"{what}: sampling rate {rate:g}; expected a whole number of Hz")
        if rate != self.rate:
            array = resampled(array, rate, self.rate, what)
        frame = frame_size(self.rate)[0]
        if len(array) < frame:
            raise UserError(
                f"{what}: {len(array)} samples at {self.rate} Hz are less than one frame ({frame}); use a longer clip"
            )
        return torch.from_numpy(np.array(array, dtype=np.float32))

    @property
    def _whole(self) -> bool:
        """Whether all of a long recording is wanted, not stretches of it."""
        return not self.max_seconds

    def span(self, value: Float[Tensor, " t"], rng: torch.Generator | None = None) -> Span:
        """Waveform [t] -> data {"patch": [T M, mel * time], "position": [T M, 2] (time, mel)}, grid (T, M).

        A clip of fewer frames than a patch is filled up with the mean; frames after the last whole stride
        are dropped, as by AST's convolution.
        """
        mel = self.frames(value, rng)
        (steps, rows), patches = self._grid(mel.shape), self.patches(mel[None])
        position = places(steps, rows)
        return Span(self.name, {"patch": patches, "position": position}, steps * rows, grid=(steps, rows))

    def frames(self, value: Float[Tensor, " t"], rng: torch.Generator | None = None) -> Float[Tensor, "frames mels"]:
        """Waveform [t] -> cut, log-mel, normalised, masked in training: at least as many frames as a patch has."""
        limit = max(int(self.max_seconds * self.rate), frame_size(self.rate)[0]) if self.max_seconds else len(value)
        value = stretch(value, limit, self, rng)
        mel = self.log_mel(value)
        if rng is not None and (self.mask_frames or self.mask_mels):
            mel = mel.clone()
            _mask_band(mel, self.mask_frames, rng)
            _mask_band(mel.T, self.mask_mels, rng)
        wide = self.patch[1]
        return nn.functional.pad(mel, (0, 0, 0, wide - len(mel))) if len(mel) < wide else mel

    def log_mel(self, value: Float[Tensor, " t"]) -> Float[Tensor, "frames mels"]:
        """The log-mel spectrogram of a waveform that is cut already, normalised."""
        mel = fbank(value - value.mean(), self.rate, self.mels, self.window)
        return (mel - self.mean) / (2 * self.std)

    def steady(self) -> tuple[str, ...]:
        drawn = self.max_seconds or self.mask_frames or self.mask_mels
        return ("read", "log_mel") if drawn else ("read", "span")

    def _grid(self, shape: torch.Size) -> tuple[int, int]:
        """(steps, rows) of patches over [..., frames, mels]."""
        return (shape[-2] - self.patch[1]) // self.stride[1] + 1, self.rows

    def patches(self, mel: Float[Tensor, "B frames mels"]) -> Float[Tensor, "N size"]:
        """-> [B T M, mel * time], time by time."""
        (high, wide), (down, along) = self.patch, self.stride
        patches = mel.unfold(1, wide, along).unfold(2, high, down)  # [B, T, M, time, mel]
        return patches.transpose(3, 4).reshape(-1, high * wide)

    tensor_names: ClassVar[tuple[str, ...]] = ("input_features", "input_features_mask")

    def tensors(self, values: list[Tensor]) -> dict[str, Tensor]:
        """Waveforms -> input_features [B, frames, mels]; input_features_mask Int[B frames] where lengths differ."""
        features, real = stack_padded([self.frames(value) for value in values])
        return {"input_features": features} | ({} if bool(real.all()) else {"input_features_mask": real[..., 0]})

    def padded_place(self, tensors: dict[str, Tensor], real: Tensor | None) -> Tensor | None:
        mel = tensors["input_features"]
        steps, rows = self._grid(mel.shape)
        cell = cells(steps, rows, mel.device).expand(len(mel), -1, -1)
        size = torch.tensor([steps, rows], device=mel.device).expand(len(mel), 2)
        if real is not None:
            size = torch.stack([real.view(-1, steps, rows).any(2).sum(1), size[:, 1]], dim=1)
        return torch.cat([cell, size.unsqueeze(1).expand_as(cell)], dim=-1)

    def padded(self, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None]:
        """input_features [B, frames, mels]; input_features_mask [B, frames], 1 = real, or nothing."""
        mel, real = tensors["input_features"], tensors.get("input_features_mask")
        if mel.ndim != 3 or mel.shape[2] != self.mels:
            raise UserError(f"audio: input_features {tuple(mel.shape)}; expected [batch, frames, {self.mels}]")
        if mel.shape[1] < self.patch[1]:
            raise UserError(f"audio: {mel.shape[1]} frames are less than a patch of {self.patch[1]}; pad them")
        steps, rows = self._grid(mel.shape)
        time = torch.arange(steps, device=mel.device).unsqueeze(1).expand(steps, rows)
        row = torch.arange(rows, device=mel.device).expand(steps, rows)
        position = torch.stack([time, row], dim=-1).expand(mel.shape[0], steps, rows, 2).reshape(-1, 2)
        if real is not None:  # a patch is real when its last frame is
            real = real[:, self.patch[1] - 1 :: self.stride[1]][:, :steps].bool()
            real = real.unsqueeze(2).expand(-1, -1, rows).flatten(1)
        return {"patch": self.patches(mel), "position": position}, real

    def content(self) -> dict[str, float]:
        return {"patch": 0.0}

    def show(self, raw: Any) -> dict[str, Any]:
        return {"kind": "audio", "wave": self.read(raw).tolist(), "rate": self.rate}

    def seen(self, raw: Any) -> dict[str, Any]:
        """The spectrogram: rows are filters, the highest first, columns frames, as far as patches reach."""
        mel = self.frames(self.read(raw))
        steps, rows = self._grid(mel.shape)
        mel = mel[: (steps - 1) * self.stride[1] + self.patch[1], : (rows - 1) * self.stride[0] + self.patch[0]]
        low, high = float(mel.min()), float(mel.max())
        return {"kind": "spectrogram", "pixels": ((mel - low) / max(high - low, 1e-6)).T.flip(0).tolist()}

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.audio.examples import audio

        return audio()

    def build(self, width: int) -> nn.Module:
        return AudioTokens(self.patch[0] * self.patch[1], self.rows, width)


class AudioTokens(Tokenizer):
    """Linear(patch) + learned mel row + sine-cosine of time.

    `project.weight` is AST's convolution weight [D, 1, mel, time] flattened.
    """

    def __init__(self, size: int, rows: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(size, width)
        self.mel = nn.Parameter(torch.randn(rows, width) * 0.5)  # as loud as the patches and the sine-cosine

    def forward(self, data: dict[str, Tensor]) -> Float[Tensor, "N width"]:
        """{"patch": [N, size], "position": [N, 2] (time, mel)} -> [N, width]."""
        patch, position = data["patch"], data["position"]
        x = self.project(taken(patch, self.project))
        return x + embedding(position[:, 1], self.mel) + sincos(position[:, 0], x.shape[-1]).to(x.dtype)


def _mask_band(x: Tensor, widest: int, rng: torch.Generator) -> None:
    """Set a random band of rows of x [n, m] to 0 (the mean) in place, at most `widest` and never all."""
    widest = min(widest, len(x) - 1)
    if widest > 0:
        size = int(torch.randint(widest + 1, (), generator=rng))
        start = int(torch.randint(len(x) - size + 1, (), generator=rng))
        x[start : start + size] = 0


def _load(raw: Any, whole: bool) -> tuple[Any, Any, str]:
    """-> (samples, rate, name for errors). whole: see `generalist.data.media.sounds`."""
    if isinstance(raw, dict):
        if raw.get("array") is not None and "sampling_rate" in raw:
            return raw["array"], raw["sampling_rate"], "audio array"
        raw = raw.get("bytes") or raw.get("path")
    if isinstance(raw, (tuple, list)) and len(raw) == 2 and np.ndim(raw[1]) == 0:
        return raw[0], raw[1], "audio array"
    if not isinstance(raw, (str, Path, bytes)):
        raise UserError(
            f"audio: cannot read {type(raw).__name__}; give a path, (waveform, rate) or {{'array', 'sampling_rate'}}"
        )
    array, rate = read_sound(raw, whole)
    return array, rate, "audio bytes" if isinstance(raw, bytes) else f"audio {raw}"
