"""Temperatures from validation data: found, saved in the model folder, worn by every probability."""

import json

import numpy as np
import pytest
import torch
from small import Listed
from tiny import tiny

from generalist.data.base.errors import UserError
from generalist.evaluate.calibration import as_trained, temperature
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.hf.saved import read_model
from generalist.run.train import train_run
from generalist.tasks.candidates.names import Names, Numbers, ObjectNames
from generalist.tasks.kinds.multilabel import Marks


def overconfident(k: int, times: float, n: int = 4000):
    """Labels drawn from p, and the log-likelihood of logits that are `times` too large."""
    torch.manual_seed(0)
    z = torch.randn(n, k, dtype=torch.float64)
    labels = torch.multinomial(z.softmax(-1), 1).squeeze(1)
    return (times * z).log_softmax(-1), labels


@pytest.mark.parametrize("times", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_makes_names_too_sure(times):
    log_p, labels = overconfident(5, times)
    found = temperature([(Names(list("abcde")), log_p, labels)])
    assert (1.0 if found is None else found) == pytest.approx(times, rel=0.1)


def test_a_few_answers_that_are_all_right_do_not_make_it_certain():
    log_p = torch.tensor([[0.8, 0.1, 0.1]], dtype=torch.float64).log().repeat(30, 1)
    found = temperature([(Names(list("abc")), log_p, torch.zeros(30, dtype=torch.long))])
    assert float((log_p / found).softmax(-1)[0, 0]) == pytest.approx(1 - 1 / 32, abs=0.003)


def test_the_temperature_of_marks_is_that_of_each_pair():
    torch.manual_seed(0)
    z = torch.randn(4000, 3, dtype=torch.float64)
    labels = torch.bernoulli(torch.sigmoid(z))
    log_p = torch.cat([2 * z, torch.zeros_like(z)], -1).log_softmax(-1)
    assert temperature([(Marks(["a", "b", "c"]), log_p, labels)]) == pytest.approx(2.0, rel=0.15)


def test_the_temperature_of_numbers_sharpens_what_is_too_wide():
    torch.manual_seed(0)
    chosen = Numbers(edges=[i / 10 for i in range(-40, 41)])
    centres = torch.linspace(-3.95, 3.95, 80, dtype=torch.float64)
    guess = torch.randn(3000, 1, dtype=torch.float64)
    labels = (guess + 0.3 * torch.randn(3000, 1, dtype=torch.float64)).squeeze(1)
    wide = (-((centres - guess) ** 2) / (2 * 0.9**2)).log_softmax(-1)
    assert temperature([(chosen, wide, labels)]) == pytest.approx((0.3 / 0.9) ** 2, rel=0.2)


def test_proposals_of_a_detector_have_no_temperature():
    assert ObjectNames(["nothing", "cat"]).misfit(torch.zeros(3, 2), torch.zeros(3).long()) is None


def test_a_temperature_that_is_none_is_refused():
    with pytest.raises(UserError, match="temperature"):
        GeneralistConfig(temperatures={"default": 0.0})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run with smoothing on classes that a number tells: surely right, and not sure of it."""
    out = tmp_path_factory.mktemp("calibrated") / "run"
    recipe = tiny(steps=60, calibrate="true")
    rng = np.random.default_rng(0)
    rows = [
        {"id": str(i), "row": {"x": float(x), "y": 0.0}, "label": int(x > 0)}
        for i, x in enumerate(rng.normal(size=300))
    ]
    source = Listed({"train": rows[:150], "val": rows[150:220], "test": rows[220:]}, {"classes": ["low", "high"]})
    recipe.tasks = [recipe.tasks[1]]
    recipe.tasks[0].source, recipe.tasks[0].smoothing, recipe.tasks[0].name = source, 0.3, "sign"
    recipe.candidates = {}
    recipe.__post_init__()
    recipe.baseline = False
    return train_run(recipe, out, quiet=True), out


def test_what_is_98_percent_right_is_said_to_be_so(run):
    metrics, _ = run
    line = metrics["tasks"]["sign"]
    told = line["calibration"]
    assert line["value"] > 0.9 and told["temperature"] < 0.9
    assert told["after"]["ECE"] < told["before"]["ECE"] and told["after"]["nll"] < told["before"]["nll"]
    assert told["after"]["ECE"] == line["extra"]["ECE"]
    assert any("temperature" in note for note in line["notes"])


def test_the_saved_folder_wears_the_temperature(run):
    _, out = run
    saved = json.loads((out / "model" / "config.json").read_text())["temperatures"]
    model, processor = read_model(out / "model")
    assert saved == model.config.temperatures and list(saved) == ["classify"]
    inputs, names = processor(table={"x": 1.0, "y": 0.0}), processor.candidates(["low", "high"])
    log_p = model.log_likelihood(inputs, names, "classify")
    with as_trained(model):
        plain = model.log_likelihood(inputs, names, "classify")
    assert torch.allclose(log_p, (plain / saved["classify"]).log_softmax(-1), atol=1e-5)
    model.train()
    assert torch.allclose(
        model.score(torch.ones(1, 16), torch.eye(16), "classify"), torch.full((1, 16), -np.log(16)), atol=1e-4
    )
    assert torch.equal(model.tempered(torch.ones(2), "classify"), torch.ones(2))
