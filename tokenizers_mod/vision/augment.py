"""Training augmentation of pictures and clips, a function of the sample's own generator (spec 1.14).

All take Float[T, C, H, W] in 0..1 and treat every frame of a clip alike.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from generalist.tokenizers_mod.vision.films.frames import Sides


@contextmanager
def seeded(rng: torch.Generator) -> Iterator[None]:
    """Libraries that draw from the global generators draw from `rng` inside; the global states come back after."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = int(torch.randint(2**31, (1,), generator=rng))
    random.seed(seed)
    np.random.seed(seed)
    torch.random.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def mirrors(rng: torch.Generator | None) -> bool:
    """Whether a picture is mirrored this time: half of the time in training, never outside it."""
    return rng is not None and float(torch.rand(1, generator=rng)) < 0.5


def crop_and_flip(value: Tensor, sides: Sides, flip: float, rng: torch.Generator) -> Tensor:
    """A random height x width crop, mirrored with probability `flip`."""
    spare = (have - side for have, side in zip(value.shape[-2:], sides, strict=True))
    top, left = (int(torch.randint(s + 1, (1,), generator=rng)) for s in spare)
    value = value[..., top : top + sides[0], left : left + sides[1]]
    return value.flip(-1) if float(torch.rand(1, generator=rng)) < flip else value


def strong(value: Tensor, sides: Sides, flip: float, rng: torch.Generator) -> Tensor:
    """Random resized crop, flip, RandAugment (magnitude 9, std 0.5, increasing) and random erasing 0.25 by pixels."""
    from PIL import Image
    from timm.data.auto_augment import rand_augment_transform
    from timm.data.random_erasing import RandomErasing
    from torchvision.transforms import RandomResizedCrop

    with seeded(rng):
        aspect = sides[1] / sides[0]
        ratio = [aspect * 3 / 4, aspect * 4 / 3]
        top, left, height, width = RandomResizedCrop.get_params(value, scale=[0.08, 1.0], ratio=ratio)
        value = value[..., top : top + height, left : left + width]
        value = interpolate(value, sides, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        if random.random() < flip:
            value = value.flip(-1)
        if value.shape[1] == 3:
            change = rand_augment_transform("rand-m9-mstd0.5-inc1", {"translate_const": int(min(sides) * 0.45)})
            choice = random.getrandbits(32)
            frames = []
            for frame in value:
                random.seed(choice)  # the same operations on every frame
                np.random.seed(choice)
                picture = Image.fromarray((frame.permute(1, 2, 0) * 255).round().byte().numpy())
                frames.append(torch.from_numpy(np.array(change(picture))).permute(2, 0, 1).float() / 255)
            value = torch.stack(frames)
        flat = value.reshape(1, -1, *value.shape[-2:]).clone()
        return RandomErasing(0.25, mode="pixel", device="cpu")(flat).reshape(value.shape)
