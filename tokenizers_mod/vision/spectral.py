"""Multi- and hyperspectral cubes: one token a spatial patch and a group of neighbouring bands.

Source: SpectralFormer (2107.02988) section III-B, groups of neighbouring bands of a pixel's window; SatMAE
(2207.08051) section 3.3, patches x band groups of a whole scene. A window that is one patch gives the first,
a larger cube the second. Every token also says which of its values were measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.data.base.files import check_regular
from generalist.data.batch.types import Span
from generalist.data.media import arrays
from generalist.data.media.arrays import check_claims
from generalist.tokenizers_mod.base.base import Modality, sincos
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.base.raw import as_numbers
from generalist.tokenizers_mod.base.tokenizer import Tokenizer, taken

LARGEST = 1e4  # standardised values are cut here


def pixel_window(cube: Float[np.ndarray, "H W bands"], row: int, column: int, size: int) -> Float[np.ndarray, "p p b"]:
    """The size x size neighbourhood of a pixel, the border mirrored with its edge: [size, size, bands].

    size: odd. Source: SpectralFormer's released code (numpy's "symmetric" padding).
    """
    half = size // 2
    padded = np.pad(cube, ((half, half), (half, half), (0, 0)), mode="symmetric")
    return padded[row : row + size, column : column + size]


def band_groups(bands: int, group: int, stride: int, cyclic: bool) -> tuple[Tensor, Tensor]:
    """Which bands a token holds: indices Int[G, group] and Bool[G, group], False beyond the last band.

    cyclic: group g is centred on band g * stride and runs around the ends (SpectralFormer); else it starts
    there, and the last group may be incomplete.
    """
    starts = torch.arange(0, bands if cyclic else max(bands - group + stride, 1), stride)
    index = starts.unsqueeze(1) + torch.arange(group) - (group // 2 if cyclic else 0)
    if cyclic:
        return index % bands, torch.ones_like(index, dtype=torch.bool)
    return index.clamp(max=bands - 1), index < bands


def turned(value: Float[Tensor, "H W bands"], turn: list[int]) -> Tensor:
    """One of the eight forms of a cube seen from above: mirrored along rows, along columns, then transposed."""
    axes = [axis for axis in (0, 1) if turn[axis]]
    value = value.flip(axes) if axes else value
    return value.transpose(0, 1) if turn[2] else value


@dataclass
class Spectral(Modality):
    """A cube [H, W, bands] -> one token a spatial patch and band group.

    bands: how many the sensor has. patch: pixels of a patch's side; incomplete patches are filled up with
    missing pixels. group, stride: bands a token holds, and from one group to the next (0 = group). cyclic: groups
    are centred and run around the ends (SpectralFormer). wavelengths: one a band, in nm, for positions; empty =
    the band's number. mean, std: of every band, learnt from training cubes where empty.
    flip: mirror and transpose at random in training. views: evaluation looks at so many of the eight mirrored and
    transposed forms and averages their probabilities (`generalist.tokenizers_mod.base.views`): what is learnt from
    above has no up.
    hidden: units of a GELU layer before the linear map, 0 = none: of few values, what tells is how they compare.

    >>> spectral = Spectral(bands=10, patch=3, group=4)
    >>> spectral.span(spectral.read(np.ones((7, 6, 10)))).grid  # 3 band groups of 3 x 2 patches
    (3, 3, 2)
    """

    name: ClassVar[str] = "spectral"
    axes: ClassVar[int] = 3
    flagged: ClassVar[bool] = True
    raw: ClassVar[str] = "array [H, W, bands], NaN = missing; (cube, row, column) for a pixel; .npy or .mat path"
    count: ClassVar[str] = (
        "ceil(H / patch) * ceil(W / patch) * ceil((bands - (0 if cyclic else group - (stride or group))) / "
        "(stride or group)); tokens without any measured value left out; a pixel is its patch x patch window"
    )
    kind: ClassVar[str] = "vision"

    bands: int = 4
    patch: int = 3
    group: int = 1
    stride: int = 0
    cyclic: bool = False
    wavelengths: list[float] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    flip: bool = False
    views: int = 1
    hidden: int = 0

    def __post_init__(self) -> None:
        if min(self.bands, self.patch, self.group) < 1 or self.stride < 0 or self.group > self.bands:
            raise UserError(
                f"{self.name}: need patch >= 1, stride >= 0 and 1 <= group {self.group} <= bands {self.bands}"
            )
        if self.hidden < 0 or not 1 <= self.views <= 8:
            raise UserError(f"{self.name}: need hidden {self.hidden} >= 0 and views {self.views} in 1..8")
        for key in ("wavelengths", "mean", "std"):
            if len(vars(self)[key]) not in (0, self.bands):
                raise UserError(f"{self.name}: {key} has {len(vars(self)[key])} values for {self.bands} bands")
        if any(s <= 0 for s in self.std) or any(w <= 0 for w in self.wavelengths):
            raise UserError(f"{self.name}: std and wavelengths must be > 0")

    def learnable(self, raw: Any) -> None:
        self._cube(raw)

    def learn_rows(self, name: str, rows: list[Any]) -> None:
        """Mean and standard deviation of every band from training cubes; kept where they are set."""
        if self.mean and self.std:
            return
        pixels = np.concatenate([self._cube(row)[0].reshape(-1, self.bands) for row in rows])
        self.mean = [float(m) for m in np.nan_to_num(np.nanmean(pixels, axis=0))]
        self.std = [float(s) if s > 1e-9 else 1.0 for s in np.nan_to_num(np.nanstd(pixels, axis=0))]

    def read(self, raw: Any) -> Float[Tensor, "H W bands"]:
        """-> float32 [H, W, bands] standardised, NaN = missing.

        A pixel (cube, row, column) gives its patch x patch window, mirrored at the border. UserError:
        unreadable, empty, infinite, wrong number of bands, a pixel outside, nothing measured.
        """
        array, what = self._cube(raw)
        if np.isinf(array).any():
            raise UserError(f"{what}: {int(np.isinf(array).sum())} infinite values; use NaN for missing ones")
        if np.isnan(array).all():
            raise UserError(f"{what}: every value is missing; remove the cube")
        if self.mean:
            array = (array - np.array(self.mean)) / np.array(self.std or [1.0] * self.bands)
        return torch.from_numpy(array.clip(-LARGEST, LARGEST).astype(np.float32))

    def _cube(self, raw: Any) -> tuple[np.ndarray, str]:
        """Checked float64 [H, W, bands] in the sensor's units, and its name for errors."""
        pixel = None
        if (
            isinstance(raw, tuple)
            and len(raw) == 3
            and np.ndim(raw[1]) == np.ndim(raw[2]) == 0
            and np.ndim(raw[0]) != 1
        ):
            raw, *pixel = raw
        what = self.name
        if isinstance(raw, str | Path):
            what = f"{self.name} {raw}"
            raw = _load(Path(raw), what)
        array = as_numbers(raw, what)
        if array.ndim == 1:  # the spectrum of one pixel
            array = array[None, None]
        if array.ndim != 3 or array.shape[2] != self.bands or array.size == 0:
            raise UserError(f"{what}: shape {array.shape}; expected [H, W, {self.bands}], bands last")
        if pixel is not None:
            row, column = (int(p) for p in pixel)
            if not (0 <= row < array.shape[0] and 0 <= column < array.shape[1]):
                raise UserError(f"{what}: pixel ({row}, {column}) is outside the cube of {array.shape[:2]}")
            if self.patch % 2 == 0 and self.patch > 1:
                raise UserError(f"{what}: a pixel's window needs an odd patch, got {self.patch}")
            array = pixel_window(array, row, column, self.patch)
        return array, what

    def span(self, value: Float[Tensor, "H W bands"], rng: torch.Generator | None = None) -> Span:
        """-> data {"patch": [n, 2 group p p], "position": [n, 3] (wavelength or band, row, column)}, grid (G, h, w).

        A token holds its bands one after the other, each row by row; then, in the same order, which were measured.
        """
        if rng is not None and self.flip:
            value = turned(value, torch.randint(2, (3,), generator=rng).tolist())
        elif rng is None and self.view is not None:
            value = turned(value, [self.view >> bit & 1 for bit in range(3)])
        p = self.patch
        height, width = value.shape[:2]
        h, w = -(-height // p), -(-width // p)
        value = nn.functional.pad(value, (0, 0, 0, w * p - width, 0, h * p - height), value=float("nan"))
        index, inside = band_groups(self.bands, self.group, self.stride or self.group, self.cyclic)
        chosen = value[..., index]  # [h p, w p, G, group]
        chosen = torch.where(inside, chosen, float("nan"))
        groups = len(index)
        chosen = chosen.view(h, p, w, p, groups, self.group).permute(4, 0, 2, 5, 1, 3).reshape(groups * h * w, -1)
        seen = ~chosen.isnan()
        real = seen.any(dim=1)
        place = torch.cartesian_prod(torch.arange(groups), torch.arange(h), torch.arange(w)).view(-1, 3).float()
        # a group's place is the middle of its measured bands: band numbers, or 20 nm steps where wavelengths are known
        scale = torch.tensor(self.wavelengths) / 20 if self.wavelengths else torch.arange(self.bands).float()
        first = index if not self.cyclic else index[:, self.group // 2, None]
        middle = scale[first].mean(dim=1)
        place[:, 0] = middle[place[:, 0].long()]
        data = {"patch": torch.cat([chosen.nan_to_num(), seen.float()], dim=1), "position": place}
        return Span(self.name, data, len(place), mask=None if bool(real.all()) else real, grid=(groups, h, w))

    def steady(self) -> tuple[str, ...]:
        return ("read",) if self.flip or self.views > 1 else ("read", "span")

    def content(self) -> dict[str, float]:
        return {"patch": 0.0}

    def show(self, raw: Any) -> dict[str, Any]:
        """The middle band as a grey picture."""
        image = self.read(raw)[..., self.bands // 2].nan_to_num()
        low, high = image.min(), image.max()
        return {"kind": "image", "pixels": ((image - low) / (high - low).clamp(min=1e-6)).tolist()}

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.vision.examples import spectral

        return spectral()

    def build(self, width: int) -> nn.Module:
        return SpectralTokens(self.group * self.patch**2, width, self.hidden)


class SpectralTokens(Tokenizer):
    """Linear of [values, measured], or of a hidden layer of them, + sine-cosine of the band and, at half the band's
    width, of the place.
    """

    def __init__(self, values: int, width: int, hidden: int = 0) -> None:
        super().__init__()
        if width % 4:
            raise UserError(f"spectral: width {width} is not a multiple of 4, which its positions need")
        self.hidden = nn.Sequential(nn.Linear(2 * values, hidden), nn.GELU()) if hidden else nn.Identity()
        self.project = nn.Linear(hidden or 2 * values, width)
        self.position = nn.Linear(2 * width, width, bias=False)
        nn.init.normal_(self.position.weight, std=0.5 / width**0.5)

    def forward(self, data: dict[str, Tensor]) -> Float[Tensor, "N width"]:
        """{"patch": [N, 2 values], "position": [N, 3]} -> [N, width]."""
        width = self.project.out_features
        band, row, column = data["position"].unbind(1)
        place = torch.cat([sincos(band, width), sincos(row, width // 2), sincos(column, width // 2)], dim=-1)
        patch = self.project(self.hidden(taken(data["patch"], self.project)))
        return patch + self.position(taken(place, self.position))


def _load(path: Path, what: str) -> Any:
    check_regular(path, what)
    try:
        if path.suffix == ".npy":
            return arrays.load(path, what)
        if path.suffix == ".mat":
            from scipy.io import loadmat, whosmat

            check_claims([shape for _, shape, _ in whosmat(path)], what)
            cubes = {k: v for k, v in loadmat(path).items() if not k.startswith("__") and np.ndim(v) == 3}
            if len(cubes) != 1:
                raise UserError(f"{what}: {len(cubes)} three-dimensional arrays {list(cubes)}; pass the cube itself")
            return next(iter(cubes.values()))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what}: not readable as {path.suffix} ({str(error).splitlines()[0]})") from error
    raise UserError(f"{what}: unknown file type {path.suffix!r}; use .npy or .mat")
