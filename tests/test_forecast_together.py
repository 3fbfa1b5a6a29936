"""A forecast with the ordinary one: its likelihood over the same bins, intervals as wide as validation windows ask."""

import numpy as np
import pandas
import pytest
import torch

from generalist.data.stream.source import Records
from generalist.evaluate.widths import fitted
from generalist.fitting.api import fit
from generalist.fitting.predict import Asked
from generalist.tasks.baselines.foretold import futures
from generalist.tasks.baselines.naive import RIDGE, linear_forecast
from generalist.tasks.candidates.names import Numbers
from generalist.tasks.measures import lines
from tests.test_forecast_linear import bound, waves


@pytest.fixture(scope="module")
def told():
    """The task, its windows noisy, and what the ordinary method says of them."""
    task = bound(linear=1.0, units="data")
    parts = [Records(waves(90, noise=0.3).rows[i::3]) for i in range(3)]
    return task, parts, futures(task, *parts[:2], [parts[2]], "", refit=False)


def test_the_bins_hold_a_normal_distribution_around_what_the_method_foretells(told):
    task, (train, val, test), found = told
    assert found.name == RIDGE
    numbers = task.candidates
    for part, log_p in zip((val, test), found.log_p, strict=True):
        assert log_p.shape == (2 * len(part), 2, 16)  # three steps in slots of two
        p = torch.from_numpy(log_p).float()
        assert torch.allclose(p.exp().sum(-1), torch.ones(p.shape[:2]), atol=1e-4)
        past = np.stack([r["past"] for r in part.rows])
        learnt = [np.stack([r[name] for r in train.rows]) for name in ("past", "future")]
        guess = (past - past[:, -1:]) @ linear_forecast(*learnt) + past[:, -1:]
        middle = task.by_step(numbers.quantile(p, 0.5), len(part))
        origins = [task.origin(r) for r in part.rows]
        said = np.stack(
            [((z + o.location(numbers)) * o.std + o.mean).numpy() for z, o in zip(middle, origins, strict=True)]
        )
        unit = np.array([float(o.std) for o in origins])[:, None]
        near = np.abs(said - guess) / unit
        assert np.median(near) < 0.05  # between bins that are cut by what is left over


def test_the_method_named_is_taken_and_fitted_on_validation_windows_too(told):
    task, parts, found = told
    again = futures(task, *parts[:2], [parts[2]], RIDGE, refit=True)
    assert np.array_equal(again.log_p[0], found.log_p[0]) and not np.allclose(again.log_p[1], found.log_p[1])
    naive = futures(task, *parts[:2], [parts[2]], "seasonal naive", refit=True)
    assert naive.name == "seasonal naive" and naive.refit


def narrow(windows: int):
    """Windows of two steps whose truth strays once and three times as far as a likelihood says that is half as wide."""
    torch.manual_seed(0)
    numbers = Numbers(edges=[i / 20 for i in range(-200, 201)])
    centres = torch.linspace(-9.975, 9.975, 400)
    log_p = (-(centres**2) / (2 * 0.5**2)).log_softmax(-1).expand(windows, 2, -1)
    return numbers, log_p, torch.randn(windows, 2) * torch.tensor([1.0, 3.0])


def test_intervals_hold_four_fifths_at_every_step_whatever_the_model_says():
    numbers, log_p, labels = narrow(2000)
    widths = fitted(numbers, log_p, labels)
    assert widths == pytest.approx([2.0, 6.0], rel=0.1)
    flat, truth = log_p.flatten(0, 1), labels.flatten()
    before = lines.numbers(flat, truth, numbers)
    after = lines.numbers(flat, truth, numbers, widths=torch.tensor(widths).repeat(2000))
    inside = (after["low"] <= after["value"]) & (after["value"] <= after["high"])
    assert inside.reshape(2000, 2).mean(0) == pytest.approx([0.8, 0.8], abs=0.005)
    assert np.array_equal(after["median"], before["median"]) and np.array_equal(after["mean"], before["mean"])
    assert after["crps"].mean() < before["crps"].mean()
    wide = (-(torch.linspace(-9.975, 9.975, 400) ** 2) / (2 * 1.0**2)).log_softmax(-1).expand(2000, -1)
    twice = lines.numbers(flat[::2], truth[::2], numbers, widths=torch.full((2000,), 2.0))
    assert twice["crps"] == pytest.approx(lines.numbers(wide, truth[::2], numbers)["crps"], abs=0.02)


def test_few_windows_give_one_width_and_a_handful_none():
    assert len(set(fitted(*narrow(60)))) == 1
    assert fitted(*narrow(12)) == []


def test_a_fitted_forecast_answers_with_what_validation_vouches_for(tmp_path):
    rng = np.random.default_rng(0)
    t = np.arange(600)
    load = 20 + 5 * np.sin(2 * np.pi * t / 24) + np.cumsum(rng.normal(size=600)) * 0.2 + rng.normal(size=600) * 0.3
    frame = pandas.DataFrame({"time": pandas.date_range("2024-01-01", periods=600, freq="h"), "load": load})
    frame.to_csv(tmp_path / "load.csv", index=False)
    run = fit(str(tmp_path / "load.csv"), forecast=6, date="time", time=4, out=tmp_path / "run", encoders=False)
    line = next(iter(run.metrics["tasks"].values()))
    both = line["together"]
    assert both["method"] == line["baseline_name"] and both["value"] < 1.25 * min(line["value"], line["baseline"])
    assert len(both["widths"]) == 6 and both["measures"]["coverage of 80% interval"] == pytest.approx(0.8, abs=0.2)
    for alone in (False, True):
        asked = Asked(run.path, model_only=alone)
        said = asked.answers(asked.records(str(tmp_path / "load.csv")))
        assert [one["step"] for one in said] == [1, 2, 3, 4, 5, 6] and not asked.notes
        assert all(one["low"] < one["answer"] < one["high"] for one in said)
