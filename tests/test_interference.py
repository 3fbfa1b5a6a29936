"""The interference meter: its numbers by hand, on gradients of a real optimiser, and in a run's folder."""

import json

import pytest
import torch
from torch import nn

from generalist.report.sections.interference import interference_section
from generalist.train.interference import InterferenceMeter, cosine, matrices, watched
from generalist.train.optimizer import BalancedAdamW


def test_numbers_of_a_case_worked_out_by_hand():
    """Task a's gradients are (2, 0) and (4, 0), task b's (-1, 0) and (0, 3)."""
    found = matrices({"a": torch.tensor([[2.0, 0], [4, 0]]), "b": torch.tensor([[-1.0, 0], [0, 3]])})
    assert found["tasks"] == ["a", "b"] and found["norm"] == [3, 2]
    # cosines: a-a 1; a-b: -1, 0, -1, 0 -> -.5; b-b (different batches) 0
    torch.testing.assert_close(torch.tensor(found["cosine"]), torch.tensor([[1.0, -0.5], [-0.5, 0.0]]))
    # Delta_aa = (2 + 4) / 2 = 3; Delta_ba on a's loss: units (-1, 0), (0, 1) with (2, 0), (4, 0): mean -1.5
    assert found["interference"][0] == [pytest.approx(1), pytest.approx(-0.5)]
    # Delta_bb = 0: a share of nothing is not a number
    assert found["interference"][1] == [None, None]


def test_a_task_interferes_with_itself_by_one_and_scale_does_not_matter():
    torch.manual_seed(2)
    base = torch.randn(1, 7)
    a, b = base + 0.3 * torch.randn(5, 7), -base + 0.3 * torch.randn(3, 7)
    found, scaled = matrices({"a": a, "b": b}), matrices({"a": a * 10, "b": b})
    assert found["interference"][0][0] == pytest.approx(1) and found["interference"][1][1] == pytest.approx(1)
    assert found["interference"][0][1] < -0.5
    torch.testing.assert_close(torch.tensor(found["interference"]), torch.tensor(scaled["interference"]))
    torch.testing.assert_close(torch.tensor(found["cosine"]), torch.tensor(found["cosine"]).T)


def test_the_meter_takes_gradients_before_the_step_and_gives_them_to_their_task():
    torch.manual_seed(0)
    layer = nn.Linear(3, 5)
    optimizer = BalancedAdamW(layer.parameters(), lr=0.1)
    meter = InterferenceMeter([layer.weight], keep=2).attach(optimizer)
    expected = []
    for step in range(5):
        x = torch.randn(7, 3)
        loss = layer(x).pow(2).mean() if step % 2 else -layer(x).sum()
        optimizer.zero_grad()
        loss.backward()
        expected.append(layer.weight.grad.flatten().clone())
        optimizer.step()
        said = meter.after("even" if step % 2 == 0 else "odd")
        assert said["watched_norm"] == pytest.approx(float(expected[-1].norm()))
        if step:
            assert said[f"cosine {'odd' if step % 2 == 0 else 'even'}"] == pytest.approx(
                float(cosine(expected[-1], expected[-2])), abs=1e-6
            )
    assert [len(meter.samples[k]) for k in ("even", "odd")] == [2, 2]
    torch.testing.assert_close(meter.samples["even"][-1], expected[4])
    assert meter.after("even") == {}  # no step since


def test_the_watched_matrices_are_those_of_three_layers():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlp = nn.ModuleDict({"down": nn.Linear(2, 2), "up": nn.Linear(2, 2)})

    model = nn.ModuleDict({"layers": nn.ModuleList(Block() for _ in range(12))})
    ids = {id(p): n for n, p in model.named_parameters()}
    assert [ids[id(p)] for p in watched(model)] == [f"layers.{i}.mlp.down.weight" for i in (3, 7, 11)]


def test_a_run_logs_draws_and_keeps_its_interference(tmp_path):
    from generalist.run.train import train_run
    from tests.tiny import tiny

    train_run(tiny(optimizer__interference=4), tmp_path, quiet=True)
    found = json.loads((tmp_path / "interference.json").read_text())
    assert found["tasks"] == ["digits", "wine"] and min(found["samples"]) >= 2
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert any("cosine wine" in line for line in lines) and all("watched_norm" in line for line in lines)
    assert "interference of the tasks" in (tmp_path / "report.html").read_text()


def test_the_drawing_says_what_is_not_known():
    html = interference_section(matrices({"a": torch.ones(1, 3), "b<": torch.ones(2, 3)}))
    assert "–" in html and "b&lt;" in html and "b<" not in html
