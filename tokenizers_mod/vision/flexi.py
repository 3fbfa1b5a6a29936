"""Images with any patch size, resolution and share of tokens through one patch kernel.

Source: FlexiViT (2212.08013) section 3.4: a kernel w for patches of side p becomes pinv(B^T) w for patches of side
q, where B resizes p to q, so that tokens of a resized picture stay the same. <x, pinv(B^T) w> = <pinv(B) x, w>: here
the patches are brought to the kernel, so that one batch may mix all sizes. NaViT (2307.06304) section 2: every
picture keeps its aspect and draws its own resolution and its own tokens; positions are fractions of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from generalist.data.base.constants import constant
from generalist.data.base.errors import UserError
from generalist.data.batch.types import Span
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.vision.image import Image


@constant(64)
def patch_resampling(side: int, kernel: int) -> Tensor:
    """pinv(B) [kernel^2, side^2] of the bilinear resize B from kernel x kernel to side x side pixels."""
    basis = torch.eye(kernel * kernel).view(-1, 1, kernel, kernel)
    resized = interpolate(basis, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return torch.linalg.pinv(resized.view(kernel * kernel, side * side).T.double()).float()


@dataclass
class FlexiImage(Image):
    """`Image` whose patch size and resolution are chosen for each picture.

    patch: the kernel's own side. side: patch size outside training, 0 = patch. sides: drawn from in training.
    size: longer side outside training. sizes: drawn from in training. drop: share of tokens left out in training.

    >>> image = FlexiImage(size=32, patch=8, side=4)  # another side through the same kernel
    >>> image.span(image.read(torch.zeros(20, 40))).grid
    (4, 8)
    """

    count: ClassVar[str] = "as image; with the chosen side and size, in training 1 - drop of them"

    side: int = 0
    sides: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    drop: float = 0.0

    # its tokens are not whole patches of a picture of one scale: the padded form is that of tokens
    tensor_names: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if min([self.side + 1, *self.sides, *self.sizes]) < 1 or not 0 <= self.drop < 1:
            raise UserError(f"{self.name}: side, sides and sizes must be positive and drop in [0, 1)")

    def span(self, value: Tensor, rng: torch.Generator | None = None) -> Span:
        """[C, H, W] in 0..1 -> {"patch": [n, C patch patch], "position": [n, 2]}, in units of `patch` at `size`."""
        side, size = self.side or self.patch, self.size
        if rng is not None and self.sides:
            side = self.sides[int(torch.randint(len(self.sides), (), generator=rng))]
        if rng is not None and self.sizes:
            size = self.sizes[int(torch.randint(len(self.sizes), (), generator=rng))]
        plain = Image(size=-(-size // side) * side, patch=side, channels=self.channels, mean=self.mean, std=self.std)
        plain.shift = self.shift
        span = plain.span(value, rng)
        patch = span.data["patch"].view(span.length, self.channels, side * side)
        if side != self.patch:
            patch = patch @ patch_resampling(side, self.patch).T
        # the middle of a patch stays where it is in the picture, whatever its side and the picture's resolution
        ratio = side / self.patch * self.size / plain.size
        position = (span.data["position"] + 0.5) * ratio - 0.5
        keep, grid = torch.arange(span.length), span.grid
        if rng is not None and self.drop:
            keep = (
                torch.randperm(span.length, generator=rng)[: max(1, round(span.length * (1 - self.drop)))].sort().values
            )
            grid = None
        data = {"patch": patch.flatten(1)[keep], "position": position[keep]}
        return replace(span, modality=self.name, data=data, length=len(keep), grid=grid)

    def tensors(self, values: list[Any]) -> dict[str, Tensor]:
        return Modality.tensors(self, values)

    def padded_place(self, tensors: dict[str, Tensor], real: Tensor | None) -> Tensor | None:
        return Modality.padded_place(self, tensors, real)

    def padded(self, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None]:
        return Modality.padded(self, tensors)
