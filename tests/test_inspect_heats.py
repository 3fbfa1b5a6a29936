"""Heat lies where its token lies: on a picture, a spectrogram, a series, in words, in a row's cells."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from generalist.report.sections.heats import LISTED, drawn
from generalist.tokenizers_mod.audio.audio import Audio


def given(kind, shape, values, words=(), **shown):
    return {"input": {"kind": kind, **shown}, "shape": shape, "words": list(words), "values": {"m": values}}


def pixels(html):
    found = re.search(r'base64,([^"]+)"', html)[1]
    return np.asarray(Picture.open(io.BytesIO(base64.b64decode(found))), float)


def test_a_picture_is_warm_where_the_cell_is():
    grey = np.full((4, 6), 0.5).tolist()
    drawing = pixels(drawn(given("image", [2, 3], [0, 0, 1, 0, None, 0], pixels=grey), "m"))
    high, wide = drawing.shape[:2]
    assert np.ptp(drawing[high - 1, 0]) == 0 and drawing[0, wide - 1, 0] > drawing[0, wide - 1, 2] + 100
    warm = (drawing[..., 0] - drawing[..., 2] > 50).nonzero()
    assert warm[0].max() == high // 2 - 1 and warm[1].min() == wide * 2 // 3


def test_a_spectrogram_has_time_to_the_right_and_low_filters_below():
    audio = Audio(rate=8000, mels=32, patch=[16, 10], stride=[16, 10])
    seen = audio.seen((np.sin(np.arange(8000) * 0.3), 8000))
    shape = audio.span(audio.read((np.sin(np.arange(8000) * 0.3), 8000))).grid
    assert np.asarray(seen["pixels"]).shape == (32, 10 * shape[0]) and shape[1] == 2
    values = torch.zeros(shape)
    values[-1, 0] = 1  # the last stretch, the lower filters
    drawing = pixels(drawn(given("spectrogram", list(shape), values.flatten().tolist(), pixels=seen["pixels"]), "m"))
    warm = (drawing[..., 0] - drawing[..., 2] > 50).nonzero()
    assert warm[0].min() >= drawing.shape[0] // 2 and warm[1].min() >= drawing.shape[1] * (shape[0] - 1) // shape[0]


def test_a_series_has_a_band_a_token_and_words_and_cells_stand_with_their_heat():
    drawing = drawn(given("series", [3], [0, 0.5, 1.0], past=[1.0, float("nan"), 2.0, 4.0]), "m")
    assert re.findall(r'fill-opacity="([\d.]+)"', drawing) == ["0.00", "0.30", "0.60"]
    text = drawn(given("text", [2], [2.0, -1.0], ["<b>", "no"], text="<b> no"), "m", full=4.0)
    assert "&lt;b&gt;" in text and "<b>" not in text and re.findall(r"--d:(\d+)%", text) == ["50", "0"]
    cells = drawn(given("table", [], [0.1, 0.9], ["age", "sex"], row={"age": 3.0, "sex": "f"}), "m")
    assert cells.index("sex") < cells.index("age") and "3.000" in cells
    assert re.findall(r"--w:([\d.]+)", cells) == ["0.9", "0.1"]
    bars = drawn(given("points", [], [0.1] * (LISTED + 3)), "m")
    assert "and 3 more" in bars and bars.count("<tr>") == LISTED + 1
    with pytest.raises(KeyError):
        drawn(given("text", [2], [1.0], text="x"), "n")
