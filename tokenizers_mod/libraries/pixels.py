"""Pictures as a library's own preprocessing makes them: its resize, crop, mean and standard deviation, to the bit.

A description is JSON, read from the library or its folder once and kept with the model:

    {"library": "timm", "size", "interpolation", "mean", "std", "crop_pct", "crop_mode"}    of its create_transform
    {"library": "open_clip", "size", "mean", "std", "interpolation", "resize_mode", ...}    of its image_transform
    {"library": "transformers", "processor": class, "size", "settings"}                     of its image processor
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from generalist.data.base.errors import UserError
from generalist.data.base.named import in_library

PLAIN: dict[str, Any] = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def transform(pixels: dict[str, Any], size: tuple[int, int]) -> Callable[[Image.Image], Tensor]:
    """A PIL picture in RGB -> Float[3 H W], as the library prepares it for pictures of this size."""
    library, settings = pixels["library"], {k: v for k, v in pixels.items() if k not in ("library", "size")}
    if library == "timm":
        from timm.data import create_transform

        return create_transform((3, *size), is_training=False, **settings)
    if library == "open_clip":
        from open_clip.transform import PreprocessCfg, image_transform_v2

        side = size[0] if size[0] == size[1] else size
        return image_transform_v2(PreprocessCfg(size=side, **settings), is_train=False)
    return _processor(pixels["processor"], pixels["settings"], size)


def _processor(name: str, settings: dict[str, Any], size: tuple[int, int]) -> Callable[[Image.Image], Tensor]:
    kind = in_library("transformers", name)
    if kind is None:
        raise UserError(f"backbone: this version of transformers has no {name}; update transformers")
    square = {"height": size[0], "width": size[1]}
    shortest = {"size": {"shortest_edge": min(size)}, "crop_size": square}
    # its own sizes, or those asked for in the words that it knows
    for own in ({}, {"size": square}, shortest):
        made = partial(_made, kind(**{**settings, **own}))
        if tuple(made(Image.new("RGB", (size[1], 2 * size[0]))).shape[1:]) == size:
            return made
    raise UserError(f"backbone: {name} makes no pictures of {size[0]} x {size[1]}; leave size out")


def _made(processor: Any, picture: Image.Image) -> Tensor:
    return processor(images=picture, return_tensors="pt")["pixel_values"][0]


def processor_settings(folder: str) -> dict[str, Any] | None:
    """The image processor of a transformers folder, with the size of what it makes; None where it has none."""
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(folder)
    except (OSError, ValueError, KeyError):
        return None
    kept = json.loads(processor.to_json_string())
    valid = {k: v for k, v in kept.items() if v is not None and k not in ("image_processor_type", "processor_class")}
    size = list(_made(processor, Image.new("RGB", (64, 64))).shape[1:])
    return {"library": "transformers", "processor": type(processor).__name__, "size": size, "settings": valid}


def as_picture(value: Tensor) -> Image.Image:
    """Float[3 H W] in 0..1 -> a PIL picture of 8 bits, exact where it came from 8 bits."""
    array = value.mul(255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(array))


def free_size(value: Tensor, pixels: dict[str, Any], longest: int, stride: int) -> Tensor:
    """The picture with its aspect, its longer side `longest`, both sides multiples of stride: Float[3 H W]."""
    h, w = value.shape[-2:]
    target = [max(1, round(longest * side / max(h, w) / stride)) * stride for side in (h, w)]
    own = {**PLAIN, **pixels, **{k: v for k in PLAIN if (v := pixels.get("settings", {}).get(f"image_{k}"))}}
    mean, std = (torch.tensor(own[k]).view(3, 1, 1) for k in PLAIN)
    if [h, w] != target:
        value = interpolate(value[None], target, mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 1)
    return (value - mean) / std
