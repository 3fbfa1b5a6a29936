"""Sets that the starter has no modality for, as pictures; and a control that nothing pretrained is left in."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from generalist.data.base.errors import UserError
from generalist.data.stream.source import Records
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.recipes.sensed_sets import classify
from generalist.tokenizers_mod.base.tokenizer import bare
from scripts.starter_drawn import WINDOW, Drawn, Grey, bands, drawn, lines, spectrum
from scripts.starter_transfer import begun, fresh


@dataclass
class Given:
    """Signals of two channels; those of the test are ten times louder."""

    times: float = 10.0

    def open(self, split: str) -> Records:
        rng = np.random.default_rng(split == "test")
        loud = self.times if split == "test" else 1.0
        rows = [{"id": str(i), "signal": rng.normal(size=(20 + i, 2)) * loud, "label": i % 2} for i in range(8)]
        return Records(rows, {"classes": ["low", "high"]})


def test_grey_is_of_the_training_records_whichever_split_is_opened_first():
    first = Drawn(Given(), "signal", lines).open("test")[3]["image"]
    source = Drawn(Given(), "signal", lines)
    training = source.open("train")[3]["image"]
    assert np.array_equal(first, source.open("test")[3]["image"]) and first.dtype == np.uint8 and first.shape == (2, 23)
    assert training.std() < 60 and 100 < training.mean() < 155  # in the middle, and the louder ones are black or white
    assert np.isin(first, [0, 255]).mean() > 0.5


def test_every_channel_has_its_own_scale_and_what_fills_a_signal_up_is_left_out():
    signal = np.stack([np.arange(9.0), 100 * np.arange(9.0)], axis=1)
    signal[6:] = np.nan
    assert lines(signal).shape == (2, 6)
    shown = lines(signal)
    grey = Grey(shown.mean(1), shown.std(1))(shown)
    assert np.array_equal(grey[0], grey[1]) and grey[0, 0] < 100 < 155 < grey[0, -1]


def test_a_pitch_stands_where_it_is_in_the_spectrum():
    t = np.arange(10 * WINDOW)
    shown = spectrum(np.stack([np.sin(2 * np.pi * 16 / WINDOW * t), np.zeros(len(t))], axis=1))
    assert shown.shape == (2, WINDOW // 2) and int(shown[0].argmax()) == 15 and np.ptp(shown[1]) == 0
    assert spectrum(np.ones((5, 1))).shape == (1, WINDOW // 2)  # shorter than a window


def test_infrared_is_shown_as_red():
    cube = np.zeros((3, 3, 4))
    cube[..., 2] = 9
    assert bands(cube).shape == (3, 3, 3) and bands(cube)[0].min() == 9 and bands(cube)[1:].max() == 0


def test_the_task_asks_for_the_picture():
    task = drawn(classify("landsat", {"spectral": "cube"}, Given()))
    assert task.inputs == {"image": "image"} and task.source.draw is bands


def test_the_control_has_no_pretrained_weights(tmp_path):
    small = {"network": "test_efficientnet", "stages": 2, "size": 32, "patch": 32}
    missing = str(tmp_path / "gone.pth")  # reading it would be an error
    settings = {"image": {"class": "stages", **small, "weights": missing}, "summary": {"class": "summary"}}
    config = GeneralistConfig(width=8, layers=1, heads=2, hidden=8, modalities=settings, scales=["default"])
    with bare():
        like = GeneralistModel(config)
    made = fresh(like, seed=1)
    assert {name: p.shape for name, p in made.named_parameters()} == {n: p.shape for n, p in like.named_parameters()}
    assert not torch.equal(
        made.tokenizers["image"].projection.out.weight, like.tokenizers["image"].projection.out.weight
    )
    with pytest.raises(UserError, match="no weights at"):
        begun(like)
