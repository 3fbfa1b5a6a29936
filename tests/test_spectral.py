"""Spectral cubes: patches x band groups, pixels' windows, missing bands, the published band neighbourhoods."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.vision.spectral import Spectral, band_groups, pixel_window


def cube(h=5, w=7, bands=3):
    return np.random.default_rng(0).normal(size=(h, w, bands))


def test_a_cube_has_a_token_a_patch_and_band_group():
    spectral = Spectral(bands=3, patch=2, group=2)
    raw = cube()
    span = spectral.span(spectral.read(raw))
    assert span.grid == (2, 3, 4) and span.length == 24
    first = span.data["patch"][0]
    np.testing.assert_allclose(first[:8], raw[:2, :2, :2].transpose(2, 0, 1).ravel(), rtol=1e-6)
    assert first[8:].tolist() == [1] * 8
    last = span.data["patch"][-1]  # the second group has one band, the corner patch one pixel
    assert last[8:].tolist() == [1, 0, 0, 0, 0, 0, 0, 0] and last[0] == pytest.approx(raw[4, 6, 2])


def test_cyclic_groups_run_around_the_ends():
    index, inside = band_groups(5, 3, 1, cyclic=True)
    assert index.tolist() == [[4, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 0]] and inside.all()
    index, inside = band_groups(5, 2, 2, cyclic=False)
    assert index.tolist() == [[0, 1], [2, 3], [4, 4]] and inside.tolist()[2] == [True, False]


def test_a_pixel_is_its_window_mirrored_at_the_border():
    spectral = Spectral(bands=3, patch=3)
    raw = cube()
    value = spectral.read((raw, 0, 6))
    assert value.shape == (3, 3, 3)
    np.testing.assert_allclose(value[:, :, 1], raw[[0, 0, 1]][:, [5, 6, 6], 1], rtol=1e-6)
    assert pixel_window(raw, 2, 3, 1).shape == (1, 1, 3)


def test_missing_bands_are_marked_and_tokens_without_a_value_left_out():
    spectral = Spectral(bands=3, patch=1)
    raw = cube(1, 1)
    raw[..., 1] = np.nan
    span = spectral.span(spectral.read(raw))
    assert span.mask.tolist() == [True, False, True]


def test_statistics_are_learnt_a_band_and_kept():
    spectral = Spectral(bands=3, patch=5)
    raw = cube() * [1, 10, 100] + 7
    spectral.learn_rows("t", [raw])
    value = spectral.read(raw)
    torch.testing.assert_close(value.mean((0, 1)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(value.std((0, 1), correction=0), torch.ones(3), atol=1e-5, rtol=0)
    assert Spectral.from_settings(spectral.settings()) == spectral


def test_files_are_read(tmp_path):
    from scipy.io import savemat

    raw = cube()
    np.save(tmp_path / "a.npy", raw)
    savemat(tmp_path / "a.mat", {"scene": raw})
    spectral = Spectral(bands=3)
    assert torch.equal(spectral.read(tmp_path / "a.npy"), spectral.read(str(tmp_path / "a.mat")))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (cube(bands=4), r"expected \[H, W, 3\]"),
        (np.zeros((0, 2, 3)), "expected"),
        (np.full((2, 2, 3), np.nan), "every value is missing"),
        (np.full((2, 2, 3), np.inf), "12 infinite"),
        ((cube(), 5, 0), "outside the cube"),
        ("x.npy", "no such file"),
        ("tif.tif", "no such file"),
    ],
)
def test_bad_cubes_are_named(raw, words):
    with pytest.raises(UserError, match=words):
        Spectral(bands=3).read(raw)


def test_broken_files_end_in_one_line(tmp_path):
    for name in ("a.npy", "a.mat", "a.txt"):
        (tmp_path / name).write_text("zz")
        with pytest.raises(UserError) as caught:
            Spectral(bands=3).read(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_real_patches_have_a_token_a_band(shared):
    with np.load(shared / "data/landsat_multispectral/landsat.npz") as file:
        x = file["x_train"][:20]
    spectral = Spectral(bands=4, patch=3)
    spectral.learn_rows("landsat", list(x))
    span = spectral.span(spectral.read(x[0]))
    assert span.grid == (4, 1, 1) and spectral.build(8)(span.data).isfinite().all()


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=5).map(lambda s: (*s, 3)),
        elements=st.floats(allow_infinity=False, allow_nan=False),
    ),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_any_cube_gives_finite_tokens(array, patch, group, stride):
    spectral = Spectral(bands=3, patch=patch, group=group, stride=stride)
    span = spectral.span(spectral.read(array))
    assert spectral.build(8)(span.data).isfinite().all()


def test_a_hidden_layer_lets_a_token_say_how_its_values_compare():
    spectral = Spectral(bands=3, patch=1, group=3, hidden=5)
    tokens = spectral.build(8)
    assert tokens.hidden[0].weight.shape == (5, 6) and tokens.project.weight.shape == (8, 5)
    at = torch.zeros(1, 3)

    def of(values):
        return tokens({"patch": torch.tensor([[*values, 1.0, 1.0, 1.0]]), "position": at})

    bent = of([1.0, 2.0, 0.5]) + of([-1.0, -2.0, -0.5]) - 2 * of([0.0, 0.0, 0.0])
    assert bent.abs().max() > 1e-3  # a linear map gives zero
    assert [name for name, _ in Spectral(bands=3).build(8).named_parameters()] == [
        "project.weight", "project.bias", "position.weight",
    ]  # fmt: skip
    with pytest.raises(UserError, match="hidden -1"):
        Spectral(hidden=-1)
