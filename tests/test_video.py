"""Tubelets: a token is a 3-D convolution's window, any number of frames, and files are read frame by frame."""

import numpy as np
import pytest
import torch
from torch.nn.functional import conv3d

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.tokenizers_mod.vision.video import Video, spread


def test_tubelets_are_the_windows_of_a_3d_convolution():
    video = Video(size=6, patch=3, frames=10, channels=2, tubelet=5)
    tokens = video.build(8)
    with torch.no_grad():
        tokens.temporal.weight.zero_()
        tokens.spatial.zero_()
    clip = torch.randn(10, 2, 6, 6)
    kernel = tokens.projection.weight.view(8, 2, 5, 3, 3)
    expected = conv3d(clip.transpose(0, 1)[None], kernel, tokens.projection.bias, stride=(5, 3, 3))
    found = tokens(video.patches(clip).data)
    torch.testing.assert_close(found, expected[0].flatten(1).T, atol=1e-5, rtol=1e-5)  # time, then row, then column


def test_one_frame_a_token_is_the_same_as_a_tubelet_of_one():
    clip = torch.rand(3, 3, 8, 8)
    plain, one = Video(size=8, patch=4).patches(clip), Video(size=8, patch=4, tubelet=1).patches(clip)
    assert torch.equal(plain.data["patch"], one.data["patch"]) and plain.grid == one.grid == (3, 2, 2)


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 7])
def test_the_last_frame_stands_still_until_its_tubelet_is_full(frames):
    video = Video(size=8, patch=4, frames=9, tubelet=3)
    clip = torch.rand(frames, 3, 8, 8)
    span = video.patches(clip)
    full = torch.cat([clip, clip[-1:].expand(-frames % 3, -1, -1, -1)])
    assert len(full) % 3 == 0 and torch.equal(span.data["patch"], video.patches(full).data["patch"])
    assert span.length == -(-frames // 3) * 4 and int(span.data["place"][-1, 0]) == -(-frames // 3) - 1
    assert video.build(8)(span.data).isfinite().all()


def test_rows_of_time_stay_inside_the_table_wherever_a_clip_starts():
    video = Video(size=4, patch=4, frames=7, tubelet=2)
    assert video.rows == len(video.build(8).temporal.weight) == 4
    starts = {
        int(video.patches(torch.rand(3, 3, 4, 4), torch.Generator().manual_seed(s)).data["place"][0, 0])
        for s in range(40)
    }
    assert starts == {0, 1, 2}


def test_without_a_table_a_clip_may_have_any_number_of_frames():
    video = Video(size=4, patch=2, frames=0, tubelet=2)
    model = video.build(8)
    assert model.temporal is None
    long = video.span(video.read(np.random.default_rng(0).random((301, 5, 4, 3))))
    assert long.grid == (151, 2, 2) and model(long.data).isfinite().all()
    whole, part = model(long.data), model(video.span(torch.rand(4, 3, 4, 4)).data)
    assert len(whole) == 604 and len(part) == 8
    assert Video(size=4, patch=2, frames=0, sample=5).read(np.zeros((40, 4, 4, 3))).shape[0] == 5


def test_clips_of_different_lengths_in_one_batch_equal_each_alone():
    config = GeneralistConfig(
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=24,
        modalities={"summary": {}, "video": {"size": 8, "patch": 4, "frames": 0, "tubelet": 2}},
    )
    model = GeneralistModel(config).eval()
    summary, video = model.modalities["summary"], model.modalities["video"]
    sequences = [[summary.span(None).ask([0]), video.span(torch.rand(t, 3, 8, 8))] for t in (2, 7, 1)]
    with torch.no_grad():
        batch = model.features(pack(sequences))
        single = torch.cat([model.features(pack([s])) for s in sequences])
    torch.testing.assert_close(batch, single, atol=1e-5, rtol=1e-5)


def written(path, frames, codec="mpeg4"):
    """A film whose frame i is of grey level 10 i."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for i in range(frames):
            picture = np.full((16, 32, 3), 10 * i, dtype=np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def test_a_film_is_read_as_evenly_spread_frames_and_only_those_are_kept(tmp_path):
    written(tmp_path / "film.mp4", 20)
    video = Video(size=16, patch=8, frames=4, tubelet=2)
    clip = video.read(tmp_path / "film.mp4")
    assert clip.shape == (4, 3, 16, 32)
    levels = clip.mean((1, 2, 3)) * 255
    np.testing.assert_allclose(levels, [0, 60, 130, 190], atol=6)
    assert video.span(clip).grid == (2, 2, 2)
    assert Video(size=16, patch=8, frames=0).read(tmp_path / "film.mp4").shape[0] == 20


def test_films_that_cannot_be_read_are_named(tmp_path):
    written(tmp_path / "film.mp4", 20)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes((tmp_path / "film.mp4").read_bytes()[:200])
    video = Video(size=16, patch=8)
    for path, what in ((cut, "cannot be decoded"), (tmp_path / "none.mp4", "no such file")):
        with pytest.raises(UserError, match=f"{path.name}.*{what}"):
            video.read(path)


def test_a_film_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    written(tmp_path / "film.mp4", 5)
    monkeypatch.setattr("generalist.tokenizers_mod.vision.films.clips.MB", 1)  # then the limit is 400 bytes
    with pytest.raises(UserError, match=r"film\.mp4: 5 frames of 512 pixels are too many"):
        Video(size=16, patch=8).read(tmp_path / "film.mp4")


def test_frames_are_spread_over_the_whole_clip():
    assert spread(3, 5) == spread(3, 0) == [0, 1, 2]
    assert spread(11, 3) == [0, 5, 10] and spread(7, 1) == [0]


def test_wrong_sizes_of_tubelets_are_refused():
    for wrong in ({"tubelet": 0}, {"frames": -1}, {"sample": 9, "frames": 8}):
        with pytest.raises(UserError, match="video"):
            Video(**wrong)
