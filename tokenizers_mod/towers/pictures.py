"""The picture tower: pixels as its library makes them, or frames of a clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from generalist.data.base.errors import UserError, nearest
from generalist.data.base.named import in_library
from generalist.tokenizers_mod.base.views import spread
from generalist.tokenizers_mod.towers.tower import Tower
from generalist.tokenizers_mod.vision.image import read_image
from generalist.tokenizers_mod.vision.video import Video

SHOWN = 96  # pixels a side that a report draws


@dataclass
class PictureTower(Tower):
    """Pictures through a tower of open_clip or transformers.

    processor: of open_clip {"size", "mean", "std", "interpolation", "resize_mode", "fill_color"}, of transformers what
    its image processor's `to_dict` gives.
    """

    name: ClassVar[str] = "image"
    raw: ClassVar[str] = "path, PIL image, array [H, W], [H, W, C] or [C, H, W], any mode and size"
    kind: ClassVar[str] = "vision"
    tensor_names: ClassVar[tuple[str, ...]] = ("pixel_values", "pixel_attention_mask", "spatial_shapes")

    def read(self, raw: Any) -> dict[str, Tensor]:
        return self.prepared([picture_of(read_image(raw, 3))])

    def prepared(self, pictures: list[Any]) -> dict[str, Tensor]:
        """PIL pictures of one sample -> its tensors, those of the first picture alone where there is one."""
        if self.library == "open_clip":
            return {"pixel_values": self.made(pictures[0])}
        found = self.made(pictures, return_tensors="pt")
        return {key: torch.as_tensor(value)[0] for key, value in found.items() if key in self.tensor_names}

    @property
    def made(self) -> Any:
        """The library's preprocessing, made at the first use."""
        if "_made" not in self.__dict__:
            made = open_clip_transform if self.library == "open_clip" else image_processor
            self.__dict__["_made"] = made(self.processor)
        return self.__dict__["_made"]

    def plain(self, raw: Any) -> Any:
        return {"pixels": read_image(raw, 3).numpy()}

    def show(self, raw: Any) -> dict[str, Any]:
        pixels = read_image(raw, 3).mean(0)
        factor = min(1.0, SHOWN / max(pixels.shape))
        sides = [max(1, round(side * factor)) for side in pixels.shape]
        return {"kind": "image", "pixels": interpolate(pixels[None, None], sides, mode="area")[0, 0].tolist()}


@dataclass
class ClipTower(PictureTower):
    """Clips through a video tower of transformers (X-CLIP): `frames` of them, evenly spread; a short one stands still.

    `processor` is of the library's image processor.
    """

    name: ClassVar[str] = "video"
    raw: ClassVar[str] = "clip [T, H, W, C] or [T, C, H, W], list of pictures, path (video needs av), or picture"
    tensor_names: ClassVar[tuple[str, ...]] = ("pixel_values_videos",)
    side = "video"

    frames: int = 8

    def read(self, raw: Any) -> dict[str, Tensor]:
        clip = Video(frames=self.frames).read(raw)
        places = spread(len(clip), self.frames)
        if len(places) < self.frames:
            places = [int(i) for i in np.linspace(0, len(clip) - 1, self.frames).round()]
        found = self.made([picture_of(clip[i]) for i in places], return_tensors="pt")
        return {"pixel_values_videos": torch.as_tensor(found["pixel_values"])}

    def plain(self, raw: Any) -> Any:
        return {"pixels": Video(frames=self.frames).read(raw)[0].numpy()}

    def show(self, raw: Any) -> dict[str, Any]:
        clip = Video(frames=self.frames).read(raw)
        return super().show(clip[len(clip) // 2].numpy())


def picture_of(pixels: Tensor) -> Any:
    """Float[3 H W] in 0..1 -> a PIL picture of 8 bits a colour."""
    from PIL import Image

    return Image.fromarray(pixels.mul(255).round().byte().permute(1, 2, 0).numpy())


def open_clip_transform(settings: dict[str, Any]) -> Any:
    """open_clip's preprocessing for evaluation: a PIL picture -> Float[3 H W]."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    return image_transform_v2(PreprocessCfg(**settings), is_train=False)


def image_processor(settings: dict[str, Any]) -> Any:
    """An image processor of transformers from its own settings. UserError where they name none of the library."""
    import transformers

    values = dict(settings)
    name = values.pop("image_processor_type", "")
    kind = in_library("transformers", name)
    if not (isinstance(kind, type) and issubclass(kind, transformers.image_processing_base.ImageProcessingMixin)):
        known = [n for n in dir(transformers) if "ImageProcessor" in n]
        raise UserError(f"image: transformers has no image processor {name!r}; {nearest(name, known)}")
    return kind(**values)
