"""Depth maps: distances in metres, near far more finely than far, missing depth marked as such.

Source: disparity input as in Omnivore (2201.08377) and ImageBind (2305.05665); clipped metres as in
LanguageBind (2310.01852). A pixel has two channels, [value, known]; patches without any depth are left out.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.base.foreign import is_picture
from generalist.data.batch.types import Span
from generalist.data.media.pictures import bounded, named, open_picture
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.base.raw import as_array
from generalist.tokenizers_mod.vision.image import Image


@dataclass
class Depth(Image):
    """Depth [H, W] -> patches of [value, known].

    near, far: metres; nearer and farther is clipped. inverse: value is disparity, 1 at `near` and 0 at `far`
    (False: linear, 0 at `near`, 1 at `far`). unit: metres a step of integer arrays and 16-bit pictures, which
    are millimetres by custom. 0, negative, NaN and infinite depths are missing.

    >>> depth = Depth(size=32, patch=8)
    >>> metres = np.full((32, 32), 2.5)
    >>> metres[:, :16] = np.nan  # no depth in the left half: its 8 patches are left out
    >>> int(depth.span(depth.read(metres)).mask.sum())
    8
    """

    name: ClassVar[str] = "depth"
    flagged: ClassVar[bool] = True
    raw: ClassVar[str] = "float array [H, W] in metres; integer array or 16-bit png in millimetres; 0 or NaN = missing"
    count: ClassVar[str] = (
        "max(1, round(size * H / max(H, W) / patch)) * max(1, round(size * W / max(H, W) / patch)); "
        "patches without any depth left out"
    )
    kind: ClassVar[str] = "vision"

    channels: int = 2
    near: float = 0.1
    far: float = 10.0
    inverse: bool = True
    unit: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels != 2:
            raise UserError(f"{self.name}: channels is {self.channels}; a depth map has two, [value, known]")
        if not 0 < self.near < self.far or self.unit <= 0:
            raise UserError(f"{self.name}: need 0 < near {self.near} < far {self.far} metres and unit > 0")

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.vision.examples import depth

        return depth()

    def read(self, raw: Any) -> Tensor:
        """-> float [2, H, W]: value in 0..1 (0 where missing), known 0 or 1.

        UserError: unreadable, not [H, W], no depth at all.
        """
        if isinstance(raw, str | os.PathLike) or is_picture(raw):
            raw = _picture(raw)
        array = as_array(raw, self.name)
        if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
            array = array[0] if array.shape[0] == 1 else array[..., 0]
        if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "iuf":
            raise UserError(f"{self.name}: {array.dtype} array of shape {array.shape}; expected depths [H, W]")
        metres = array.astype(np.float64) * (1.0 if array.dtype.kind == "f" else self.unit)
        known = np.isfinite(metres) & (metres > 0)
        if not known.any():
            raise UserError(f"{self.name}: every depth is missing (0, negative or NaN); remove the map")
        metres = np.where(known, metres, self.far).clip(self.near, self.far)
        if self.inverse:
            value = (1 / metres - 1 / self.far) / (1 / self.near - 1 / self.far)
        else:
            value = (metres - self.near) / (self.far - self.near)
        return torch.from_numpy(np.stack([value * known, known]).astype(np.float32))

    def steady(self) -> tuple[str, ...]:
        return super().steady()  # the patches left out are the picture's own

    def span(self, value: Tensor, rng: torch.Generator | None = None) -> Span:
        """[2, H, W] -> patches; `mask` leaves out those without any depth (unless no patch would stay)."""
        span = super().span(value, rng)
        size = span.data["patch"].shape[1] // 2
        # zero stands for missing, whatever the mean is
        real = (span.data["patch"][:, size:] * self.std + self.mean > 1e-6).any(dim=1)
        return span if bool(real.all()) or not bool(real.any()) else replace(span, mask=real)


def _picture(raw: Any) -> np.ndarray:
    """A 16-bit or 8-bit single-channel picture as an integer array, undistorted by PIL's conversions."""
    what = named(raw).replace("image", "depth", 1)
    try:
        picture = bounded(raw if is_picture(raw) else open_picture(raw, "depth"), what)
        array = np.asarray(picture)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what}: cannot be read ({error}); is it a picture and complete?") from error
    if array.ndim != 2:
        raise UserError(f"{what}: mode {picture.mode} is a colour picture, not a depth map; give one channel")
    return array
