"""Validation while training: what a look costs and leaves alone, which weights are kept, which tasks are finished."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from generalist.data.base.errors import UserError
from generalist.data.stream.schedule import BLOCK, Schedule
from generalist.run import train as run
from generalist.run.attempt import Interrupted
from generalist.run.looks import History, Look, planned, read
from generalist.run.train import train_run
from generalist.train.average import Average
from generalist.train.checkpoints import checkpoint
from generalist.train.events import read_log
from generalist.train.optimizer import learning_rate
from tests.test_resume import same, stop_at, untimed, weights
from tests.tiny import tiny

LOOKING = {"validation__every": 3, "validation__cost": 100.0}
UNTIMED = {"looked"}


def log(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in event.items() if k not in UNTIMED} for event in untimed(folder)]


@pytest.fixture(scope="module")
def looked(tmp_path_factory):
    """A run of twelve steps that is looked at every three, with an average of its weights."""
    folder = tmp_path_factory.mktemp("looked") / "run"
    metrics = train_run(tiny(**LOOKING, optimizer__ema=0.9, baseline="false"), folder, quiet=True)
    return folder, metrics


def test_looks_change_nothing_of_what_is_learnt(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "finish", lambda *a, **k: {})
    train_run(tiny(model__drop_path=0.3), tmp_path / "without", quiet=True)
    train_run(tiny(model__drop_path=0.3, **LOOKING), tmp_path / "with", quiet=True)
    steps = [[e for e in log(tmp_path / name) if "loss" in e] for name in ("without", "with")]
    assert steps[0] == steps[1]
    states = [
        torch.load(checkpoint.latest(tmp_path / n)[1] / "state.pt", weights_only=True) for n in ("without", "with")
    ]
    assert same(*states)
    assert [look.step for look in read(tmp_path / "with").looks] == [0, 3, 6, 9, 12]


def test_the_saved_model_is_that_of_the_best_look(looked):
    folder, metrics = looked
    history = read(folder)
    best = history.best()
    assert metrics["validation"]["best"] == best and metrics["validation"]["looks"] == 5
    held = torch.load(folder / "best" / f"step-{best:08d}.pt", weights_only=True)
    saved = weights(folder)
    assert all(torch.equal(saved[name.removeprefix("model.")], v) for name, v in held.items() if name[6:] in saved)
    assert {p.name for p in (folder / "best").glob("*.pt")} == {f"step-{s:08d}.pt" for s in history.bests()} | {
        f"step-{s:08d}.pt" for until, _ in checkpoint.checkpoints(folder) for s in history.bests(until)
    }
    for name in ("digits", "wine"):  # a task whose own best look is another has its own folder
        assert (folder / "best" / name / "model.safetensors").is_file() == (history.best(name) != best)


def test_the_curve_is_in_the_log_and_in_the_report(looked):
    folder, _ = looked
    looks = [e for e in read_log(folder) if "val/score" in e]
    assert [e["step"] for e in looks] == [0, 2, 5, 8, 11]
    assert [e["val/wine/accuracy"] for e in looks] == [look.values["wine"]["accuracy"] for look in read(folder).looks]
    page = (folder / "report.html").read_text()
    assert "wine: validation accuracy" in page and "validation accuracy of wine by step" in page


@pytest.mark.parametrize("step", [7])
def test_a_killed_run_goes_on_to_the_same_looks_and_weights(step, looked, tmp_path, monkeypatch):
    keys = {**LOOKING, "optimizer__ema": 0.9, "baseline": "false"}
    with monkeypatch.context() as patch:
        stop_at(step, patch)
        with pytest.raises(Interrupted):
            train_run(tiny(**keys), tmp_path / "parts", quiet=True)
    train_run(tiny(**keys), tmp_path / "parts", resume=True, quiet=True)
    whole, _ = looked
    assert log(whole) == log(tmp_path / "parts")
    assert read(whole) == read(tmp_path / "parts")
    assert same(weights(whole), weights(tmp_path / "parts"))
    ends = [checkpoint.latest(folder)[1] for folder in (whole, tmp_path / "parts")]
    assert same(*(torch.load(end / "average.pt", weights_only=True) for end in ends))
    assert same(*(torch.load(end / "state.pt", weights_only=True) for end in ends))


def test_tasks_are_finished_one_by_one_and_leave_their_steps_to_the_others(tmp_path, monkeypatch):
    from generalist.run import looks

    # wine gets no better behind the second look, digits behind the fourth
    held = iter(range(100))
    steps: dict[str, list[float]] = {"digits": [0.1, 0.2, 0.3, 0.4], "wine": [0.1, 0.5]}

    def told(task, records, objective):
        number = next(held) // 2
        own = steps[task.name]
        value = own[min(number, len(own) - 1)]
        return {"accuracy": value}, (value, 0.0)

    monkeypatch.setattr(looks, "scored", told)
    monkeypatch.setattr(run, "finish", lambda *a, **k: {})
    keys = {"validation__every": 6, "validation__cost": 100.0, "validation__patience": 2, "steps": 200}
    train_run(tiny(**keys), tmp_path / "run", quiet=True)
    assert read(tmp_path / "run").finished == {"wine": 18, "digits": 30}
    events = [e for e in read_log(tmp_path / "run") if "task" in e]
    assert events[-1]["step"] == 29 and len(events) == 30  # the run ends with its last task
    assert {e["task"] for e in events if e["step"] < 18} == {"digits", "wine"}
    assert {e["task"] for e in events if e["step"] >= 18} == {"digits"}
    train_run(tiny(**keys), tmp_path / "run", resume=True, quiet=True)  # nothing is left to do
    assert [e["step"] for e in read_log(tmp_path / "run") if "task" in e][-1] == 29


def test_a_finished_task_is_not_drawn_and_counts_stay_those_of_the_draws():
    names, shares = ["a", "b", "c"], [5.0, 3.0, 2.0]
    finished = {"c": 70, "a": 2 * BLOCK + 5}
    schedule, plain = Schedule(names, shares, 3, False, finished), Schedule(names, shares, 3)
    drawn = [schedule.task_at(step) for step in range(4 * BLOCK)]
    assert drawn[:70] == [plain.task_at(step) for step in range(70)]
    assert set(drawn[70 : 2 * BLOCK + 5]) == {"a", "b"} and set(drawn[2 * BLOCK + 5 :]) == {"b"}
    assert (schedule.share("a", 69), schedule.share("a", 70), schedule.share("b", 200)) == (0.5, 0.625, 1.0)
    for step in (69, 70, 71, 133, 134, 250):
        assert [schedule.draws_before(step, n) for n in names] == [drawn[:step].count(n) for n in names]


def test_how_often_is_looked_at_how_much_follows_from_counts_alone():
    recipe, held = tiny(validation__every=50, validation__cost=0.05, steps=20_000), {"digits": 1000, "wine": 30}
    # a task has half of the steps: 0.5 * 8 / 0.5 = 8 samples a step's time, so 1000 take 125 steps, and the look itself
    # three: 1000 steps' time are 7 looks, 6 stretches of the training
    assert planned(recipe, held) == (3334, {"digits": 1000, "wine": 30})
    assert planned(recipe, held, world=2) == (1177, {"digits": 210, "wine": 30})
    assert planned(recipe, held, views={"digits": 9}) == (6667, {"digits": 219, "wine": 30})
    recipe.steps, recipe.validation.every = 100_000, 5_000
    assert planned(recipe, held) == (5_000, {"digits": 1000, "wine": 30})


@pytest.mark.parametrize("steps", [40, 135, 600, 4_000, 50_000])
@pytest.mark.parametrize("size", [20, 300, 5_000])
def test_all_looks_together_are_within_their_share_of_the_training(steps, size):
    recipe = tiny(validation__every=max(1, steps // 24), validation__cost=0.05, steps=steps)
    every, sizes = planned(recipe, {"digits": size, "wine": size})
    looks = 1 + -(-steps // every)
    cost = looks * (3 + sum(n * 0.5 / 8 for n in sizes.values()))
    assert cost <= 0.05 * steps or (looks == 2 and set(sizes.values()) == {1})
    if steps >= 4_000:
        assert min(sizes.values()) >= min(size, 64) and looks >= 4  # no accident of few samples chooses the best


def test_the_best_look_is_the_first_of_equals_and_ties_go_to_the_smaller_misfit():
    scores = [(0.5, -1.0), (0.9, -2.0), (0.9, -1.5), (0.9, -1.5), (0.8, -0.1)]
    history = History([Look(10 * i, {}, {"t": s}) for i, s in enumerate(scores)])
    assert history.best() == 20 and history.best("t", until=10) == 10 and history.waited("t") == 2
    assert History.from_json(json.loads(json.dumps(history.to_json()))) == history


def test_an_average_follows_the_weights_and_gives_them_back():
    layer = torch.nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    average = Average(layer, 0.5)
    with torch.no_grad():
        layer.weight.fill_(3.0)
    average.update()
    d = 2 / 11  # (1 + n) / (10 + n) of the first step
    with average.in_place():
        assert torch.allclose(layer.weight, torch.full((2, 2), d * 1 + (1 - d) * 3))
    assert torch.equal(layer.weight, torch.full((2, 2), 3.0))
    for _ in range(60):
        average.update()
    assert torch.allclose(average.held["weight"], torch.full((2, 2), 3.0))


def test_a_checkpoint_without_an_average_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "finish", lambda *a, **k: {})
    with monkeypatch.context() as patch:
        stop_at(2, patch)
        with pytest.raises(Interrupted):
            train_run(tiny(optimizer__ema=0.9), tmp_path / "run", quiet=True)
    with pytest.raises(UserError, match=r"optimizer.ema: 0.9 -> 0.0"):
        train_run(tiny(), tmp_path / "run", resume=True, quiet=True)


@pytest.mark.parametrize(
    ("schedule", "at"),
    [
        ("cosine", {0: 0.1, 9: 1.0, 55: 0.5, 100: 0.01}),
        ("linear", {0: 0.1, 9: 1.0, 55: 0.5, 100: 0.01}),
        ("constant", {0: 0.1, 9: 1.0, 55: 1.0, 100: 1.0}),
        ("wsd", {0: 0.1, 9: 1.0, 80: 1.0, 90: 0.5, 100: 0.01}),
    ],
)
def test_the_rate_goes_as_its_schedule_says(schedule, at):
    found = {step: learning_rate(step, 100, 10, 0.01, schedule, 0.2) for step in at}
    assert found == pytest.approx(at)


def test_an_unknown_schedule_is_said_before_the_first_step():
    with pytest.raises(UserError, match="did you mean 'cosine'"):
        tiny(optimizer__schedule="cosin").check()
