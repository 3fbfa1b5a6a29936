"""Motion sensors: all axes together, a few samples a token, any length and rate, gaps allowed.

Source: ImageBind's IMU trunk (2305.05665, appendix B): windows of 8 samples x 6 axes -> linear -> LayerNorm.
Here a window also says which of its samples were observed, and time is sine-cosine, so that any length works.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Span
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.base.raw import as_rate, resampled
from generalist.tokenizers_mod.base.tokenizer import Tokenizer, taken
from generalist.tokenizers_mod.base.views import check_windows, stretch
from generalist.tokenizers_mod.numbers.series import load_array, step_positions

LARGEST = 1e4  # standardised values are cut here


@dataclass
class Imu(Modality):
    """A recording [t, channels] -> one token a window of all channels.

    channels: axes. patch: samples a window (also the stride). rate: Hz, recordings that say their own rate are
    resampled to it; 0 = never. window: longest span in samples (a random one in training, the middle one
    otherwise); 0 = all. windows: evaluation looks at so many spans of a longer recording, evenly from its start to its
    end, and averages their probabilities (`generalist.tokenizers_mod.base.views`).
    mean, std: of every channel, learnt from training recordings where empty.
    scale: in training all channels are multiplied by 1 +- scale. periods, longest: of the positions, in samples.

    >>> imu = Imu(channels=3, patch=8)
    >>> imu.span(imu.read(np.zeros((50, 3)))).length
    7
    """

    name: ClassVar[str] = "imu"
    flagged: ClassVar[bool] = True
    raw: ClassVar[str] = "array [t, channels], NaN = missing; (array, rate); {'signal', 'rate'}; .csv, .npy, .parquet"
    count: ClassVar[str] = "ceil(min(t, window or t) / patch); windows without any value left out"
    axes: ClassVar[int] = 1

    channels: int = 6
    patch: int = 8
    rate: float = 0.0
    window: int = 0
    windows: int = 1
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    scale: float = 0.0
    longest: float = 4096.0

    def __post_init__(self) -> None:
        if min(self.channels, self.patch) < 1 or min(self.rate, self.window, self.scale) < 0:
            raise UserError(f"{self.name}: channels and patch must be >= 1; rate, window and scale >= 0")
        check_windows(self.name, self.windows, "window", self.window)
        if any(len(v) not in (0, self.channels) for v in (self.mean, self.std)) or any(s <= 0 for s in self.std):
            raise UserError(f"{self.name}: mean and std need {self.channels} values, one a channel, std > 0")

    @property
    def views(self) -> int:
        """How often evaluation looks at a recording."""
        return self.windows

    def learnable(self, raw: Any) -> None:
        self._array(raw)

    def learn_rows(self, name: str, rows: list[Any]) -> None:
        """Mean and standard deviation of every channel from training recordings; kept where they are set."""
        if self.mean and self.std:
            return
        total, square, count = (np.zeros(self.channels) for _ in range(3))
        for row in rows:
            value = self._array(row)[0]
            seen = ~np.isnan(value)
            total += np.where(seen, value, 0).sum(0)
            square += np.where(seen, value, 0).__pow__(2).sum(0)
            count += seen.sum(0)
        mean = total / np.maximum(count, 1)
        std = np.sqrt(np.maximum(square / np.maximum(count, 1) - mean**2, 0))
        self.mean = [float(m) for m in mean]
        self.std = [float(s) if s > 1e-9 * (abs(m) + 1e-30) else 1.0 for s, m in zip(std, mean, strict=True)]

    def read(self, raw: Any) -> Float[Tensor, "t channels"]:
        """-> float32 [t, channels] standardised, NaN = missing.

        UserError: unreadable, empty, infinite, wrong number of channels, no observed value, a bad rate.
        """
        array, what = self._array(raw)
        if np.isinf(array).any():
            raise UserError(f"{what}: {int(np.isinf(array).sum())} infinite values; use NaN for missing ones")
        if np.isnan(array).all():
            raise UserError(f"{what}: every value is missing; remove the recording")
        if self.mean:
            array = (array - np.array(self.mean)) / np.array(self.std or [1.0] * self.channels)
        return torch.from_numpy(array.clip(-LARGEST, LARGEST).astype(np.float32))

    def _array(self, raw: Any) -> tuple[np.ndarray, str]:
        """Checked float64 [t, channels] at the wanted rate, and its name for errors."""
        rate = None
        if isinstance(raw, dict):
            if "signal" not in raw:
                raise UserError(f"{self.name}: a dict needs 'signal' (and 'rate'); it has {sorted(map(str, raw))}")
            raw, rate = raw["signal"], raw.get("rate")
        elif isinstance(raw, tuple) and len(raw) == 2 and np.ndim(raw[1]) == 0:
            raw, rate = raw
        array, what = load_array(raw, self.name)
        if array.ndim == 1 and self.channels == 1:
            array = array[:, None]
        if array.ndim != 2 or array.shape[1] != self.channels or len(array) == 0:
            raise UserError(f"{what}: shape {array.shape}; expected [t, {self.channels}], at least one sample")
        if rate is not None and self.rate:
            array = self._resample(array, rate, what)
        return array, what

    def _resample(self, array: np.ndarray, rate: Any, what: str) -> np.ndarray:
        rate = as_rate(rate, what, 1e-3, 1e7)
        if rate == self.rate:
            return array
        if np.isnan(array).any():
            raise UserError(f"{what}: gaps cannot be resampled from {rate:g} to {self.rate:g} Hz; fill them first")
        return resampled(array, rate, self.rate, what, finest=1000, padtype="line")

    def span(self, value: Float[Tensor, "t channels"], rng: torch.Generator | None = None) -> Span:
        """[t, channels] -> data {"patch": [n, 2 channels patch] (values, then observed), "position": [n]}, grid (n,).

        The end is filled up with missing samples; windows without any value are masked out.
        """
        if self.window:
            value = stretch(value, self.window, self, rng)
        if rng is not None and self.scale:
            value = value * (1 + self.scale * (2 * torch.rand((), generator=rng) - 1))
        count = math.ceil(len(value) / self.patch)
        value = nn.functional.pad(value, (0, 0, 0, count * self.patch - len(value)), value=float("nan"))
        seen = ~value.isnan()
        # [n, patch, channels] -> channel by channel, as the published linear has it
        windows = [t.view(count, self.patch, -1).transpose(1, 2).flatten(1) for t in (value.nan_to_num(), seen.float())]
        real = windows[1].any(dim=1)
        if not bool(real.any()):
            raise UserError(f"{self.name}: the chosen window holds no value; lengthen `window`")
        data = {"patch": torch.cat(windows, dim=1), "position": torch.arange(count, dtype=torch.float32) * self.patch}
        return Span(self.name, data, count, mask=None if bool(real.all()) else real, grid=(count,))

    def steady(self) -> tuple[str, ...]:
        return ("read",) if self.window or self.scale else ("read", "span")

    def content(self) -> dict[str, float]:
        return {"patch": 0.0}

    def show(self, raw: Any) -> dict[str, Any]:
        value = self.read(raw).nan_to_num()
        return {"kind": "series", "past": value[:2000, 0].tolist()}

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.numbers.examples import imu

        return imu()

    def build(self, width: int) -> ImuTokens:
        return ImuTokens(self, width)


class ImuTokens(Tokenizer):
    """LayerNorm(linear of a window) + time."""

    def __init__(self, settings: Imu, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(2 * settings.channels * settings.patch, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.time: tuple[list[float], float, float] = ([], 2.0 * settings.patch, settings.longest)

    def forward(self, data: dict[str, Tensor]) -> Float[Tensor, "N width"]:
        """{"patch": [N, 2 channels patch], "position": [N]} -> [N, width]."""
        x = self.norm(self.project(taken(data["patch"], self.project)))
        return x + step_positions(data["position"], x.shape[-1], *self.time).to(x.dtype)
