"""Sound: the filter bank equals Kaldi's, any clip becomes tokens, bad clips end in one line."""

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.audio.audio import Audio
from generalist.tokenizers_mod.audio.fbank import fbank
from tests.references import META_TRANSFORMER


def tone(samples: int, rate: int = 16000, hertz: float = 440.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(samples) / rate).astype(np.float32)


@pytest.fixture
def golden() -> dict[str, torch.Tensor]:
    return load_file(META_TRANSFORMER / "audio.safetensors")


def test_filter_bank_equals_kaldi(golden):
    g = golden
    out = fbank(g["in.waveform"][0], 16000, mels=64, window="hann")
    torch.testing.assert_close(out, g["out.fbank"], rtol=3e-5, atol=1e-3)


def test_tokens_equal_the_reference_convolution_where_it_sees_no_padding(golden):
    g = golden
    audio = Audio(mels=64, patch=[32, 32], stride=[10, 10], mean=-6.845978, std=5.5654526)
    span = audio.span(g["in.waveform"][0])
    assert span.grid == (2, 4)  # 48 real frames; the reference's zero rows give it 4 columns
    out = torch.nn.functional.linear(span.data["patch"], g["sd.proj.weight"].flatten(1), g["sd.proj.bias"])
    want = g["out.tokens"][0].view(4, 4, 64).transpose(0, 1)[:2]  # mel-major -> time-major
    torch.testing.assert_close(out.view(2, 4, 64), want, rtol=1e-4, atol=1e-3)


def test_a_patch_is_mel_by_time_and_its_position_says_where():
    audio = Audio(mels=20, patch=[3, 2], stride=[5, 7], mean=0.0, std=0.5)
    wave = torch.from_numpy(tone(8000) * np.linspace(0, 1, 8000, dtype=np.float32))
    mel = fbank(wave - wave.mean(), 16000, 20)
    span = audio.span(wave)
    assert span.grid == ((len(mel) - 2) // 7 + 1, 4) and span.length == span.grid[0] * 4
    t, m = span.data["position"][9].tolist()
    assert (t, m) == (2, 1)
    torch.testing.assert_close(span.data["patch"][9].view(3, 2), mel[14:16, 5:8].T)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_file_equals_its_array(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.stack([tone(9000), 0 * tone(9000)], axis=1) * 0.5, 16000)
    wave = Audio().read(path)
    torch.testing.assert_close(wave, torch.from_numpy(tone(9000) * 0.25), atol=1e-4, rtol=0)
    torch.testing.assert_close(Audio().read(path.read_bytes()), wave)
    torch.testing.assert_close(Audio().read({"path": str(path), "array": None}), wave)


def test_channels_are_mixed_whichever_axis_they_are_on():
    stereo = np.stack([tone(3000), tone(3000, hertz=90)], axis=1)
    a, b = Audio().read((stereo, 16000)), Audio().read((stereo.T, 16000))
    assert torch.equal(a, b)
    torch.testing.assert_close(a, torch.from_numpy(stereo.mean(1)))


def test_integer_samples_are_scaled():
    wave = Audio().read(((tone(2000) * 32767).astype(np.int16), 16000))
    torch.testing.assert_close(wave, torch.from_numpy(tone(2000)), atol=1e-4, rtol=0)


def test_resampling_keeps_the_tone():
    wave = Audio().read({"array": tone(44100, 44100), "sampling_rate": 44100})
    assert len(wave) == 16000
    torch.testing.assert_close(wave[2000:-2000], torch.from_numpy(tone(16000))[2000:-2000], atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ((np.zeros(0), 16000), "no samples"),
        ((np.full(1000, np.nan), 16000), "NaN"),
        ((np.zeros(399), 16000), "less than one frame"),
        ((np.zeros((3, 4, 5)), 16000), "shape"),
        ((np.zeros(1000), 0), "sampling rate"),
        ((np.full(1000, 1e9), 16000), "scale"),
        ("nowhere.wav", "no such file"),
        (b"RIFF nonsense", "not a readable sound"),
        (42, "cannot read"),
        ({}, "cannot read"),
    ],
)
def test_bad_clips_end_in_one_line(raw, words):
    with pytest.raises(UserError, match=words) as caught:
        Audio().read(raw)
    assert "\n" not in str(caught.value)


def test_a_corrupt_file_ends_in_one_line(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(9000), 16000)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(UserError, match="not a readable sound"):
        Audio().read(path)


@pytest.mark.parametrize("bad", [{"patch": [129, 16]}, {"patch": [16]}, {"stride": [0, 1]}, {"window": "flat"}])
def test_settings_that_cannot_work_are_refused(bad):
    with pytest.raises(UserError):
        Audio(**bad)


def test_training_crops_and_masks_and_evaluation_does_not():
    audio = Audio(max_seconds=0.5, mask_mels=30, mask_frames=20)
    wave = audio.read((np.random.default_rng(0).normal(size=30000).astype(np.float32), 16000))
    still = audio.span(wave)
    assert torch.equal(still.data["patch"], audio.span(wave).data["patch"])
    moved = [audio.span(wave, torch.Generator().manual_seed(s)).data["patch"] for s in (1, 1, 2)]
    assert torch.equal(moved[0], moved[1]) and not torch.equal(moved[0], moved[2])
    assert moved[0].shape == still.data["patch"].shape


@settings(max_examples=25, deadline=None)
@given(st.integers(400, 9000), st.floats(0, 1e5), st.integers(0, 3))
def test_finite_sound_gives_finite_tokens(samples, loudness, seed):
    audio = Audio(mels=24, patch=[8, 4], stride=[8, 4])
    wave = np.random.default_rng(seed).normal(size=samples).clip(-4, 4) * loudness
    span = audio.span(audio.read((wave, 16000)))
    assert audio.build(10)(span.data).isfinite().all() and span.length > 0
