"""Task-balanced gradient normalisation: the worked example of the specification, and what it must not depend on."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny
from torch import nn

from generalist.model.objective import Objective
from generalist.train.optimizer import (
    BalancedAdamW,
    build_optimizer,
    learning_rate,
    parameter_groups,
    set_rate,
    shares_factors,
)
from generalist.train.prepare import prepare


def steps(gradients: list[tuple[list[float], float, float]], start=(1.0, 2.0), **settings) -> tuple[torch.Tensor, dict]:
    """One parameter after these (gradient, share, omega) steps, and its state."""
    theta = nn.Parameter(torch.tensor(start))
    optimizer = BalancedAdamW([theta], **{"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, **settings})
    for gradient, share, omega in gradients:
        theta.grad = torch.tensor(gradient)
        optimizer.task(share, omega)
        optimizer.step()
    return theta.detach(), optimizer.state[theta]


WORKED = [([3.0, 4.0], 0.25, 1.0), ([0.0, 2.0], 0.75, 1.0)]


def test_the_worked_example_holds_to_six_digits():
    theta, state = steps(WORKED[:1], bias_correction=False)
    torch.testing.assert_close(state["exp_avg"], torch.tensor([0.24, 0.32]), atol=1e-6, rtol=0)
    torch.testing.assert_close(state["exp_avg_sq"], torch.tensor([0.00144, 0.00256]), atol=1e-6, rtol=0)
    torch.testing.assert_close(theta, torch.tensor([0.3675446, 1.3675446]), atol=1e-6, rtol=0)
    theta, state = steps(WORKED, bias_correction=False)
    torch.testing.assert_close(state["exp_avg"], torch.tensor([0.216, 0.4213333]), atol=1e-6, rtol=0)
    torch.testing.assert_close(state["exp_avg_sq"], torch.tensor([0.00143856, 0.00389077]), atol=1e-6, rtol=0)
    torch.testing.assert_close(theta, torch.tensor([-0.2019500, 0.6920719]), atol=1e-6, rtol=0)


def test_the_worked_example_with_bias_correction():
    one, two = steps(WORKED[:1])[0], steps(WORKED)[0]
    torch.testing.assert_close((torch.tensor([1.0, 2.0]) - one) / 0.1, torch.tensor([2.0, 2.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close((one - two) / 0.1, torch.tensor([1.3401165, 1.5895004]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.04])
def test_the_first_step_is_the_rate_over_the_root_of_the_share(share):
    theta, _ = steps([([0.3, -7.0], share, 1.0)])
    torch.testing.assert_close((theta - torch.tensor([1.0, 2.0])).abs(), torch.full((2,), 0.1 / math.sqrt(share)))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(1e-4, 1e4), min_size=3, max_size=3), st.integers(0, 99))
def test_the_loss_scale_of_a_task_changes_nothing(scales, seed):
    rng = torch.Generator().manual_seed(seed)
    plain, scaled = [], []
    for t in range(7):
        k = t % 3
        gradient = torch.randn(2, generator=rng)
        plain.append((gradient.tolist(), (0.2, 0.3, 0.5)[k], 1.0))
        scaled.append(((gradient * scales[k]).tolist(), (0.2, 0.3, 0.5)[k], 1.0))
    torch.testing.assert_close(steps(plain)[0], steps(scaled)[0], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.9, 0.1)])
def test_the_expected_moment_is_the_sum_of_the_normalised_gradients_whatever_the_shares(shares):
    gradients = torch.tensor([[3.0, 4.0], [-1.0, 0.0]])
    theta = nn.Parameter(torch.zeros(2))
    optimizer = BalancedAdamW([theta], lr=0.0)
    drawn = torch.multinomial(torch.tensor(shares), 3000, replacement=True, generator=torch.Generator().manual_seed(1))
    mean = torch.zeros(2)
    for k in drawn.tolist():
        theta.grad = gradients[k].clone()
        optimizer.task(shares[k])
        optimizer.step()
        mean += optimizer.state[theta]["exp_avg"] / len(drawn)
    torch.testing.assert_close(mean, torch.tensor([0.6 - 1.0, 0.8]), atol=0.08, rtol=0)


def test_omega_is_the_length_of_a_tasks_gradient():
    state = steps([([3.0, 4.0], 1.0, 2.5)])[1]
    assert state["exp_avg"].norm().item() == pytest.approx(0.1 * 2.5)


def test_one_task_is_adamw_on_normalised_gradients():
    rng = torch.Generator().manual_seed(3)
    mine, theirs = (nn.Parameter(torch.tensor([1.0, 2.0, -3.0])) for _ in range(2))
    a = BalancedAdamW([mine], lr=0.05, betas=(0.9, 0.98), weight_decay=0.1)
    b = torch.optim.AdamW([theirs], lr=0.05, betas=(0.9, 0.98), weight_decay=0.1)
    for _ in range(9):
        gradient = torch.randn(3, generator=rng)
        mine.grad, theirs.grad = gradient.clone(), gradient / gradient.norm()
        a.step()
        b.step()
    torch.testing.assert_close(mine, theirs)


def test_partitions_told_the_whole_norm_move_as_the_whole():
    """Two ranks of ZeRO hold a part of the gradient each; the update equals that of one process."""
    gradients = [torch.tensor([3.0, -1.0, 2.0]), torch.tensor([0.5, 4.0])]
    whole = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))]
    parts = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))]
    plain = BalancedAdamW(whole, lr=0.1)
    ranks = [BalancedAdamW([p], lr=0.1) for p in parts]
    for sign in (1.0, -0.5):
        for p, g in zip([*whole, *parts], gradients * 2, strict=True):
            p.grad = g * sign
        plain.task(0.25)
        plain.step()
        norm = float(sum((p.grad**2).sum() for p in parts)) ** 0.5
        for rank in ranks:
            rank.whole_norm = lambda norm=norm: norm
            rank.task(0.25)
            rank.step()
    for p, q in zip(whole, parts, strict=True):
        torch.testing.assert_close(p, q)


def test_a_gradient_of_zero_moves_nothing():
    theta, _ = steps([([0.0, 0.0], 0.5, 1.0)])
    assert theta.tolist() == [1.0, 2.0]


def test_the_state_saves_and_goes_on_where_it_was():
    def run(cut: int) -> torch.Tensor:
        rng = torch.Generator().manual_seed(5)
        theta = nn.Parameter(torch.tensor([1.0, 2.0]))
        optimizer = BalancedAdamW([theta], lr=0.1)
        for t in range(6):
            if t == cut:
                kept = optimizer.state_dict()
                optimizer = BalancedAdamW([theta], lr=0.1)
                optimizer.load_state_dict(kept)
            theta.grad = torch.randn(2, generator=rng)
            optimizer.task((0.25, 0.75)[t % 2])
            optimizer.step()
        return theta.detach()

    assert torch.equal(run(cut=3), run(cut=99))


def test_a_share_outside_its_range_is_refused():
    optimizer = BalancedAdamW([nn.Parameter(torch.ones(2))])
    for share in (0.0, 1.5, -1.0):
        with pytest.raises(ValueError, match=r"share must lie in \(0, 1\]"):
            optimizer.task(share)


def test_only_matrices_of_linears_and_convolutions_decay():
    net = nn.ModuleDict({"l": nn.Linear(3, 5), "n": nn.LayerNorm(5), "e": nn.Embedding(7, 3), "c": nn.Conv2d(3, 2, 3)})
    decayed, plain = parameter_groups(net, 0.1)
    assert [tuple(p.shape) for p in decayed["params"]] == [(5, 3), (2, 3, 3, 3)]
    assert len(plain["params"]) == 5 and plain["weight_decay"] == 0


def test_the_rate_warms_up_and_ends_at_its_floor():
    rates = [learning_rate(t, 100, 10) for t in range(100)]
    assert rates[0] == 0.1 and rates[9] == 1.0 and rates[10] == 1.0
    assert all(b <= a for a, b in pairwise(rates[10:])) and rates[-1] >= 0.01
    assert learning_rate(100, 100, 10) == 0.01


def moved(kind: str, share: float, factor: float) -> float:
    """How far a draw moves what one step in 1 / share uses, over the rate, once its moments are steady."""
    every, draws = round(1 / share), 400
    theta = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    made = torch.optim.AdamW if kind == "adamw" else BalancedAdamW
    optimizer: Any = made([{"params": [theta], "factor": factor}], lr=1.0, betas=(0.9, 0.99), weight_decay=0.0)
    places = []
    for step in range(draws * every):
        if step % every == 0:
            places.append(float(theta.detach()))
        theta.grad = torch.full((1,), float(step % every == 0), dtype=torch.float64)
        set_rate(optimizer, 1e-3)
        if kind == "balanced":
            optimizer.whole_norm = lambda: 1.0  # the whole gradient's: other parameters have theirs when this has none
            optimizer.task(share)
        optimizer.step()
    return (places[-11] - places[-1]) / 10 / 1e-3


@pytest.mark.parametrize("kind", ["adamw", "balanced"])
def test_a_draw_moves_a_rare_tokenizer_as_far_as_a_step_of_its_task_alone(kind):
    recipe = tiny(optimizer__kind=kind, optimizer__by_share=True)
    recipe.tasks[0].share = 15.0
    prepare(recipe)
    factors = shares_factors(recipe)
    assert moved(kind, 1 / 16, 1.0) > 3.5 and moved(kind, 1.0, 1.0) == pytest.approx(1.0, rel=0.01)
    assert moved(kind, 1 / 16, factors["model.tokenizers.table."]) == pytest.approx(1.0, rel=0.1)
    assert "model.tokenizers.text." not in factors and "model.tokenizers.summary." not in factors  # all tasks use them


def test_the_factors_reach_the_rates_and_only_where_they_are_asked_for():
    for asked in (False, True):
        recipe = tiny(optimizer__by_share=asked, optimizer__kind="adamw")
        prepared = prepare(recipe)
        objective = Objective(prepared.model(recipe), prepared.sets, prepared.modalities)
        optimizer = build_optimizer(recipe, objective)
        set_rate(optimizer, 0.1)
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        assert len(rates) == len(list(objective.parameters()))
        own = ("model.tokenizers.image.", "model.tokenizers.table.")
        for name, parameter in objective.named_parameters():
            half = asked and name.startswith(own)
            assert rates[id(parameter)] == pytest.approx(0.1 * (0.5**0.5 if half else 1.0)), name
