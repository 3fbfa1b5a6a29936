"""Time series: instance-normalised patches of [values, mask], channel-independent.

Source: PatchTST (2211.14730) patches and instance normalisation, Chronos-Bolt's left padding, TimesFM's
(2310.10688) residual MLP of [values, mask]; positions as measured in `spec/numbers.md` point 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.data.base.foreign import acts_as
from generalist.data.batch.types import Span
from generalist.data.media import arrays
from generalist.data.tables.table_limits import check_lines, check_parquet
from generalist.tokenizers_mod.base.base import Modality, load_numbers, periodic
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.base.tokenizer import Tokenizer, taken

PERIODS = (24.0, 12.0, 168.0, 8.0)  # steps; hourly data's day, half day, week and shift
LONGEST = 4096.0


def step_positions(
    position: Float[Tensor, " n"], width: int, periods: list[float], shortest: float, longest: float
) -> Float[Tensor, "n width"]:
    """Unit-scale sin/cos of time, the same for past patches and future slots.

    position: [n], steps relative to the forecast origin (the first future step is 0, the past negative).
    The given periods (in steps) come first, then a log range of periods from `shortest` to `longest`
    fills the width. Returns [n, width]; ValueError when the width is odd.
    """
    if width % 2:
        raise ValueError(f"sine-cosine positions need an even width, got {width}")
    half = width // 2
    given = torch.tensor(list(periods)[:half], dtype=torch.float64)
    rest = torch.logspace(math.log10(shortest), math.log10(longest), half - len(given), dtype=torch.float64)
    frequencies = (1 / torch.cat([given, rest])).to(device=position.device, dtype=torch.float32)
    return periodic(position.float(), frequencies)


@dataclass
class Series(Modality):
    """Numbers in time -> one token a patch of one channel.

    patch: steps a token (also the stride). context: only the newest steps are used; 0 = all.
    normalise: by mean and std of the observed values (False = values are used as they are).
    centre: "mean", or "last" to count from the newest observed value, with or without `normalise`d units (NLinear,
    2205.13504: what comes is then told as a change, which holds where the level moves on).
    eps: added to the variance. periods, longest: of the positions, in steps (see `step_positions`).
    channels: > 0 gives each channel a learned vector, for several channels in one sequence.
    hidden: of the residual MLP; 0 = the encoder's width.

    >>> series = Series(patch=16)
    >>> series.span(series.read(np.arange(100.0))).length
    7
    """

    name: ClassVar[str] = "series"
    flagged: ClassVar[bool] = True
    raw: ClassVar[str] = "array, pandas or polars [t] or [t, channels], NaN = missing; .csv, .npy or .parquet path"
    count: ClassVar[str] = "ceil(min(t, context or t) / patch); of each channel, patches without any value left out"
    axes: ClassVar[int] = 1

    patch: int = 16
    context: int = 0
    normalise: bool = True
    eps: float = 1e-5
    periods: list[float] = field(default_factory=lambda: list(PERIODS))
    longest: float = LONGEST
    channels: int = 0
    hidden: int = 0
    centre: str = "mean"

    def __post_init__(self) -> None:
        self.periods = [float(p) for p in self.periods]
        if self.patch < 1 or min(self.context, self.channels, self.hidden) < 0 or self.eps <= 0:
            raise UserError("series: patch must be >= 1, eps > 0, and context, channels, hidden >= 0")
        if self.centre not in ("mean", "last"):
            raise UserError(f"series: centre={self.centre!r}; use mean or last")
        if any(p <= 0 for p in self.periods) or self.longest <= 0:
            raise UserError(f"series: periods {self.periods} and longest {self.longest} must be > 0 steps")

    def read(self, raw: Any) -> Float[Tensor, " t *channels"]:
        """-> float64 [t] or [t, channels], NaN = missing.

        Of a table, columns of dates are left out. UserError: unreadable, empty, infinite, not numbers,
        or a channel without any observed value.
        """
        array, what = load_array(raw)
        if array.ndim not in (1, 2) or array.size == 0:
            raise UserError(f"{what}: shape {array.shape}; expected at least one step: [t] or [t, channels]")
        if np.isinf(array).any():
            raise UserError(f"{what}: {int(np.isinf(array).sum())} infinite values; use NaN for missing ones")
        seen = ~np.isnan(array)
        if not seen.any(axis=0).all():
            where = "" if array.ndim == 1 else f" in channel {int(np.argmin(seen.any(axis=0)))}"
            raise UserError(f"{what}: every value{where} is missing; remove it")
        if np.nanmax(np.abs(array)) > 1e30:
            raise UserError(f"{what}: values up to {np.nanmax(np.abs(array)):.3g}; rescale them")
        return torch.from_numpy(np.array(array))

    def statistics(
        self, value: Float[Tensor, " t *channels"]
    ) -> tuple[Float[Tensor, "*channels"], Float[Tensor, "*channels"]]:
        """(mean, std) of the observed values in the context: [] each for [t], [channels] for [t, channels].

        De-normalise with y = z * std + mean. (0, 1) when `normalise` is off; with `centre` = "last" the newest observed
        value stands for the mean.
        """
        value = self._recent(value).double()
        centre = _last(value) if self.centre == "last" else torch.zeros_like(value[0])
        if not self.normalise:
            return centre, torch.ones_like(value[0])
        mean = value.nanmean(dim=0)
        std = ((value - mean).square().nanmean(dim=0) + self.eps).sqrt()
        return centre if self.centre == "last" else mean, std

    def span(self, value: Tensor, rng: torch.Generator | None = None, channel: int = 0) -> Span:
        """One channel [t] -> data {"patch": [n, 2 patch], "position": [n], "channel": [n]}.

        A patch holds the normalised values (0 where missing), then the mask (1 = observed). Padding is on
        the left, so that the newest value ends a patch. position: the patch's first step relative to the
        forecast origin. Patches without any value are masked out.
        """
        if value.ndim != 1:
            raise UserError(f"series: a span is one channel [t], got {tuple(value.shape)}; use spans for several")
        if self.channels and not 0 <= channel < self.channels:
            raise UserError(f"series: channel {channel} of {self.channels}; raise the setting channels")
        value = self._recent(value)
        mean, std = self.statistics(value)
        mask = ~value.isnan()
        if not mask.any():
            raise UserError("series: every value in the context is missing; lengthen the context")
        z = torch.where(mask, (value - mean) / std, 0.0).float()
        count = -(-len(value) // self.patch)
        pad = (count * self.patch - len(value), 0)
        z = nn.functional.pad(z, pad).view(count, self.patch)
        observed = nn.functional.pad(mask.float(), pad).view(count, self.patch)
        real = observed.any(dim=1)
        data = {
            "patch": torch.cat([z, observed], dim=1),
            "position": torch.arange(-count, 0, dtype=torch.float32) * self.patch,
            "channel": torch.full((count,), channel),
        }
        return Span(self.name, data, count, mask=None if bool(real.all()) else real, grid=(count,))

    def steady(self) -> tuple[str, ...]:
        return ("read", "statistics", "span")

    def spans(self, value: Float[Tensor, " t *channels"], rng: torch.Generator | None = None) -> list[Span]:
        """[t] or [t, channels] -> one span a channel."""
        if value.ndim == 1:
            return [self.span(value, rng)]
        return [self.span(column, rng, channel) for channel, column in enumerate(value.unbind(1))]

    def _recent(self, value: Tensor) -> Tensor:
        return value[-self.context :] if self.context else value

    def content(self) -> dict[str, float]:
        return {"patch": 0.0}

    def show(self, raw: Any) -> dict[str, Any]:
        value = self.read(raw)
        return {"kind": "series", "past": (value if value.ndim == 1 else value[:, 0]).tolist()}

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.numbers.examples import series

        return series()

    def build(self, width: int) -> SeriesTokens:
        return SeriesTokens(self, width)


class SeriesTokens(Tokenizer):
    """Residual MLP of [values, mask] + time (+ channel)."""

    def __init__(self, settings: Series, width: int) -> None:
        super().__init__()
        size, hidden = 2 * settings.patch, settings.hidden or width
        self.skip = nn.Linear(size, width)
        self.mlp = nn.Sequential(nn.Linear(size, hidden), nn.SiLU(), nn.Linear(hidden, width))
        self.channel = nn.Embedding(settings.channels, width) if settings.channels else None
        self.time = (settings.periods, 2.0 * settings.patch, settings.longest)

    def forward(self, data: dict[str, Tensor]) -> Float[Tensor, "N width"]:
        """{"patch": [N, 2 patch], "position": [N], "channel": [N]} -> [N, width]."""
        patch = taken(data["patch"], self.skip)
        x = self.skip(patch) + self.mlp(patch)
        x = x + step_positions(data["position"], x.shape[-1], *self.time).to(x.dtype)
        return x if self.channel is None else x + self.channel(data["channel"])


def _last(value: Float[Tensor, " t *channels"]) -> Float[Tensor, "*channels"]:
    """The newest observed value of every channel."""
    step = torch.arange(len(value)).view(-1, *[1] * (value.ndim - 1))
    newest = torch.where(value.isnan(), -1, step).amax(dim=0, keepdim=True).clamp(min=0)
    return value.gather(0, newest).squeeze(0)


def load_array(raw: Any, what: str = "series") -> tuple[np.ndarray, str]:
    """Array, pandas object or file -> (float64 array, name for errors); other sensors in time read by it too."""
    return load_numbers(raw, what, _load_file, lambda given, name: _numeric(given, name) if _is_frame(given) else given)


def _is_frame(raw: Any) -> bool:
    return acts_as(raw, "select_dtypes") or acts_as(raw, "to_pandas")


def _load_file(path: Path, what: str) -> Any:
    if path.suffix == ".npy":
        return arrays.load(path, what)
    if path.suffix == ".parquet":
        import pandas

        check_parquet(path)
        return pandas.read_parquet(path)
    if path.name.endswith((".csv", ".csv.gz")):
        import pandas

        check_lines(path)
        return pandas.read_csv(path)
    raise UserError(f"{what}: unknown file type {path.suffix!r}; use .csv, .npy or .parquet")


def _numeric(table: Any, what: str) -> Any:
    """A DataFrame without its date columns; a single column becomes [t]."""
    import pandas

    if acts_as(table, "to_pandas"):  # polars
        table = table.to_pandas()
        if table.ndim == 1:
            return table.to_numpy(dtype=np.float64, na_value=np.nan)
    keep = table.select_dtypes(include=["number", "bool"])
    for name in table.columns.difference(keep.columns):
        try:
            pandas.to_datetime(table[name])
        except (ValueError, TypeError) as error:
            raise UserError(f"{what}: column {name!r} is neither numbers nor dates; drop it or mend it") from error
    if keep.shape[1] == 0:
        raise UserError(f"{what}: no column of numbers")
    array = keep.to_numpy(dtype=np.float64, na_value=np.nan)
    return array[:, 0] if array.shape[1] == 1 else array
