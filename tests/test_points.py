"""Point clouds: groups equal the reference, small and degenerate clouds work, bad ones end in one line."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import load_file

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.geometry.points import Points, sample_groups
from tests.references import META_TRANSFORMER


def cloud(n: int, columns: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, columns)).astype(np.float32)


def test_sampling_and_grouping_equal_the_reference():
    g = load_file(META_TRANSFORMER / "point_cloud.safetensors")
    for i, points in enumerate(g["in.points"]):
        centre, near = sample_groups(points, 16, 8)
        assert torch.equal(centre, g["mid.fps_index"][i].long())
        torch.testing.assert_close(points[centre], g["mid.centers"][i])
        group = (points[near] - points[centre].unsqueeze(1)).permute(2, 0, 1)
        torch.testing.assert_close(group, g["mid.grouped_dp"][i])


def test_the_split_linear_equals_the_published_concatenation():
    module = Points(hidden=3).build(5)
    data = {"group": torch.randn(2, 7, 3), "center": torch.randn(2, 3)}
    x = module.first(data["group"])
    joined = torch.cat([x.amax(1, keepdim=True).expand_as(x), x], dim=-1)
    weight = torch.cat([module.pooled.weight, module.own.weight], dim=1)
    x = torch.nn.functional.linear(joined, weight, module.pooled.bias)
    torch.testing.assert_close(module(data), module.second(x).amax(1) + module.position(data["center"]))


def test_repeated_neighbours_of_a_small_cloud_do_not_change_the_tokens():
    small, exact = Points(groups=4, size=32, hidden=4), Points(groups=4, size=6, hidden=4)
    module = small.build(8)
    value = small.read(cloud(6))
    torch.testing.assert_close(module(small.span(value).data), module(exact.span(value).data))


def test_groups_hold_offsets_and_channels_as_they_are():
    points = Points(channels=1, groups=3, size=2, normalise=False)
    array = cloud(9, 4)
    span = points.span(points.read(array))
    torch.testing.assert_close(span.data["center"][0], torch.from_numpy(array[0, :3]))
    torch.testing.assert_close(span.data["group"][0, 0], torch.tensor([0, 0, 0, array[0, 3]]))


def test_a_cloud_fills_the_unit_sphere_whatever_its_place_and_size():
    value = Points().read(cloud(40) * 1e20 + 3e20)
    torch.testing.assert_close(value.norm(dim=1).max(), torch.tensor(1.0))
    torch.testing.assert_close(value.mean(0), torch.zeros(3), atol=1e-6, rtol=0)


def test_equal_points_make_one_group_and_dedupe_keeps_order():
    same = np.ones((5, 3))
    assert Points().span(Points().read(same)).length == 1
    assert len(Points(dedupe=True).read(same)) == 1
    array = cloud(6)
    twice = np.concatenate([array, array[::-1]])
    assert torch.equal(Points(dedupe=True, normalise=False).read(twice), torch.from_numpy(array))


@pytest.mark.parametrize("suffix", ["npy", "npz", "csv", "txt", "xyz"])
def test_files_equal_arrays(tmp_path, suffix):
    path, array = tmp_path / f"a.{suffix}", cloud(9)
    if suffix == "npy":
        np.save(path, array)
    elif suffix == "npz":
        np.savez(path, points=array, label=np.array(3))
    elif suffix == "csv":
        np.savetxt(path, array, delimiter=",", header="x,y,z", comments="")
    else:
        np.savetxt(path, array)
    torch.testing.assert_close(Points().read(path), Points().read(array))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (np.zeros((0, 3)), "no points"),
        (np.array([[0.0, np.nan, 1.0]]), "NaN"),
        (np.zeros((4, 5)), "set channels"),
        (np.zeros(3), "shape"),
        ([["a", "b", "c"]], "not an array"),
        ("nowhere.npy", "no such file"),
    ],
)
def test_bad_clouds_end_in_one_line(raw, words):
    with pytest.raises(UserError, match=words) as caught:
        Points().read(raw)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"), [("a.csv", ""), ("a.xyz", "1 2 3\n4 5 6 7\n"), ("a.npy", "zz"), ("a.obj", "v")]
)
def test_bad_files_end_in_one_line(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        Points().read(path)
    assert "\n" not in str(caught.value)


def test_large_clouds_are_thinned_and_augmentation_needs_a_generator():
    points = Points(points=20, groups=30, size=4, rotate=True, scale=0.2, jitter=0.01)
    value = points.read(cloud(100))
    assert points.span(value).length == 20
    assert torch.equal(points.span(value).data["center"], points.span(value).data["center"])
    a, b, c = (points.span(value, torch.Generator().manual_seed(s)).data["center"] for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_rotation_keeps_z_and_lengths():
    points = Points(groups=9, rotate=True, normalise=False)
    value = points.read(cloud(9))
    turned = points._augment(value, torch.Generator().manual_seed(0))
    torch.testing.assert_close(turned[:, 2], value[:, 2])
    torch.testing.assert_close(turned.norm(dim=1), value.norm(dim=1))


def test_real_clouds_have_64_groups(shared):
    points = Points()
    span = points.span(points.read(np.load(shared / "data/lowpoly_points/points.npz")["points_test"][0]))
    assert span.length == 64 and points.build(12)(span.data).isfinite().all()


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(
        np.float64, st.tuples(st.integers(1, 12), st.just(3)), elements=st.floats(allow_nan=False, allow_infinity=False)
    )
)
def test_finite_points_give_finite_tokens(array):
    points = Points(groups=5, size=3, hidden=4)
    span = points.span(points.read(array))
    assert 1 <= span.length <= 5 and points.build(6)(span.data).isfinite().all()
