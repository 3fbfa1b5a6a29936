"""Many candidates: losses and gradients in chunks, and a policy chosen by its measured cost."""

import pytest
import torch
from test_candidates import LABELS, batch, modalities, objective

from generalist.model import candidates, many
from generalist.model import objective as objectives
from generalist.tasks.candidates.likelihood import negative_log_likelihood


@pytest.fixture(scope="module")
def made():
    return modalities()


def scores(queries, members):
    return queries @ members.T * 3


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("soft", [False, True])
def test_a_loss_in_chunks_is_the_loss_with_its_gradient(smoothing, soft):
    torch.manual_seed(0)
    found = []
    queries, members = torch.randn(3, 2, 8, dtype=torch.float64), torch.randn(23, 8, dtype=torch.float64)
    target = torch.tensor([[0, 22], [-1, 7], [7, 8]])
    if soft:
        target = torch.rand(3, 2, 23, dtype=torch.float64)
        target[0, 1] = torch.nan
    for most in (6 * 5, None):  # five members at once, or all
        q, m = queries.clone().requires_grad_(), members.clone().requires_grad_()
        if most is None:
            loss = negative_log_likelihood(scores(q, m).log_softmax(-1), target, smoothing)[0]
        else:
            loss = many.summed_loss(scores, q, m, target, smoothing, most)
        loss.sum().backward()
        found.append([loss.detach(), q.grad, m.grad])
    for own, wanted in zip(*found, strict=True):
        torch.testing.assert_close(own, wanted)


def test_members_encoded_in_chunks_train_as_all_at_once(made, monkeypatch):
    whole, b = objective(made), batch(made, LABELS, smoothing=0.1)
    whole(b).sum().backward()
    parts = objective(made)
    monkeypatch.setattr(many, "CHUNK", 10)
    monkeypatch.setattr(many, "ACTIVATIONS", 1000)
    monkeypatch.setattr(objectives, "SCORES", 20)
    looked = []
    look = many.summed_loss
    monkeypatch.setattr(objectives, "summed_loss", lambda *given: looked.append(1) or look(*given, most=35))
    loss = parts(b)
    loss.sum().backward()
    assert looked and float(loss.detach()) == pytest.approx(float(whole(b).detach()), rel=1e-6)
    for (name, own), other in zip(parts.named_parameters(), whole.parameters(), strict=True):
        assert (own.grad is None) == (other.grad is None), name
        if own.grad is not None:
            torch.testing.assert_close(own.grad, other.grad, atol=1e-6, rtol=1e-4)


def test_a_set_whose_loss_looks_at_all_members_is_not_summed_in_chunks(made, monkeypatch):
    monkeypatch.setattr(objectives, "SCORES", 1)
    monkeypatch.setattr(objectives, "summed_loss", lambda *given: pytest.fail("summed in chunks"))
    values = torch.tensor([-1.5, 0.3, 1.2, 0.4, 0.9])
    assert torch.isfinite(objective(made)(batch(made, values, task="numbers"))).all()
    with pytest.raises(pytest.fail.Exception):
        objective(made)(batch(made, LABELS))


def timed(monkeypatch, *costs):
    """Uses of the policies cost these seconds, in turn; what was told."""
    ticks = iter([tick for cost in costs for tick in (0.0, cost)])
    monkeypatch.setattr(candidates, "clock", lambda device: next(ticks))
    return []


@pytest.mark.parametrize(("costs", "taken"), [((1.0, 0.5) * 3, 1), ((1.0, 0.7) * 3, 0)])
def test_auto_takes_the_sample_where_it_costs_clearly_less_and_says_so(made, monkeypatch, costs, taken):
    one = objective(made, words={"policy": "auto", "size": 6})
    policy, told = one.policies[0], timed(monkeypatch, *costs)
    policy.told = told.append
    for _ in range(6):
        assert torch.isfinite(one(batch(made, LABELS))).all()
    assert int(policy.taken) == taken and len(told) == 1
    assert told[0].startswith(f"{('exact', 'sampled')[taken]} is taken (sampled costs 0.{5 if taken else 7}0 of exact")
    one(batch(made, LABELS))  # no clock is left to be looked at
    again = objective(made, words={"policy": "auto", "size": 6})
    again.load_state_dict(one.state_dict())
    assert int(again.policies[0].taken) == taken
    again(batch(made, LABELS))
    exact = objective(made)(batch(made, LABELS))
    assert bool(torch.allclose(again(batch(made, LABELS)), exact)) == (taken == 0)


def test_auto_caches_what_cannot_be_sampled(made, monkeypatch):
    one = objective(made, numbers={"policy": "auto", "every": 4})
    policy = one.policies[2]
    told = timed(monkeypatch, 1.0, 1.0, 1.0, 0.1, 1.0, 0.1)
    policy.told = told.append
    values = torch.tensor([-1.5, 0.3, 1.2])
    for _ in range(6):
        one(batch(made, values, task="numbers"))
    assert int(policy.taken) == 1 and told[0].startswith("cached is taken (cached costs 0.33")  # (1 + 3 * .1) / 4


def test_a_sample_of_half_the_set_is_the_set(made):
    one = objective(made, words={"policy": "sampled", "size": 18})  # of 35
    assert torch.equal(one(batch(made, LABELS)), objective(made)(batch(made, LABELS)))
