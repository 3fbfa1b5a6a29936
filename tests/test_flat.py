"""Parameters stepped end to end are stepped as each by itself; rows never used are left out to the last bit."""

import math

import pytest
import torch
from tiny import tiny
from torch import nn

from generalist.model.objective import Objective
from generalist.train.engines import flat
from generalist.train.optimizer import BalancedAdamW, build_optimizer
from generalist.train.prepare import prepare

SHAPES = [(5, 7), (3,), (1,), (4, 2, 3), (6, 5)]
TASKS = [(0.25, 1.0), (1.0, 0.3), (0.04, 2.0)]


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def groups(params: list[nn.Parameter]) -> list[dict]:
    return [{"params": params[:2], "weight_decay": 0.1}, {"params": params[2:], "weight_decay": 0.0}]


def gradients(step: int) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(step)
    return [torch.randn(shape, generator=rng) * 10.0 ** (step % 5 - 2) for shape in SHAPES]


def written_out(steps: int, lr=0.05, b1=0.9, b2=0.98, eps=1e-8, correct=True) -> list[torch.Tensor]:
    """The formulas, a parameter at a time, in double precision."""
    params = [p.detach().double() for p in parameters()]
    m, n = [torch.zeros_like(p) for p in params], [torch.zeros_like(p) for p in params]
    for t in range(1, steps + 1):
        share, omega = TASKS[t % 3]
        own = [g.double() for g in gradients(t)]
        norm = math.sqrt(sum(float((g**2).sum()) for g in own))
        for i, (p, g) in enumerate(zip(params, own, strict=True)):
            g = g * omega / norm
            m[i] = b1 * m[i] + (1 - b1) / share * g
            n[i] = b2 * n[i] + (1 - b2) / share * g * g
            c1, c2 = (1 - b1**t, 1 - b2**t) if correct else (1.0, 1.0)
            p.mul_(1 - lr * (0.1 if i < 2 else 0.0)).sub_(lr * (m[i] / c1) / ((n[i] / c2).sqrt() + eps))
    return params


@pytest.mark.parametrize("correct", [True, False])
def test_many_parameters_end_to_end_are_the_formulas_of_each(correct):
    params = parameters()
    optimizer = BalancedAdamW(groups(params), 0.05, (0.9, 0.98), bias_correction=correct)
    for t in range(1, 8):
        for p, g in zip(params, gradients(t), strict=True):
            p.grad = g
        optimizer.task(*TASKS[t % 3])
        optimizer.step()
    for p, wanted in zip(params, written_out(7, correct=correct), strict=True):
        torch.testing.assert_close(p.detach().double(), wanted, atol=2e-6, rtol=1e-5)
    moments = [optimizer.state[p]["exp_avg"] for p in params[2:]]
    assert [tuple(m.shape) for m in moments] == SHAPES[2:] and optimizer.state[params[0]]["step"] == 7
    assert len({m.untyped_storage().data_ptr() for m in moments}) == 1


def test_a_parameter_that_has_no_gradient_waits_and_the_others_go_on():
    params = parameters()
    optimizer = BalancedAdamW(groups(params), 0.05)
    for t in range(6):
        for i, (p, g) in enumerate(zip(params, gradients(t), strict=True)):
            p.grad = g if i != 3 or t % 2 else None
        before, own = params[3].detach().clone(), t % 2
        optimizer.step()
        assert torch.equal(before, params[3].detach()) != bool(own)
    assert [optimizer.state[p]["step"] for p in params] == [6, 6, 6, 3, 6]


def test_a_state_goes_on_with_the_same_bits_wherever_it_was_cut():
    def run(cut: int) -> list[torch.Tensor]:
        params = parameters()
        optimizer = BalancedAdamW(groups(params), 0.05)
        for t in range(6):
            if t == cut:
                kept = {
                    number: {key: v.clone() if isinstance(v, torch.Tensor) else v for key, v in own.items()}
                    for number, own in optimizer.state_dict()["state"].items()
                }
                whole = optimizer.state_dict() | {"state": kept}
                optimizer = BalancedAdamW(groups(params), 0.05)
                optimizer.load_state_dict(whole)
            for p, g in zip(params, gradients(t), strict=True):
                p.grad = g
            optimizer.task(*TASKS[t % 3])
            optimizer.step()
        return [p.detach() for p in params]

    whole = run(99)
    assert all(torch.equal(a, b) for cut in (1, 3, 5) for a, b in zip(run(cut), whole, strict=True))


def trained(rows_apart: bool, monkeypatch, cut: int = 99) -> tuple[torch.Tensor, list[int]]:
    """A table of 64 words of which few are met, and how many rows every step looked at."""
    monkeypatch.setattr(flat, "TABLE", 64 * 16 if rows_apart else 2**40)
    torch.manual_seed(0)
    table, other = nn.Parameter(torch.randn(64, 16)), nn.Parameter(torch.randn(7))
    made = lambda: BalancedAdamW([table, other], 0.05, (0.9, 0.98))  # noqa: E731
    optimizer, rows = made(), []
    plain = flat.Flat.runs

    def watched(self, *args):
        found = plain(self, *args)
        rows.append(sum(64 if run.rows is None else len(run.rows) for run in found if run.parameters[0] is table))
        return found

    monkeypatch.setattr(flat.Flat, "runs", watched)
    for t in range(12):
        if t == cut:
            kept, optimizer = optimizer.state_dict(), made()
            optimizer.load_state_dict(kept)
        rng = torch.Generator().manual_seed(t)
        table.grad = torch.zeros(64, 16)
        if t % 3:  # the others are steps of a task without words
            table.grad[torch.tensor([3, 5, 3 + t])] = torch.randn(3, 16, generator=rng)
        other.grad = torch.randn(7, generator=rng)
        optimizer.whole_norm = lambda: 2.0  # a sum over other numbers rounds otherwise
        optimizer.task(*TASKS[t % 3])
        optimizer.step()
    monkeypatch.setattr(flat.Flat, "runs", plain)
    state = optimizer.state[table]
    return torch.cat([table.detach(), state["exp_avg"], state["exp_avg_sq"]]), rows


def test_rows_that_no_step_has_used_are_left_out_to_the_last_bit(monkeypatch):
    dense, all_rows = trained(False, monkeypatch)
    apart, rows = trained(True, monkeypatch)
    assert torch.equal(dense, apart)
    assert set(all_rows) == {64} and rows[0] == 0 and rows[1] == 3 and rows == sorted(rows) and rows[-1] < 15
    again, _ = trained(True, monkeypatch, cut=6)
    assert torch.equal(dense, again)


def test_a_table_of_which_most_rows_are_used_is_stepped_whole(monkeypatch):
    monkeypatch.setattr(flat, "TABLE", 1)
    table = nn.Parameter(torch.zeros(8, 4))
    optimizer = BalancedAdamW([table], 0.1)
    table.grad = torch.ones(8, 4)
    optimizer.step()
    assert table in optimizer.flat.dense and float(table.detach().max()) < 0


def test_adamw_is_torchs_own_in_one_pass():
    recipe = tiny(optimizer__kind="adamw")
    prepared = prepare(recipe)
    objective = Objective(prepared.model(recipe), prepared.sets, prepared.modalities)
    assert build_optimizer(recipe, objective, fused=True).defaults["fused"] is True
