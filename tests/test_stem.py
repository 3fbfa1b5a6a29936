"""Convolutional stems inside patches, and clips without what stands still."""

import numpy as np
import pytest
import torch

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.vision.image import Image
from generalist.tokenizers_mod.vision.stem import ConvStem
from generalist.tokenizers_mod.vision.video import Video


@pytest.mark.parametrize("patch", [1, 3, 5, 7, 16, 48])
def test_a_stem_keeps_the_scale_of_its_patches(patch):
    torch.manual_seed(0)
    tokens = ConvStem(3, patch, 10, 24)(torch.randn(200, 3 * patch * patch)).detach()
    assert tokens.shape == (200, 24)
    assert 0.3 < float(tokens.std()) < 3


def test_a_patch_is_read_as_a_picture_of_its_own():
    image = Image(size=14, patch=7, channels=2, stem=5)
    tokens, stem = image.build(8), image.build(8).projection
    picture = torch.rand(2, 14, 14)
    data = image.span(picture).data
    tokens.projection = stem
    with torch.no_grad():
        tokens.position.weight.zero_()
    alone = stem(((picture[:, 7:, :7] - 0.5) / 0.5).reshape(1, -1))
    torch.testing.assert_close(tokens(data)[2:3], alone)


def test_a_negative_stem_is_refused():
    with pytest.raises(UserError, match="stem"):
        Image(stem=-1)
    with pytest.raises(UserError, match="stem"):
        Video(stem=-1)


def test_what_does_not_move_vanishes_from_a_moving_clip():
    rng = np.random.default_rng(0)
    scene = rng.random((12, 12, 3))
    clip = np.repeat(scene[None], 5, axis=0)
    clip[3, 2:4, 2:4] = 1 - clip[3, 2:4, 2:4]  # something shows up for one frame
    video = Video(size=12, patch=6, frames=5, moving=True, stem=4)
    patch = video.span(video.read(clip)).data["patch"].view(5, 2, 2, -1)
    moved = patch.abs().amax(-1) > 1e-5
    assert moved[3, 0, 0] and int(moved.sum()) == 1
    still = video.span(video.read(scene))
    assert float(still.data["patch"].abs().max()) > 0.1  # a picture stays as it is


def test_stems_of_clips_see_every_frame_of_a_tubelet():
    video = Video(size=6, patch=6, frames=6, tubelet=3, stem=4)
    tokens = video.build(8)
    clip = torch.rand(6, 3, 6, 6)
    changed = clip.clone()
    changed[5] = 0
    a, b = tokens(video.patches(clip).data), tokens(video.patches(changed).data)
    assert a.shape == (2, 8) and torch.equal(a[0], b[0]) and not torch.allclose(a[1], b[1])
