"""Number tokens and bins: labels and statistics against closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.numbers import bins
from generalist.tokenizers_mod.numbers.number import Number

EDGES = torch.tensor([-3.0, -1.0, -0.5, 0.25, 1.0, 4.0])


def test_features_are_18_by_default_and_tokens_are_smooth():
    module = Number().build(16)
    assert module.mlp[0].in_features == 18
    z = torch.linspace(-3, 3, 400)
    out = module({"value": z})
    assert out.diff(dim=0).norm(dim=1).max() < 0.5 * (out[0] - out[200]).norm()


@pytest.mark.parametrize(
    ("raw", "words"), [([], "no values"), ([np.nan], "NaN"), ("x", "not a list"), ([1e9], "standardise")]
)
def test_bad_numbers_end_in_one_line(raw, words):
    with pytest.raises(UserError, match=words) as caught:
        Number().read(raw)
    assert "\n" not in str(caught.value)


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(UserError):
        Number(f_min=5.0)
    assert Number.from_settings(Number(f_max=2.0).settings()) == Number(f_max=2.0)


def test_edges():
    assert bins.uniform_edges(-1.0, 2.0, 3).tolist() == [-1, 0, 1, 2]
    assert bins.centres(bins.uniform_edges(2.5, 5.5, 3)).tolist() == [3, 4, 5]
    with pytest.raises(UserError):
        bins.uniform_edges(1.0, 1.0, 3)


def test_quantile_bins_hold_equally_many_and_their_ends_are_extended():
    z = torch.randn(10000, generator=torch.Generator().manual_seed(0))
    edges = bins.quantile_edges(z, 20)
    assert len(edges) == 21 and (edges.diff() > 0).all()
    torch.testing.assert_close(edges[1:-1], torch.quantile(z, torch.linspace(0, 1, 21)[1:-1]), atol=1e-4, rtol=0)
    torch.testing.assert_close(edges[1] - edges[0], 3 * (edges[2] - edges[1]))
    torch.testing.assert_close(edges[-1] - edges[-2], 3 * (edges[-2] - edges[-3]))


def test_ties_merge_quantile_bins():
    edges = bins.quantile_edges(torch.tensor([1.0, 1, 1, 2, 2, 3, float("nan")]), 10)
    assert len(edges) < 11 and (edges.diff() > 0).all()
    constant = bins.quantile_edges(torch.full((7,), 1e6), 8)
    assert (constant.diff() > 0).all() and constant[0] < 1e6 < constant[-1]
    with pytest.raises(UserError):
        bins.quantile_edges(torch.tensor([float("nan")]), 8)


def test_index_space_sends_edge_i_to_i():
    torch.testing.assert_close(bins.to_index(EDGES, EDGES), torch.arange(6.0))
    assert bins.to_index(torch.tensor([-2.0, 2.5, -9, 9]), EDGES).tolist() == [0.5, 4.5, 0, 5]


def test_soft_labels_are_a_gaussian_in_index_space():
    z = torch.tensor([[0.0, 0.625], [2.5, -7.0]])
    t = bins.soft_labels(z, EDGES, sigma=1.5)
    assert t.shape == (2, 2, 5)
    torch.testing.assert_close(t.sum(-1), torch.ones(2, 2))
    normal = torch.distributions.Normal(3.5, 1.5)
    want = normal.cdf(torch.arange(6.0)).diff()
    torch.testing.assert_close(t[0, 1], want / want.sum())


def test_hard_labels_are_the_limit_of_soft_ones():
    z = torch.tensor([-2.0, -0.6, 0.0, 0.5, 9.0, 4.0])
    hard = bins.soft_labels(z, EDGES, sigma=0.0)
    assert hard.argmax(-1).tolist() == [0, 1, 2, 3, 4, 4] and hard.sum() == 6
    torch.testing.assert_close(bins.soft_labels(z[:4], EDGES, sigma=1e-3), hard[:4])


def test_values_not_asked_give_rows_of_nan():
    z = torch.tensor([float("nan"), 0.0])
    for label in (bins.soft_labels(z, EDGES), bins.soft_labels(z, EDGES, 0.0)):
        assert label[0].isnan().all() and label[1].isfinite().all()


def test_quantiles_of_a_uniform_distribution_are_linear():
    edges = bins.uniform_edges(0.0, 1.0, 7)
    p = torch.full((2, 3, 7), 1 / 7)
    levels = torch.tensor([0.1, 0.5, 0.77])
    torch.testing.assert_close(bins.quantile(p, edges, levels), levels.expand(2, 3, 3), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(bins.median(p, edges), torch.full((2, 3), 0.5))


def test_quantiles_skip_empty_bins():
    p = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0])
    out = bins.quantile(p, EDGES, torch.tensor([0.25, 0.75, 1.0]))
    torch.testing.assert_close(out, torch.tensor([-0.75, 0.625, 1.0]))


def test_crps_of_a_normal_is_near_its_closed_form():
    edges = bins.uniform_edges(-6.0, 6.0, 600)
    p = torch.distributions.Normal(0.0, 1.0).cdf(edges).diff()
    z = torch.tensor([0.0, 1.0, -2.0])
    normal = torch.distributions.Normal(0.0, 1.0)
    exact = z * (2 * normal.cdf(z) - 1) + 2 * normal.log_prob(z).exp() - np.pi**-0.5
    torch.testing.assert_close(bins.crps(p.expand(3, -1), edges, z), exact, rtol=0.06, atol=0.01)


def test_labels_work_in_double_precision():
    z = torch.tensor([0.3], dtype=torch.float64)
    assert bins.soft_labels(z, EDGES).dtype == torch.float64


finite = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=60, deadline=None)
@given(st.lists(finite, min_size=1, max_size=20), st.floats(0, 50), st.integers(3, 9))
def test_any_value_gives_a_distribution_and_ordered_quantiles(values, sigma, count):
    z = torch.tensor(values)
    edges = bins.quantile_edges(z, count)
    t = bins.soft_labels(z, edges, sigma)
    torch.testing.assert_close(t.sum(-1), torch.ones(len(z)))
    q = bins.quantile(t, edges, torch.tensor([0.05, 0.5, 0.95]))
    assert (q.diff(dim=-1) >= 0).all() and q.isfinite().all()
    assert (bins.crps(t, edges, z) >= 0).all()
    assert Number(hidden=4).build(5)({"value": Number().read(values)}).isfinite().all()
