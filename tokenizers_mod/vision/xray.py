"""X-ray pictures: one grey channel, any bit depth, windowed, inverted where the file says so.

Source: grey patches as any image (2010.11929); the window is DICOM's own (PS3.3 C.11.2.1.2, linear exact),
percentiles where no window is known. `spec/meta-transformer.md` 2.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
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

LARGEST = 3e38  # what float32 holds


@dataclass
class XRay(Image):
    """Radiographs -> patches, as `Image` with one channel.

    window: [centre, width] in the file's own units, or none: arrays of more than 8 bits then run from
        their `clip` to their 1 - `clip` quantile. clip: share of darkest and of brightest pixels cut.
    invert: dark = dense in the input (DICOM's MONOCHROME1); DICOM files say so themselves.

    >>> xray = XRay(size=32, patch=8)
    >>> deep = xray.read(np.arange(1200, dtype=np.uint16).reshape(30, 40))  # more than 8 bits: windowed
    >>> float(deep.min()), float(deep.max()), xray.span(deep).length
    (0.0, 1.0, 12)
    """

    name: ClassVar[str] = "xray"
    raw: ClassVar[str] = "path, PIL image or array [H, W] of any bit depth; .dcm through pydicom"
    kind: ClassVar[str] = "vision"

    channels: int = 1
    window: list[float] | None = None
    clip: float = 0.005
    invert: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window is not None and (len(self.window) != 2 or self.window[1] <= 0):
            raise UserError(f"{self.name}: window {self.window}; give [centre, width] with width > 0")
        if not 0 <= self.clip < 0.5:
            raise UserError(f"{self.name}: clip {self.clip} must lie in [0, .5)")

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.vision.examples import xray

        return xray()

    def read(self, raw: Any) -> Tensor:
        """-> float [1, H, W] in 0..1, bright = dense. UserError: empty, NaN, not a picture, truncated."""
        invert, window = self.invert, self.window
        if isinstance(raw, str | Path) and str(raw).lower().endswith(".dcm"):
            raw, invert, window = _dicom(raw, invert, window)
        deep = self._deep(raw)
        if deep is None:
            image = super().read(raw)
        else:
            image = self._windowed(deep, window)
        if image.shape[0] != self.channels:
            image = image.expand(self.channels, -1, -1)
        return 1 - image if invert else image

    def _deep(self, raw: Any) -> Tensor | None:
        """Arrays [H, W] of more than 8 bits, in their own units; None where 0..1 or 8 bits need no window."""
        if isinstance(raw, str | Path) or is_picture(raw):
            return None
        array = as_array(raw, self.name)
        if array.ndim != 2 or array.dtype.kind not in "iuf" or array.size == 0 or array.dtype == np.uint8:
            return None
        check_finite(array, self.name)
        unit = array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1
        if unit and self.window is None:
            return None
        return torch.from_numpy(array.clip(-LARGEST, LARGEST).astype(np.float32))

    def _windowed(self, image: Tensor, window: list[float] | None) -> Tensor:
        if window is None:
            flat = image.flatten().sort().values
            low, high = (flat[int(q * (len(flat) - 1))] for q in (self.clip, 1 - self.clip))
        else:
            low, high = (torch.tensor(window[0] + s * window[1] / 2) for s in (-1, 1))
        if high <= low:  # one grey value
            return torch.full_like(image, 0.5)[None]
        # halved, so that the range of two huge numbers stays finite
        return ((image / 2 - low / 2) / (high / 2 - low / 2)).clamp(0, 1)[None]


def _dicom(path: Any, invert: bool, window: list[float] | None) -> tuple[np.ndarray, bool, list[float] | None]:
    """Pixels in modality units, whether MONOCHROME1, and the file's own window where none was set."""
    try:
        import pydicom
    except ImportError as error:
        raise UserError(f"xray {path}: DICOM files need pydicom; pip install 'generalist-encoder[dicom]'") from error
    try:
        found = pydicom.dcmread(path)
        pixels = found.pixel_array.astype(np.float32)
    except Exception as error:
        raise UserError(f"xray {path}: cannot be read ({error}); is it DICOM and complete?") from error
    pixels = pixels * float(found.get("RescaleSlope", 1)) + float(found.get("RescaleIntercept", 0))
    invert = invert != (found.get("PhotometricInterpretation", "") == "MONOCHROME1")
    centre, width = (np.ravel(found.get(key, [])) for key in ("WindowCenter", "WindowWidth"))
    if window is None and len(centre) and len(width):
        window = [float(centre[0]), float(width[0])]
    return pixels, invert, window
