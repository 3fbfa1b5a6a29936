"""Motion recordings: windows of all channels, gaps, rates, statistics learnt from training data."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.numbers.imu import Imu


def test_a_window_holds_channel_after_channel_as_the_published_linear_has_it():
    imu = Imu(channels=2, patch=3)
    value = np.arange(14.0).reshape(7, 2)
    span = imu.span(imu.read(value))
    assert span.length == 3 and span.grid == (3,)
    assert span.data["patch"][0].tolist() == [0, 2, 4, 1, 3, 5] + [1] * 6
    assert span.data["patch"][2].tolist() == [12, 0, 0, 13, 0, 0, 1, 0, 0, 1, 0, 0]
    assert span.data["position"].tolist() == [0, 3, 6]


def test_gaps_are_marked_and_windows_without_any_value_are_left_out():
    imu = Imu(channels=2, patch=2)
    value = np.ones((6, 2))
    value[2:4] = np.nan
    value[0, 1] = np.nan
    span = imu.span(imu.read(value))
    assert span.mask.tolist() == [True, False, True]
    assert span.data["patch"][0].tolist() == [1, 1, 0, 1, 1, 1, 0, 1]


def test_recordings_of_another_rate_are_resampled():
    imu = Imu(channels=1, patch=4, rate=50)
    t = np.arange(200) / 100
    value = np.sin(2 * np.pi * 2 * t)[:, None]
    found = imu.read((value, 100))
    assert found.shape == (100, 1)
    expected = np.sin(2 * np.pi * 2 * np.arange(100) / 50)
    np.testing.assert_allclose(found[10:90, 0], expected[10:90], atol=0.02)
    assert torch.equal(found, imu.read({"signal": value, "rate": 100}))


def test_statistics_are_learnt_from_training_recordings_once():
    imu = Imu(channels=2)
    rows = [np.array([[1.0, 10], [3, np.nan]]), np.array([[5.0, 30]])]
    imu.learn_rows("t", rows)
    assert imu.mean == [3.0, 20.0] and imu.std == pytest.approx([1.632993, 10.0])
    kept = list(imu.mean)
    imu.learn_rows("u", [np.zeros((3, 2))])
    assert imu.mean == kept and Imu.from_settings(imu.settings()) == imu


def test_long_recordings_are_cut_at_random_in_training_and_in_the_middle_otherwise():
    imu = Imu(channels=1, patch=2, window=4)
    value = imu.read(np.arange(20.0)[:, None])
    assert imu.span(value).data["patch"][0, :2].tolist() == [8, 9]
    starts = {float(imu.span(value, torch.Generator().manual_seed(s)).data["patch"][0, 0]) for s in range(8)}
    assert len(starts) > 2


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (np.zeros((0, 6)), "at least one sample"),
        (np.zeros((5, 3)), r"expected \[t, 6\]"),
        (np.full((5, 6), np.nan), "every value is missing"),
        (np.full((5, 6), np.inf), "30 infinite"),
        ((np.zeros((5, 6)), -3), "rate -3"),
        ({"rate": 3}, "'signal'"),
        ("nowhere.csv", "imu nowhere.csv: no such file"),
        ([["a"] * 6], "not an array of numbers"),
    ],
)
def test_bad_recordings_are_named(raw, words):
    with pytest.raises(UserError, match=words):
        Imu(rate=50).read(raw)


def test_real_recordings_have_a_token_every_eight_samples(shared):
    with np.load(shared / "data/watch_imu/watch_train.npz") as file:
        signal, offsets = file["signal"], file["offsets"]
    imu = Imu(window=1024)
    imu.learn_rows("watch", [signal[a:b] for a, b in itertools.pairwise(offsets[:5])])
    span = imu.span(imu.read(signal[: offsets[1]]))
    assert span.length == -(-min(int(offsets[1]), 1024) // 8) and imu.build(12)(span.data).isfinite().all()


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 11), st.just(2)),
        elements=st.floats(allow_infinity=False, allow_nan=True),
    )
)
def test_any_recording_with_a_value_gives_finite_tokens(array):
    imu = Imu(channels=2, patch=3)
    if np.isnan(array).all():
        with pytest.raises(UserError):
            imu.read(array)
        return
    span = imu.span(imu.read(array))
    real = span.mask if span.mask is not None else torch.ones(span.length, dtype=torch.bool)
    assert imu.build(6)(span.data)[real].isfinite().all()
