"""A linear forecast under the answers: found in closed form, taken off before training and put back after."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from generalist.data.base.errors import UserError
from generalist.data.stream.source import Records
from generalist.evaluate import measures
from generalist.tasks.baselines import baselines
from generalist.tasks.baselines.budget import rehearsal
from generalist.tasks.candidates import ridge
from generalist.tasks.candidates.names import Numbers, Residuals, candidate_set
from generalist.tasks.kinds.forecast import Forecast
from generalist.tasks.measures.lines import Kept
from generalist.tokenizers_mod.numbers import bins
from generalist.tokenizers_mod.numbers.number import Number
from generalist.tokenizers_mod.numbers.series import Series
from generalist.tokenizers_mod.numbers.slot import Slot
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text


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

    from generalist.evaluate.answer import space

    found = space([SimpleNamespace(queries=torch.randn(2, 3, 5), views=1)])  # slots ask several questions each
    assert {name: len(values) for name, values in found.items()} == {"features": 0, "task": 0, "label": 0}


# --- windows whose past hardly moves ---


@dataclass
class Stretches:
    """A lively hourly series that stands still for 90 steps (deviation .001) again and again, as ETTh2's do."""

    def open(self, split):
        rng, t = np.random.default_rng(1), np.arange(3000)
        y = np.sin(2 * np.pi * t / 24) + 0.5 * np.sin(2 * np.pi * t / 12 + 1)
        y += 0.03 * np.cumsum(rng.normal(size=len(t))) + 0.15 * rng.normal(size=len(t))
        for start in range(200, 2800, 400):
            y[start : start + 90] = y[start] + 0.001 * rng.normal(size=90)
        low, high = {"train": (72, 2000), "val": (2000, 2400), "test": (2400, 3000)}[split]
        rows = [
            {"id": str(i), "past": y[i - 72 : i], "future": y[i : i + 24], "period": 24, "series": "y"}
            for i in range(low, high - 24, 3)
        ]
        return Records(rows, {})


def test_windows_that_stand_still_do_not_decide_the_line():
    source = Stretches()
    task = Forecast(name="s", source=source, horizon=24, linear=10.0, units="data")
    task.modalities = {"summary": Summary(), "series": Series(patch=8), "slot": Slot(patch=8), "number": Number()}
    train, val, test = (source.open(split) for split in ("train", "val", "test"))

    def error():
        task.bind(task.modalities, task.candidate_set(train), {})
        off = []
        for record in test:
            origin = task.origin(record)
            guess = origin.location(task.candidates).double() * origin.std + origin.mean
            off.append(np.abs(guess.numpy() - record["future"]).mean())
        return float(np.mean(off))

    plain = baselines.forecasting("past", "future", val, test, train=train, units="data")
    assert plain["baseline"] == "ridge regression on the past"
    # with three seeds 1.007 to 1.02 times it, and 27 to 37 times it where all windows count alike
    assert error() < 1.1 * plain["value"]
    # and no bin lies where only windows that stand still are
    assert max(map(abs, (task.candidates.edges[0], task.candidates.edges[-1]))) < 10


def test_a_run_on_such_a_series_ends_near_the_line(tmp_path):
    from tiny import tiny

    from generalist.run.train import train_run

    recipe = tiny(steps=30, checkpoint__every=0)
    recipe.modalities = {"summary": Summary(), "text": Text(tokenizer="clip", max_length=8, positions=8)}
    recipe.modalities |= {"series": Series(patch=8), "slot": Slot(patch=8), "number": Number()}
    recipe.tasks = [
        Forecast(name="s", source=Stretches(), horizon=24, linear=10.0, units="data", auxiliary=0.5, batch=32)
    ]
    line = train_run(recipe, tmp_path / "run", quiet=True)["tasks"]["s"]
    assert line["value"] < 1.1 * line["baseline"]
    assert not any("left out" in note for note in line["notes"])


def test_how_much_a_window_counts():
    counts = ridge.influence([2.0, 2.0, 2.0, 0.002], "aaaa")
    square = np.array([4.0, 4.0, 4.0, 4e-6])
    expected = square / (square + square.mean())
    np.testing.assert_allclose(counts.numpy(), expected / expected.mean())
    assert counts[3] < 1e-5 * counts[0]
    # each series by its own level, whatever its unit
    twice = ridge.influence([2.0, 1.0, 2000.0, 1000.0], "aabb")
    torch.testing.assert_close(twice[:2], twice[2:])
    torch.testing.assert_close(ridge.influence([3.0, 3.0], "ab"), torch.ones(2, dtype=torch.float64))
    assert ridge.influence([0.0, 0.0], "aa").tolist() == [1, 1]


def test_weights_are_rows_that_stand_several_times():
    rng = np.random.default_rng(0)
    rows = [(torch.tensor(rng.normal(size=4)), torch.tensor(rng.normal(size=2))) for _ in range(9)]
    found = ridge.fit(rows, 4, 1.0, torch.tensor([3.0] + [1.0] * 8))
    torch.testing.assert_close(found, ridge.fit([rows[0], rows[0], *rows], 4, 1.0))


def test_bins_hold_equal_shares_of_the_weights():
    values = torch.cat([torch.linspace(-1, 1, 2001), torch.full((500,), 300.0)])
    weights = torch.cat([torch.ones(2001), torch.full((500,), 1e-6)])
    edges = bins.quantile_edges(values, 8, weights)
    torch.testing.assert_close(edges[1:-1], torch.linspace(-0.75, 0.75, 7), atol=2e-3, rtol=0)
    plain = bins.quantile_edges(values, 8)
    torch.testing.assert_close(bins.quantile_edges(values, 8, torch.ones(2501)), plain, atol=2e-3, rtol=0)


def test_a_rehearsal_on_first_windows_with_gaps_says_nothing_of_the_later_ones():
    gaps = Records([{"past": [1.0, 2.0, 3.0], "future": [4.0, float("nan")]}] * 4, {})
    reached = []
    with rehearsal():
        baselines.forecasting("past", "future", gaps, gaps, train=gaps)
        reached.append(True)
    assert not reached  # found fit for the work, which is not done
    with pytest.raises(ValueError, match="no test window has a complete future"):
        baselines.forecasting("past", "future", gaps, gaps, train=gaps)


def test_the_error_shown_beside_a_forecast_is_of_the_steps_that_came():
    task, record = bound(linear=1e-6), dict(waves()[7])
    sharp = torch.full((2, 2, len(task.candidates.edges) - 1), -20.0)
    sharp[..., int(np.searchsorted(task.candidates.edges, 0.0)) - 1] = 0.0
    labels = task.example(record).inputs[-1].labels
    median = task.origin(record).quantiles(task.candidates, sharp.log_softmax(-1), (0.5,))[0]
    record["future"] = np.array([float(median[0]) + 3, np.nan, float(median[2]) - 5])
    shown = task.show(record, sharp.log_softmax(-1), labels, [])
    assert shown["answers"] == [["median forecast, mean absolute error 4", 1.0]]
