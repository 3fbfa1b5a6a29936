"""Logs as they are: a clock found by its type, rows out of order, gaps and empty cells as masked steps."""

import datetime

import numpy as np
import pytest
import torch
from small import modalities

from generalist.data.base.errors import UserError
from generalist.data.sources.windows import Windows
from generalist.tasks.kinds.forecast import Forecast

N = 300
VALUES = np.sin(np.arange(N) / 24 * 2 * np.pi) + np.arange(N) / 100
HOURS = [datetime.datetime(2023, 3, 20) + datetime.timedelta(hours=i) for i in range(N)]
CLOCKS = {
    "epoch": [1700000000 + 3600 * i for i in range(N)],
    "date": [h.isoformat() for h in HOURS],
    "when": [h.strftime("%d.%m.%Y %H:%M") for h in HOURS],
    "stamp": [h.isoformat() + ("+01:00" if i < 150 else "+02:00") for i, h in enumerate(HOURS)],
    "step": list(range(N)),
}


def write(path, clock, rows=range(N), values=VALUES):
    name, told = clock
    cells = ["" if np.isnan(values[i]) else f"{values[i]!r}" for i in range(N)]
    lines = [f"{told[i]},{float(i % 7)},{cells[i]}" for i in rows]
    path.write_text(f"{name},other,v\n" + "\n".join(lines).replace("np.float64(", "").replace(")", "") + "\n")
    return Windows(str(path), context=24, horizon=8, columns=["v"] if name == "none" else [])


@pytest.mark.parametrize("name", ["epoch", "date", "when", "step"])
def test_the_clock_is_found_and_is_no_series_and_rows_out_of_order_are_put_in_order(tmp_path, name):
    plain = write(tmp_path / "a.csv", (name, CLOCKS[name]))
    records = plain.open("train")
    assert {r["series"] for r in (records[i] for i in range(4))} == {"other", "v"}
    rows = np.random.default_rng(0).permutation(N)
    mixed = write(tmp_path / "b.csv", (name, CLOCKS[name]), rows).open("train")
    assert [r["id"] for r in mixed.rows] == [r["id"] for r in records.rows]
    for one, other in zip(records.rows, mixed.rows, strict=True):
        np.testing.assert_allclose(one["past"], other["past"])
    assert f"{name}: rows are not in order of time; they are put in order" in mixed.info["notes"]
    assert "notes" not in records.info


def test_splits_follow_time_and_hold_no_window_of_another(tmp_path):
    parts = {s: write(tmp_path / "a.csv", ("date", CLOCKS["date"])).open(s) for s in ("train", "val", "test")}
    origins = {s: [int(r["id"].split("@")[1]) for r in records.rows] for s, records in parts.items()}
    assert max(origins["train"]) + 8 <= 210 <= min(origins["val"]) and max(origins["val"]) + 8 <= 240 <= min(
        origins["test"]
    )


@pytest.mark.parametrize("lost", [[150], [40, 41, 42, 200], list(range(60, 90))])
def test_steps_without_a_row_and_empty_cells_are_the_same_missing_values(tmp_path, lost):
    kept = [i for i in range(N) if i not in lost]
    rows = {"rows": {"train": [0, 210], "val": [210, 240], "test": [240, N]}}
    absent = write(tmp_path / "a.csv", ("date", CLOCKS["date"]), kept)
    holes = np.where(np.isin(np.arange(N), lost), np.nan, VALUES)
    empty = write(tmp_path / "b.csv", ("date", CLOCKS["date"]), values=holes)
    absent.columns = empty.columns = ["v"]
    empty.rows = rows["rows"]
    absent.rows = {s: [sum(k < at for k in kept) for at in cut] for s, cut in rows["rows"].items()}
    for split in ("train", "val", "test"):
        one, two = absent.open(split), empty.open(split)
        assert [r["id"] for r in one.rows] == [r["id"] for r in two.rows]
        for a, b in zip(one.rows, two.rows, strict=True):
            np.testing.assert_allclose(a["past"], b["past"])
            np.testing.assert_allclose(a["future"], b["future"])
    assert f"date: {len(lost)} steps of time have no row; they are missing values" in absent.open("train").info["notes"]
    real = VALUES[[i for i in range(210) if i not in lost]]
    window = empty.open("train")[0]
    np.testing.assert_allclose(window["past"], (VALUES[:24] - real.mean()) / real.std(), rtol=1e-5)


@pytest.mark.parametrize("linear", [0.0, 1.0])
def test_a_gap_is_a_masked_step_of_a_forecast_and_nothing_of_it_is_learnt(tmp_path, linear):
    values = np.where(np.arange(N) == 100, np.nan, VALUES)
    source = write(tmp_path / "a.csv", ("epoch", CLOCKS["epoch"]), values=values)
    source.columns = ["v"]
    task = Forecast(name="f", source=source, horizon=8, linear=linear)
    made, records = modalities(), task.open("train")
    task.bind(made, None, records.info)
    task.adopt(task.candidate_set(records))
    numbers = {r["id"]: i for i, r in enumerate(records.rows)}
    past = task.example(records[numbers["v@110"]])
    series = next(s for s in past.inputs if s.modality == "series")
    assert float(series.data["patch"][:, 4:].sum()) == 23, "one of 24 steps is not seen"
    labels = next(s.labels for s in task.example(records[numbers["v@98"]]).inputs if s.labels is not None)
    assert labels.isnan().sum() == 1 and bool(labels[0, 2].isnan()), "one of 8 future steps is not asked"
    assert torch.tensor(task.candidates.edges).isfinite().all()


def test_a_clock_set_back_times_twice_told_and_zones_are_one_time(tmp_path):
    source = write(tmp_path / "a.csv", ("stamp", CLOCKS["stamp"]))  # at row 150 the zone moves on by an hour
    notes = source.open("train").info["notes"]
    assert notes == ["stamp: 1 rows have the time of another; the first of each stays"]
    twice = [*range(N), 7, 8]
    records = write(tmp_path / "b.csv", ("date", CLOCKS["date"]), twice).open("train")
    assert "date: 2 rows have the time of another; the first of each stays" in records.info["notes"]


def test_a_column_without_a_value_and_a_clock_that_is_none_are_named(tmp_path):
    with pytest.raises(UserError, match="column 'v' has no value in its training rows"):
        write(tmp_path / "a.csv", ("date", CLOCKS["date"]), values=np.where(np.arange(N) < 250, np.nan, VALUES)).open(
            "train"
        )
    source = write(tmp_path / "b.csv", ("date", CLOCKS["date"]))
    source.time = "other"
    with pytest.raises(UserError, match="'other' tells no time"):
        source.open("train")
