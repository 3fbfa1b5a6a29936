"""A forecast that knows more than its past: pixels around it, other sensors, a table's row; and predictions so."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.data.sources.windows import Windows
from generalist.data.stream.source import Records
from generalist.recipe.recipe import CheckpointSpec, Recipe
from generalist.recipe.specs import ModelSpec
from generalist.run.train import train_run
from generalist.tasks.candidates.names import Residuals
from generalist.tasks.kinds.forecast import Forecast
from generalist.tokenizers_mod.numbers.imu import Imu
from generalist.tokenizers_mod.numbers.number import Number
from generalist.tokenizers_mod.numbers.series import Series
from generalist.tokenizers_mod.numbers.slot import Slot
from generalist.tokenizers_mod.tables.table import Table
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text

ROWS = {"train": [0, 30], "val": [30, 36], "test": [36, 44]}


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Waves that move one pixel to the right a step, so that what comes is what the left neighbours show."""
    t, y, x = np.meshgrid(np.arange(44), np.arange(7), np.arange(9), indexing="ij")
    frames = 50 + 20 * np.sin((x - t) / 2.3 + y) + 10 * np.cos((x - t) / 1.1 - y)
    path = tmp_path_factory.mktemp("film") / "film.npz"
    np.savez(path, frames=frames)
    return path, frames


def source(path, **settings):
    return Windows(str(path), rows=ROWS, context=4, horizon=2, array="frames", every=3, period=1, **settings)


def modalities():
    around = Imu(channels=25, patch=4)
    series = Series(patch=2, normalise=False, centre="last")
    return {"summary": Summary(), "series": series, "around": around, "slot": Slot(patch=2), "number": Number()}


def task(path, **settings):
    settings = {"inputs": {"series": "past", "around": "around"}, "relative": ["around"], "linear": 1e-3} | settings
    return Forecast(name="rain", source=source(path, around=2), horizon=2, bins=8, batch=8, **settings)


def bound(made, records):
    made.modalities = modalities() | {"table": Table()}
    made.learn(made.modalities, records)
    made.bind(made.modalities, made.candidate_set(records), {})
    return made


def test_a_window_holds_the_past_of_the_pixels_around_it_in_its_own_units(film):
    path, frames = film
    records = source(path, around=2).open("test")
    record = records[5]  # the second row of the thinned 2 x 3 grid, third column: pixel (4, 7)
    assert record["around"].shape == (4, 25)
    np.testing.assert_allclose(record["around"][:, 12], record["past"], rtol=1e-6)
    column = frames[:30, 4, 7]
    block = (frames[32:36, 2:7, 5:9] - column.mean()) / column.std()
    np.testing.assert_allclose(record["around"].reshape(4, 5, 5)[:, :, :4], block, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(record["around"].reshape(4, 5, 5)[..., 4], record["around"].reshape(4, 5, 5)[..., 3])
    assert source(path, around=2, around_every=2).open("test")[0]["around"].shape == (4, 9)
    assert "around" not in source(path).open("test")[0]


def test_pixels_around_are_of_frames_only(film, tmp_path):
    np.savez(tmp_path / "flat.npz", frames=np.random.default_rng(0).normal(size=(44, 9)))
    with pytest.raises(UserError, match="needs frames"):
        source(tmp_path / "flat.npz", around=1).open("train")
    (tmp_path / "t.csv").write_text("a\n" + "\n".join(str(i % 7) for i in range(44)))
    with pytest.raises(UserError, match="array="):
        Windows(str(tmp_path / "t.csv"), ROWS, context=4, horizon=2, around=1).open("train")
    with pytest.raises(UserError, match="around_every"):
        source(film[0], around=1, around_every=0).open("train")


def test_the_linear_forecast_sees_what_moves_in(film):
    records = source(film[0], around=2).open("train")
    test = source(film[0], around=2).open("test")
    alone = bound(task(film[0], inputs={"series": "past"}, relative=[]), records)
    beside = bound(task(film[0]), records)

    def error(made):
        left = [made._future(made.origin(r), r) - made.origin(r).location(made.candidates) for r in test]
        return float(torch.stack(left).abs().mean())

    assert isinstance(beside.candidates, Residuals)
    assert error(beside) < 0.1 * error(alone)


def test_a_relative_input_does_not_change_with_the_level(film):
    made, record = (
        bound(task(film[0]), source(film[0], around=2).open("train")),
        source(film[0], around=2).open("test")[1],
    )
    shifted = record | {name: record[name] + 5 for name in ("past", "future", "around")}
    for a, b in zip(made.example(record).inputs, made.example(shifted).inputs, strict=True):
        for name, value in a.data.items():
            torch.testing.assert_close(value, b.data[name], rtol=1e-4, atol=1e-4)


def test_covariates_of_other_units_are_read_as_they_are_and_may_be_missing(film):
    rows = [r | {"row": {"height": float(i), "kind": "ab"[i % 2]}} for i, r in enumerate(source(film[0]).open("train"))]
    made = task(film[0], inputs={"series": "past", "table": "row"}, relative=[])
    bound(made, Records(rows, {}))
    kinds = [(span.modality, span.length) for span in made.example(rows[3]).inputs]
    assert kinds == [("summary", 1), ("series", 2), ("table", 2), ("slot", 1)]
    kinds = [span.modality for span in made.example(rows[3] | {"row": None}).inputs]
    assert kinds == ["summary", "series", "slot"]


def test_bad_covariates_are_named(film):
    for settings, word in (
        ({"relative": ["wind"]}, "covariates"),
        ({"newest": -1}, "newest"),
        ({"inputs": {}}, "past"),
    ):
        with pytest.raises(UserError, match=word):
            task(film[0], **({"relative": []} | settings))
    records = source(film[0], around=2).open("train")
    made, record = bound(task(film[0], newest=3), records), records[0]
    with pytest.raises(UserError, match="cannot do without"):
        made.example(record | {"around": None})
    with pytest.raises(UserError, match="newest steps"):
        made.example(record | {"around": record["around"][:2]})
    with pytest.raises(UserError, match="no field 'around'"):
        made.example({name: record[name] for name in ("past", "future")})


def test_the_newest_value_as_centre_is_that_of_each_channel():
    series = Series(centre="last", normalise=False)
    value = torch.tensor([[1.0, 2.0, 4.0], [3.0, float("nan"), 5.0], [float("nan"), float("nan"), 7.0]])
    mean, std = series.statistics(value)
    assert mean.tolist() == [3.0, 2.0, 7.0] and std.tolist() == [1.0, 1.0, 1.0]
    scaled = Series(centre="last").statistics(value[:, 2])
    assert scaled[0] == 7.0 and float(scaled[1]) == pytest.approx(float(value[:, 2].std(correction=0)), rel=1e-4)
    with pytest.raises(UserError, match="centre"):
        Series(centre="median")


def test_a_saved_forecast_predicts_as_its_evaluation_did(film, tmp_path, capsys):
    """The linear part and the covariates must be known to the model folder too."""
    made = Recipe(
        name="film", about="", steps=6, modalities=modalities() | {"text": Text()}, tasks=[task(film[0], newest=2)],
        model=ModelSpec(width=16, layers=1, heads=2, hidden=32), checkpoint=CheckpointSpec(every=6, keep=1),
    )  # fmt: skip
    replace(made, modalities=modalities()).check()  # a recipe of numbers alone needs no words
    train_run(made, tmp_path / "run", quiet=True)
    record = source(film[0], around=2).open("test")[4]
    for name in ("past", "around"):
        np.save(tmp_path / f"{name}.npy", record[name])
    past, around = (str(tmp_path / f"{name}.npy") for name in ("past", "around"))
    assert main(["predict", str(tmp_path / "run"), "--series", past, "--input", f"around={around}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["quantiles"]["0.5"]
    # six steps teach the network nothing, so that the median stays near the linear forecast, which is nearly exact here
    np.testing.assert_allclose(found, record["future"], atol=0.2)
