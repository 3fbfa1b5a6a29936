"""Series and future slots: padding, missing values, one clock for past and future, bad input in one line."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.numbers.series import Series, step_positions
from generalist.tokenizers_mod.numbers.slot import Slot


def wave(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape) * 3 + 100


def test_the_newest_value_ends_the_last_patch_and_padding_is_masked():
    series = Series(patch=4)
    x = series.read(wave(10))
    patch = series.span(x).data["patch"]
    z = (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(patch[:, :4].flatten()[2:], z.float())
    assert patch[0].tolist()[:2] == [0, 0]
    assert patch[:, 4:].flatten().tolist() == [0, 0] + [1] * 10
    assert series.span(x).data["position"].tolist() == [-12, -8, -4]


def test_missing_values_do_not_move_the_statistics():
    series = Series(patch=2)
    full, holes = np.array([1.0, 5.0, 3.0]), np.array([1.0, np.nan, np.nan, np.nan, 5.0, np.nan, 3.0])
    for a, b in zip(series.statistics(series.read(full)), series.statistics(series.read(holes)), strict=True):
        torch.testing.assert_close(a, b)
    span = series.span(series.read(holes))
    assert span.mask.tolist() == [True, False, True, True]  # 7 steps are 4 patches of 2; the second has no value
    assert span.data["patch"][:, 2:].flatten().tolist() == [0, 1, 0, 0, 0, 1, 0, 1]
    assert series.build(6)(span.data).isfinite().all()


def test_tokens_do_not_change_with_level_and_scale_and_statistics_bring_them_back():
    series = Series(patch=4)
    x = series.read(wave(16))
    a, b = series.span(x), series.span(x * 7 - 1e6)
    torch.testing.assert_close(a.data["patch"], b.data["patch"], rtol=1e-4, atol=1e-5)
    mean, std = series.statistics(x)
    torch.testing.assert_close(a.data["patch"][:, :4].flatten().double() * std + mean, x, rtol=1e-6, atol=1e-5)


def test_statistics_are_one_a_channel_and_see_the_context_only():
    series = Series(patch=3, context=5)
    x = series.read(wave(11, 2))
    mean, std = series.statistics(x)
    torch.testing.assert_close(mean, x[-5:].mean(0))
    assert std.shape == (2,)
    assert series.spans(x)[1].length == 2
    assert Series(normalise=False).statistics(x)[1].tolist() == [1, 1]


def test_past_and_future_share_one_clock():
    series, slot = Series(patch=4), Slot(patch=4)
    time = slot.build(20)
    future = time(slot.span(9).data) - time.slot
    module = series.build(20)
    past = step_positions(series.span(series.read(wave(8))).data["position"], 20, *module.time)
    assert module.time == time.time
    torch.testing.assert_close(torch.cat([past, future]), step_positions(torch.arange(-2, 3) * 4.0, 20, *time.time))
    assert future.abs().max() > 0.5  # unit scale


def test_positions_repeat_after_a_period():
    at = step_positions(torch.tensor([-24.0, 0.0, 24.0, 12.0]), 4, [24.0], 8.0, 64.0)
    torch.testing.assert_close(at[0, [0, 2]], at[1, [0, 2]], atol=1e-5, rtol=0)
    torch.testing.assert_close(at[2, [0, 2]], at[1, [0, 2]], atol=1e-5, rtol=0)
    assert (at[3, 2] - at[1, 2]).abs() > 1
    with pytest.raises(ValueError, match="even width"):
        step_positions(torch.zeros(1), 5, [24.0], 8.0, 64.0)


def test_files_and_frames_equal_arrays(tmp_path):
    array = wave(9, 2)
    frame = pd.DataFrame(
        {"date": pd.date_range("2020-01-01", periods=9).astype(str), "a": array[:, 0], "b": array[:, 1]}
    )
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    np.save(tmp_path / "a.npy", array)
    want = Series().read(array)
    for raw in (tmp_path / "a.csv", tmp_path / "a.parquet", str(tmp_path / "a.npy"), frame, array.tolist()):
        torch.testing.assert_close(Series().read(raw), want)
    assert Series().read(frame[["date", "a"]]).shape == (9,)
    assert Series().read(frame["a"]).shape == (9,)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ([], "at least one step"),
        (np.zeros((2, 3, 4)), "shape"),
        ([1.0, np.inf], "infinite"),
        ([np.nan, np.nan], "missing"),
        (np.array([[1.0, np.nan], [2.0, np.nan]]), "channel 1"),
        (["a", "b"], "not an array"),
        ([1e200, 0.0], "rescale"),
        ("nowhere.csv", "no such file"),
        (pd.DataFrame({"a": [1.0], "b": ["x1y"]}), "neither numbers nor dates"),
    ],
)
def test_bad_series_end_in_one_line(raw, words):
    with pytest.raises(UserError, match=words) as caught:
        Series().read(raw)
    assert "\n" not in str(caught.value)


def test_wrong_channels_are_named():
    x = Series().read(wave(5, 3))
    with pytest.raises(UserError, match="use spans"):
        Series().span(x)
    with pytest.raises(UserError, match="channel 2 of 2"):
        Series(channels=2).spans(x)


def test_a_slot_asks_a_patch_and_nothing_beyond_the_horizon():
    slot = Slot(patch=4)
    span = slot.span(slot.read([1.0, np.nan, 3, 4, 5, 6]))
    assert span.length == 2 and span.asked.tolist() == [0, 1] and span.data["position"].tolist() == [0, 4]
    assert torch.equal(span.labels.isnan(), torch.tensor([[0, 1, 0, 0], [0, 0, 1, 1]], dtype=torch.bool))
    assert slot.span(slot.read(5)).labels is None and slot.answers == 4


def test_slots_unfold_into_one_query_a_step():
    module = Slot(patch=3).build(10)
    h = torch.randn(2, 10)
    out = module.unfold(h)
    assert out.shape == (2, 3, 10)
    torch.testing.assert_close(out[1], module.unfold(h[1:])[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("raw", [0, -3, "soon", [], np.zeros((2, 3)), [np.inf]])
def test_bad_horizons_end_in_one_line(raw):
    with pytest.raises(UserError):
        Slot().read(raw)


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e30, 1e30) | st.just(float("nan"))))
def test_finite_series_give_finite_tokens(array):
    array[-1] = 1.0
    series = Series(patch=7)
    span = series.span(series.read(array))
    assert series.build(8)(span.data).isfinite().all() and span.length == -(-len(array) // 7)
