"""A linear forecast under the answers: found in closed form, taken off before training and put back after."""

import numpy as np
import pytest
import torch

from data.errors import UserError
from data.source import Records
from generalist import measures
from tasks import baselines, ridge
from tasks.candidates import Numbers, Residuals, candidate_set
from tasks.forecast import Forecast
from tasks.lines import Kept
from tokenizers_mod.number import Number
from tokenizers_mod.series import Series
from tokenizers_mod.slot import Slot
from tokenizers_mod.summary import Summary


def waves(count=60, length=20, horizon=3, noise=0.0):
    """Sums of two waves of random phase and size: linear in their past."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        t = np.arange(length + horizon)
        y = sum(rng.uniform(1, 3) * np.sin(2 * np.pi * t / p + rng.uniform(0, 6)) for p in (5, 7))
        y = 10 * (i + 1) + (i + 1) * y + noise * rng.normal(size=len(t))
        rows.append({"id": str(i), "past": y[:length], "future": y[length:], "period": 5})
    return Records(rows, {})


class Source:
    def open(self, split):
        return waves()


def bound(**settings):
    task = Forecast(name="waves", source=Source(), horizon=3, bins=16, **settings)
    modalities = {"summary": Summary(), "series": Series(patch=4), "slot": Slot(patch=2), "number": Number()}
    task.modalities = modalities
    task.bind(modalities, task.candidate_set(waves()), {})
    return task


def test_the_closed_form_solves_its_normal_equations():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 7)), rng.normal(size=(50, 3))
    found = ridge.fit(((torch.tensor(a), torch.tensor(b)) for a, b in zip(x, y, strict=True)), 5, 2.0)
    newest = x[:, -5:]
    expected = np.linalg.solve(newest.T @ newest + 2 * np.eye(5), newest.T @ y)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_short_or_holed_past_counts_as_its_mean_where_it_is_unknown():
    past = torch.tensor([float("nan"), 2.0])
    assert ridge.newest(past, 4).tolist() == [0, 0, 0, 2]


def test_a_linear_series_leaves_next_to_nothing_to_answer():
    plain, linear = bound(), bound(linear=1e-6)
    record = waves()[7]
    labels = [task.example(record).inputs[-1].labels for task in (plain, linear)]
    assert labels[0].nan_to_num().abs().max() > 0.1
    assert labels[1].nan_to_num().abs().max() < 1e-3


def test_what_is_taken_off_is_put_back():
    task = bound(linear=1e-6)
    record = waves()[7]
    sharp = torch.full((2, 2, len(task.candidates.edges) - 1), -20.0)
    zero = int(np.searchsorted(task.candidates.edges, 0.0)) - 1
    sharp[..., zero] = 0.0
    median = task.origin(record).quantiles(task.candidates, sharp.log_softmax(-1), (0.5,))[0]
    np.testing.assert_allclose(median.numpy(), record["future"], rtol=0.02)


def test_a_saved_set_gives_the_same_forecast():
    task = bound(linear=1.0)
    again = candidate_set(task.candidates.to_dict())
    past = torch.randn(20)
    assert isinstance(again, Residuals)
    assert torch.equal(again.location(past), task.candidates.location(past))
    with pytest.raises(UserError, match="damaged"):
        candidate_set(task.candidates.to_dict() | {"weights": "AAAA"})


@pytest.mark.parametrize("linear", [0.0, 1.0])
def test_lines_in_the_datas_units_are_those_in_the_pasts_scaled_and_shifted(linear):
    past, data = bound(linear=linear), bound(linear=linear, units="data")
    records = waves()
    owner = torch.tensor([4, 4, 9, 9])
    labels = torch.cat([past.example(records[i]).inputs[-1].labels for i in (4, 9)])
    log_p = torch.randn(4, 2, len(past.candidates.edges) - 1).log_softmax(-1)
    a, b = (task.keep(Kept(log_p, labels, owner, records.__getitem__)) for task in (past, data))
    truth = np.concatenate([records[4]["future"], records[9]["future"]])
    np.testing.assert_allclose(b["value"], truth, rtol=1e-5)
    scale = np.repeat([float(past.series.statistics(past.series.read(records[i]["past"]))[1]) for i in (4, 9)], 3)
    np.testing.assert_allclose(b["mean"] - b["value"], (a["mean"] - a["value"]) * scale, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(b["crps"], a["crps"] * scale, rtol=1e-5)


def test_steps_of_the_future_that_are_unknown_are_left_out_and_the_others_keep_their_place():
    task, record = bound(linear=1.0, units="data"), dict(waves()[4])
    record["future"] = np.array([record["future"][0], np.nan, record["future"][2]])
    records = Records([record], {})
    labels = task.example(record).inputs[-1].labels
    log_p = torch.randn(2, 2, len(task.candidates.edges) - 1).log_softmax(-1)
    columns = task.keep(Kept(log_p, labels, torch.tensor([0, 0]), records.__getitem__))
    np.testing.assert_allclose(columns["value"], record["future"][[0, 2]], rtol=1e-5)


def test_the_measured_errors_are_those_of_the_lines():
    task = bound(linear=1.0, units="data")
    records = Records([waves()[i] for i in range(5)], {})
    owner = torch.arange(5).repeat_interleave(2)
    log_p = torch.randn(10, 2, len(task.candidates.edges) - 1).log_softmax(-1)
    labels = torch.cat([task.example(r).inputs[-1].labels for r in records])
    columns = task.keep(Kept(log_p, labels, owner, records.__getitem__))
    found = measures.values(task.line_kind, columns)
    own = task.score(log_p, labels)["mse"].value  # in the past's deviations, which differ from series to series
    assert found["mse"] == pytest.approx(float(np.mean((columns["mean"] - columns["value"]) ** 2))) != own
    past = bound()
    found = measures.values(past.line_kind, past.keep(Kept(log_p, labels, owner, records.__getitem__)))
    assert found["mse"] == pytest.approx(past.score(log_p, labels)["mse"].value, rel=1e-5)


def test_settings_that_cannot_work_are_named():
    for settings, word in (({"linear": -1.0}, "linear"), ({"units": "metres"}, "units"), ({"inputs": {}}, "past")):
        with pytest.raises(UserError, match=word):
            Forecast(name="f", source=Source(), **settings)
    task = Forecast(name="f", source=Source(), slot="gap")
    with pytest.raises(UserError, match="gap"):
        task.bind({"summary": Summary(), "series": Series()}, Numbers([0.0, 1.0, 2.0]), {})


def test_the_baseline_of_a_linear_series_is_the_linear_one():
    with_train = baselines.forecasting("past", "future", waves(), waves(), train=waves(), units="data")
    assert with_train["baseline"] == "ridge regression on the past"
    without = baselines.forecasting("past", "future", waves(), waves(), units="data")
    assert with_train["value"] < without["value"]


def test_forecasts_alone_leave_an_empty_map():
    from types import SimpleNamespace

    from generalist.evaluate import space

    found = space([SimpleNamespace(queries=torch.randn(2, 3, 5), views=1)])  # slots ask several questions each
    assert {name: len(values) for name, values in found.items()} == {"features": 0, "task": 0, "label": 0}
