"""The law: probabilities of candidates from cosines, and what is summed of them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from generalist.tasks.candidates.likelihood import (
    MAX_SCALE,
    log_likelihood,
    negative_log_likelihood,
    scale_of,
    symmetric,
)

M, K, D = 5, 7, 3


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scale(value: float) -> Tensor:
    return torch.tensor([value]).log()


@given(seed=st.integers(0, 2**31), times=st.floats(0.01, 1000), length=st.floats(1e-3, 1e3))
@settings(max_examples=40, deadline=None)
def test_probabilities_sum_to_one_whatever_the_scale_and_the_lengths(seed, times, length):
    log_p = log_likelihood(drawn(M, D, seed=seed) * length, drawn(K, D, seed=seed + 1), scale(times))
    assert log_p.shape == (M, K)
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(M))


def test_the_law_equals_its_formula_written_out():
    x, y, log_scale = drawn(M, D), drawn(K, D, seed=1), scale(13.0)
    p = log_likelihood(x, y, log_scale).exp()
    for i in range(M):
        weight = []
        for k in range(K):
            dot = sum(float(x[i, d]) * float(y[k, d]) for d in range(D))
            norms = math.sqrt(sum(float(v) ** 2 for v in x[i]) * sum(float(v) ** 2 for v in y[k]))
            weight.append(math.exp(dot / norms * 13.0))
        for k in range(K):
            assert float(p[i, k]) == pytest.approx(weight[k] / sum(weight), rel=1e-4)


def test_a_token_may_ask_several_questions_and_each_is_answered_alone():
    x, y = drawn(2, M, D), drawn(K, D, seed=1)
    log_p = log_likelihood(x, y, scale(5.0))
    assert log_p.shape == (2, M, K)
    torch.testing.assert_close(log_p[1, 3], log_likelihood(x[1, 3:4], y, scale(5.0))[0])


def test_half_precision_features_are_compared_in_single_precision():
    x, y = drawn(M, D).bfloat16(), drawn(K, D, seed=1).bfloat16()
    log_p = log_likelihood(x, y, scale(50.0))
    assert log_p.dtype == torch.float32
    torch.testing.assert_close(log_p, log_likelihood(x.float(), y.float(), scale(50.0)))


def test_the_scale_stops_at_the_clamp_and_gets_no_gradient_above_it():
    for value, expected in ((7.0, 7.0), (99.0, 99.0), (120.0, MAX_SCALE), (1e6, MAX_SCALE)):
        log_scale = scale(value).requires_grad_()
        assert float(scale_of(log_scale).detach()) == pytest.approx(expected, rel=1e-5)
        log_likelihood(drawn(M, D), drawn(K, D, seed=1), log_scale)[:, 0].sum().backward()
        assert (float(log_scale.grad) == 0) == (value > MAX_SCALE)


def test_the_sum_and_the_count_are_those_of_a_loop_over_the_asked_rows():
    log_p, target = drawn(M, K).log_softmax(-1), torch.tensor([2, -1, 6, 0, -1])
    total, count = negative_log_likelihood(log_p, target)
    assert (total.shape, count.shape) == ((1,), (1,))
    assert int(count) == 3
    assert float(total) == pytest.approx(-float(log_p[0, 2] + log_p[2, 6] + log_p[3, 0]), rel=1e-5)


def test_smoothing_is_the_mixture_with_the_uniform_distribution():
    log_p, target, e = drawn(M, K).log_softmax(-1), torch.tensor([2, -1, 6, 0, 3]), 0.1
    soft = torch.nn.functional.one_hot(target.clamp(min=0), K).float() * (1 - e) + e / K
    soft[1] = float("nan")  # not asked
    smoothed, _ = negative_log_likelihood(log_p, target, smoothing=e)
    written, count = negative_log_likelihood(log_p, soft)
    torch.testing.assert_close(smoothed, written)
    assert int(count) == 4


def test_a_distribution_as_target_gives_the_cross_entropy():
    log_p, target = drawn(M, K).log_softmax(-1), drawn(M, K, seed=2).softmax(-1)
    total, count = negative_log_likelihood(log_p, target)
    written = -sum(float(target[i, k] * log_p[i, k]) for i in range(M) for k in range(K))
    assert float(total) == pytest.approx(written, rel=1e-5)
    assert int(count) == M


def test_rows_of_nan_are_not_asked_and_pass_no_gradient():
    raw = drawn(M, K).requires_grad_()
    target = drawn(M, K, seed=2).softmax(-1)
    target[1], target[4] = float("nan"), float("nan")
    total, count = negative_log_likelihood(raw.log_softmax(-1), target, smoothing=0.2)
    total.backward()
    assert int(count) == 3
    assert torch.isfinite(raw.grad).all()
    asked = raw.grad.abs().sum(-1) > 0
    assert asked.tolist() == [True, False, True, True, False]


def test_with_nothing_asked_the_sum_is_zero():
    total, count = negative_log_likelihood(drawn(M, K).log_softmax(-1), torch.full((M,), -1))
    assert (float(total), int(count)) == (0.0, 0)


def test_retrieval_is_the_mean_of_its_two_halves():
    one, two, target = drawn(M, M).log_softmax(-1), drawn(M, M, seed=1).log_softmax(-1), torch.arange(M)
    total, count = symmetric(one, two, target)
    halves = [negative_log_likelihood(side, target)[0] for side in (one, two)]
    torch.testing.assert_close(total, (halves[0] + halves[1]) / 2)
    assert int(count) == M


def test_knowing_nothing_costs_log_k():
    flat = log_likelihood(drawn(M, D), drawn(1, D, seed=1).expand(K, D), scale(20.0))
    total, count = negative_log_likelihood(flat, torch.arange(M))
    torch.testing.assert_close(total / count, torch.tensor([float(K)]).log())
