"""Sounds as recorders write them: whole ones are heard as they are, broken ones are found by validate and stats."""

import json

import numpy as np
import pytest

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.data.media.sounds import read_sound
from generalist.tokenizers_mod.audio.audio import Audio

sf = pytest.importorskip("soundfile")
RATE = 16000
TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)


@pytest.mark.parametrize(
    ("samples", "form"),
    [
        (TONE, {"subtype": "PCM_16"}),
        (TONE, {"subtype": "ULAW"}),
        (TONE * 2**15, {"subtype": "FLOAT"}),
        (TONE * 2**23, {"subtype": "FLOAT"}),
        (TONE * 2**31, {"subtype": "DOUBLE"}),
        (np.stack([TONE, TONE], 1), {"subtype": "PCM_24"}),
        (np.stack([TONE, -TONE], 1), {"subtype": "PCM_16"}),
        (np.stack([TONE, -0.99 * TONE], 1), {"subtype": "FLOAT"}),
        (TONE, {"format": "FLAC"}),
        (TONE, {"format": "AIFF"}),
    ],
)
def test_a_tone_is_the_same_tone_however_it_is_stored(tmp_path, samples, form):
    path = tmp_path / f"tone.{form.get('format', 'WAV').lower()}"
    sf.write(path, samples, RATE, **form)
    for raw in (path, str(path), path.read_bytes()):
        np.testing.assert_allclose(Audio(rate=RATE).read(raw).numpy(), TONE, atol=0.02)


def test_loud_floats_stay_and_one_channel_counts_half(tmp_path):
    sf.write(tmp_path / "over.wav", TONE * 3, RATE, subtype="FLOAT")
    np.testing.assert_allclose(read_sound(tmp_path / "over.wav")[0], TONE * 3, atol=1e-5)
    sf.write(tmp_path / "left.wav", np.stack([TONE, 0 * TONE], 1), RATE)
    np.testing.assert_allclose(Audio(rate=RATE).read(tmp_path / "left.wav").numpy(), TONE / 2, atol=1e-3)


def broken(folder) -> dict[str, str]:
    """Writes broken sounds; {file: what is said of it}."""
    folder.mkdir(parents=True)
    whole = folder.parent / "whole"
    whole.mkdir()
    for name in ("a.wav", "a.flac", "a.aiff"):
        sf.write(whole / name, np.random.default_rng(0).normal(0, 0.1, RATE), RATE)
    sf.write(whole / "a.ogg", TONE, RATE)
    (folder / "cut.wav").write_bytes((whole / "a.wav").read_bytes()[:-200])
    (folder / "cut.flac").write_bytes((whole / "a.flac").read_bytes()[:9000])
    (folder / "cut.ogg").write_bytes((whole / "a.ogg").read_bytes()[:-900])
    (folder / "cut.aiff").write_bytes((whole / "a.aiff").read_bytes()[:9000])
    (folder / "none.wav").write_bytes(b"")
    (folder / "page.mp3").write_text("<html>404 not found</html>")
    (folder / "page.wav").write_text("<html>404 not found</html>")
    sf.write(folder / "empty.wav", np.zeros(0), RATE)
    sf.write(folder / "short.wav", TONE[:100], RATE)
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        spoilt = TONE.astype(np.float32)
        spoilt[7] = value
        sf.write(folder / f"{name}.wav", spoilt, RATE, subtype="FLOAT")
    return {
        "cut.wav": "200 bytes of samples or more are missing",
        "cut.flac": "",
        "cut.ogg": "",
        "cut.aiff": "",
        "none.wav": "the file is empty",
        "page.mp3": "not a readable sound file",
        "page.wav": "not a readable sound file",
        "empty.wav": "no samples",
        "short.wav": "100 samples at 16000 Hz are less than one frame",
        "nan.wav": "1 of 16000 values are NaN",
        "inf.wav": "1 of 16000 values are NaN or infinite",
    }


def test_validate_and_stats_open_every_sound(tmp_path, capsys):
    said = broken(tmp_path / "set" / "other")
    tones = tmp_path / "set" / "whole"
    sf.write(tones / "balanced.wav", np.stack([TONE, -TONE], 1), RATE)
    sf.write(tones / "silence.wav", np.zeros(RATE), RATE)
    words = [str(tmp_path / "set"), "--set", "name=audio", "--set", "val=0", "--set", "test=0", "--quiet", "--json"]
    assert main(["data", "validate", *words]) == 1
    (report,) = json.loads(capsys.readouterr().out)
    assert report["samples"] == 17 and report["read"] == 6 and report["problems"]["broken"]["count"] == len(said)
    lines = {line.split(":")[0].removeprefix("other/"): line for line in report["problems"]["broken"]["samples"]}
    assert all(said[name] in line for name, line in lines.items())
    assert report["problems"]["channels of opposite phase"]["samples"] == ["whole/balanced.wav: audio"]
    assert report["problems"]["silent sound"]["samples"] == ["whole/silence.wav: audio"]
    assert main(["data", "stats", *words]) == 0
    found = json.loads(capsys.readouterr().out)["train"]
    assert found["broken"] == len(said) and found["measures"]["audio: seconds"]["count"] == 6
    assert found["odd"] == {"audio: channels of opposite phase": 1, "audio: silent sound": 1}
    for name in said:
        with pytest.raises(UserError):
            Audio(rate=RATE).read(tmp_path / "set" / "other" / name)


def test_a_header_written_to_a_pipe_does_not_make_a_sound_cut(tmp_path):
    sf.write(tmp_path / "a.wav", TONE, RATE)
    raw = bytearray((tmp_path / "a.wav").read_bytes())
    at = raw.index(b"data") + 4
    raw[at : at + 4] = b"\xff\xff\xff\xff"
    assert len(read_sound(bytes(raw))[0]) == RATE
