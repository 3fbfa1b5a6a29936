"""One patch kernel for all patch sizes: the published resize, sizes mixed in a batch, tokens left out."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.tokenizers_mod.vision.flexi import FlexiImage, patch_resampling
from generalist.tokenizers_mod.vision.image import Image


def picture(h=24, w=40):
    return np.random.default_rng(0).random((h, w))


def test_the_kernels_own_patch_size_is_the_plain_image():
    raw, settings = picture(), {"size": 32, "patch": 8}
    plain, flexi = Image(**settings), FlexiImage(**settings)
    a, b = plain.span(plain.read(raw)), flexi.span(flexi.read(raw))
    torch.testing.assert_close(a.data["patch"], b.data["patch"])
    torch.testing.assert_close(a.data["position"].float(), b.data["position"])
    assert a.grid == b.grid


def test_tokens_equal_those_of_the_published_resized_kernel():
    from timm.layers.patch_embed import resample_patch_embed

    kernel = torch.randn(5, 1, 6, 6)
    resized = resample_patch_embed(kernel, [9, 9], interpolation="bilinear", antialias=True)
    flexi = FlexiImage(size=36, patch=6, side=9, channels=1, mean=0.0, std=1.0)
    raw = picture(36, 27)
    span = flexi.span(flexi.read(raw))
    expected = torch.nn.functional.conv2d(torch.from_numpy(raw).float()[None, None], resized, stride=9)
    torch.testing.assert_close(span.data["patch"] @ kernel.flatten(1).T, expected.flatten(2)[0].T, atol=1e-4, rtol=1e-4)


def test_an_upsampled_picture_has_the_same_patches():
    raw = torch.rand(1, 1, 6, 6)
    large = interpolate(raw, (9, 9), mode="bilinear", antialias=True, align_corners=False)
    back = patch_resampling(9, 6) @ large.flatten()
    torch.testing.assert_close(back, raw.flatten(), atol=1e-4, rtol=0)


def test_positions_are_places_in_the_picture_whatever_the_side_and_resolution():
    raw = picture(32, 32)
    for side, size in ((8, 32), (4, 32), (16, 32), (8, 64)):
        flexi = FlexiImage(size=32, patch=8, side=side)
        flexi.sizes, flexi.sides = [size], [side]
        where = flexi.span(flexi.read(raw), torch.Generator()).data["position"]
        assert where.mean().item() == pytest.approx(1.5)  # the middle of 4 x 4 patches of side 8
        assert len(where) == (size // side) ** 2


def test_training_draws_sides_sizes_and_tokens_and_one_batch_mixes_them():
    flexi = FlexiImage(size=32, patch=8, sides=[4, 8, 16], sizes=[16, 32], drop=0.5)
    value = flexi.read(picture())
    rng = torch.Generator().manual_seed(0)
    spans = [flexi.span(value, rng) for _ in range(16)]
    assert {s.length for s in spans} == {1, 4, 20}
    packed = pack([[s.ask([0])] for s in spans])
    assert flexi.build(8)(packed.data["image"]).isfinite().all()
    assert flexi.span(value).length == 8


def test_settings_that_cannot_work_are_refused():
    for bad in ({"drop": 1.0}, {"sides": [0]}, {"side": -1}):
        with pytest.raises(UserError, match="image"):
            FlexiImage(**bad)
    assert FlexiImage.from_settings(FlexiImage(sides=[4]).settings()) == FlexiImage(sides=[4])
