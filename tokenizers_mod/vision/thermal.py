"""Infrared and thermal pictures: temperatures on a fixed scale, so that equal heat looks equal everywhere.

Source: ImageBind's thermal trunk (2305.05665): one channel, 16 x 16 patches. Radiometric counts are linear in
temperature (FLIR's "TLinear": 0.01 K or 0.04 K a count).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.base.foreign import is_picture
from generalist.tokenizers_mod.base.base import check_finite
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.base.raw import as_array
from generalist.tokenizers_mod.vision.image import Image


@dataclass
class Thermal(Image):
    """Infrared pictures -> patches, as `Image` with one channel.

    low, high: degrees that become 0 and 1; outside is clipped. kelvin: floating-point arrays are in Kelvin.
    count: Kelvin a count of 16-bit radiometric arrays (0.01 or 0.04), 0 = they are plain 16-bit pictures.
    8-bit pictures and files have lost their temperature and are taken as grey levels 0..1.

    >>> thermal = Thermal(size=32, patch=8, low=0.0, high=100.0)
    >>> warm = thermal.read(np.full((20, 40), 37.0))  # degrees
    >>> round(float(warm.mean()), 2), thermal.span(warm).length
    (0.37, 8)
    """

    name: ClassVar[str] = "thermal"
    raw: ClassVar[str] = "path or PIL image (grey levels), float array [H, W] in degrees, 16-bit radiometric array"
    kind: ClassVar[str] = "vision"

    channels: int = 1
    low: float = -20.0
    high: float = 120.0
    kelvin: bool = False
    count_kelvin: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.low < self.high or self.count_kelvin < 0:
            raise UserError(f"{self.name}: low {self.low} must be below high {self.high}, count_kelvin at least 0")

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.vision.examples import thermal

        return thermal()

    def read(self, raw: Any) -> Tensor:
        """-> float [channels, H, W] in 0..1. UserError: empty, NaN, not a picture."""
        is_array = not (isinstance(raw, str | bytes | os.PathLike) or is_picture(raw))
        array = as_array(raw, self.name) if is_array else None
        if array is None or array.dtype.kind not in "iuf" or array.ndim not in (2, 3) or array.size == 0:
            return super().read(raw)
        radiometric = self.count_kelvin > 0 and array.dtype == np.uint16
        if array.dtype.kind != "f" and not radiometric:
            return super().read(raw)
        check_finite(array, self.name)
        if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
            array = array[0] if array.shape[0] == 1 else array[..., 0]
        if array.ndim != 2:
            raise UserError(f"{self.name}: temperatures of shape {array.shape}; expected one channel [H, W]")
        degrees = array.astype(np.float64) * (self.count_kelvin if radiometric else 1)
        if radiometric or self.kelvin:
            degrees = degrees - 273.15
        unit = ((degrees / 2 - self.low / 2) / (self.high / 2 - self.low / 2)).clip(0, 1)
        return torch.from_numpy(unit.astype(np.float32))[None].expand(self.channels, -1, -1)
