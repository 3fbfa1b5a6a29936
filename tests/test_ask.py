"""The task travels with the model: saved with its class, asked by `ask`, one record or many, whatever its kind."""

import json
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.data.stream.source import Records
from generalist.hf.predict import ask, load_model, predict
from generalist.tasks.base.task import Task
from generalist.tasks.candidates.names import Names, Numbers
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.forecast import Forecast
from generalist.tasks.kinds.regress import Regress
from generalist.tasks.kinds.retrieve import Retrieve
from generalist.tokenizers_mod.numbers.number import Number
from generalist.tokenizers_mod.numbers.slot import Slot
from tests import clients

OLD = Path(__file__).resolve().parent / "old"
NAMES = ["red", "blue", "green"]
EDGES = [-3.0, -1.0, 0.0, 1.0, 3.0]


@dataclass(kw_only=True)
class Own(Classify):
    """A task of somebody's own."""

    note: str = "mine"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A fresh model that was told of four tasks, saved."""
    home = tmp_path_factory.mktemp("asked")
    more = {"number": Number(), "slot": Slot(patch=3)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clients, "modalities", lambda kept=clients.modalities: kept() | more)
        model, processor = clients.model_and_processor(scales=["default", "classify", "regress", "forecast"])
    names, numbers = Names(NAMES), Numbers(edges=EDGES, mean=10.0, std=2.0)
    processor.candidate_sets = {
        "shades": names.to_dict(),
        "own": names.to_dict(),
        "wages": numbers.to_dict(),
        "next": Numbers(edges=EDGES).to_dict(),
    }
    processor.tasks = {
        "shades": Classify(name="shades", inputs={"table": "row", "image": "photo"}, label="shade", mixup=0.2),
        "own": Own(name="own", inputs={"image": "photo"}, scale="classify", note="kept"),
        "wages": Regress(name="wages", inputs={"table": "row"}, target="wage"),
        "next": Forecast(name="next", inputs={"series": "before"}, future="after", horizon=4),
        "pairs": Retrieve(name="pairs", inputs={"image": "photo"}, partners={"text": "said"}),
    }
    model.save_pretrained(home)
    processor.save_pretrained(home)
    return home


@pytest.fixture(scope="module")
def both(folder):
    return load_model(folder)


def records(count: int = 7) -> list[dict]:
    """Every third without a picture, every fourth without a row."""
    return [
        {
            "photo": None if i % 3 == 2 else clients.picture(8 + i, 12, i),
            "row": None if i % 4 == 3 else clients.ROWS[i % 5],
        }
        for i in range(count)
    ]


def test_a_saved_task_comes_back_as_it_was_and_without_its_source(folder, both):
    saved = json.loads((folder / "processor_config.json").read_text())["tasks"]
    assert saved["shades"]["class"] == "generalist.tasks.kinds.classify:Classify" and "source" not in saved["shades"]
    task = both[1].tasks["shades"]
    assert type(task) is Classify and task.source is None
    assert (task.inputs, task.label, task.mixup) == ({"table": "row", "image": "photo"}, "shade", 0.2)
    assert list(task.inputs) == ["table", "image"]  # the order of the sequence, though the file sorts its keys
    assert task.candidates is not None and task.candidates.offered() == NAMES
    assert both[1].tasks["pairs"].other_side() == {"text": "said"} and both[1].tasks["next"].horizon == 4
    with pytest.raises(UserError, match="task shades has no source"):
        task.open("train")


def test_many_records_are_answered_as_each_alone(both):
    rows = records()
    together = ask(*both, "shades", rows, batch=4)
    for row, answer in zip(rows, together, strict=True):
        alone = ask(*both, "shades", row)
        assert alone.names == answer.names
        assert alone.probabilities == pytest.approx(answer.probabilities, abs=1e-6)
        assert sum(answer.probabilities) == pytest.approx(1, abs=1e-5) and set(answer.names) == set(NAMES)
        assert answer.probabilities == sorted(answer.probabilities, reverse=True)


def test_the_answer_is_the_likelihood_of_the_model(both):
    model, processor = both
    row = records(1)[0]
    inputs = processor(table=row["row"], image=row["photo"])
    p = model.rank(inputs, processor.candidates(NAMES), "classify", None)[0]
    found = ask(*both, "shades", row)
    assert dict(zip(found.names, found.probabilities, strict=True)) == pytest.approx(
        dict(zip(NAMES, p.tolist(), strict=True)), abs=1e-5
    )
    other = ask(*both, processor.task("shades").among(["big", "small"]), row)
    p = model.rank(inputs, processor.candidates(["big", "small"]), "classify", None)[0].tolist()
    assert dict(zip(other.names, other.probabilities, strict=True)) == pytest.approx(
        dict(zip(["big", "small"], p, strict=True)), abs=1e-6
    )


def test_a_number_is_told_with_its_quantiles_in_its_own_unit(both):
    model, processor = both
    found = ask(*both, "wages", {"row": clients.ROWS[0]})
    numbers = processor.task("wages").candidates
    members = numbers.sequences(processor.built)
    log_p = model.log_likelihood(processor(table=[clients.ROWS[0]]), members, "regress")[0]
    expected = [float(numbers.quantile(log_p, q)) * 2 + 10 for q in (0.1, 0.5, 0.9)]
    assert [found.interval[0], found.value, found.interval[1]] == pytest.approx(expected, abs=1e-4)
    assert found.mean == pytest.approx(float(numbers.expectation(log_p)) * 2 + 10, abs=1e-4)
    assert [name for name, _ in found.rows()] == ["mean", "median", "10 % quantile", "90 % quantile"]


def test_a_forecast_is_told_step_by_step_in_the_series_units(both):
    past = np.linspace(100, 140, 20)
    low, high = ask(*both, "next", [{"before": past}, {"before": past * 1000}])
    assert len(low.value) == 4 and np.ndim(low.interval) == 2
    assert np.array(high.value) == pytest.approx(np.array(low.value) * 1000, rel=1e-4)
    assert all(a <= b <= c for a, b, c in zip(low.interval[0], low.value, low.interval[1], strict=True))
    assert low.rows()[0] == ["step +1", f"{low.value[0]:.6g}"] and low.to_dict()["quantiles"]["0.5"] == low.value


def test_a_record_that_cannot_be_read_is_named(both):
    with pytest.raises(UserError, match=r"record 1: no field 'row'"):
        ask(*both, "shades", [records(1)[0], {"picture": None}])
    with pytest.raises(UserError, match="no task 'shade'; did you mean 'shades'"):
        ask(*both, "shade", records(1)[0])


def test_the_command_says_what_ask_says(folder, both, tmp_path, capsys):
    from PIL import Image

    picture = clients.picture(9, 12, 4)
    Image.fromarray(picture).save(tmp_path / "a.png")
    assert main(["predict", str(folder), "--image", str(tmp_path / "a.png"), "--task", "shades", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    expected = ask(*both, "shades", {"photo": picture, "row": None})
    assert said["task"] == "shades" and [name for name, _ in said["answers"]] == expected.names
    assert [p for _, p in said["answers"]] == pytest.approx(expected.probabilities, abs=1e-6)
    with pytest.raises(UserError, match="ranks what you give it"):
        predict(folder, {"image": str(tmp_path / "a.png")}, None, "pairs")


def test_other_data_are_asked_by_the_fields_that_the_task_was_trained_on(folder, both, tmp_path, capsys):
    from generalist.evaluate.zero_shot import Asked, evaluate_on

    rows = [{"photo": clients.picture(9, 9, i), "row": None, "shade": NAMES[i % 3]} for i in range(6)]
    answers, _ = evaluate_on(*both, Records(rows, {}), Asked("shades"))
    usual = [{"image": r["photo"], "table": None, "label": r["shade"]} for r in rows]
    again, _ = evaluate_on(*both, Records(usual, {}), Asked("shades"))
    assert answers.metrics == again.metrics and answers.labels.tolist() == [0, 1, 2, 0, 1, 2]
    torch.testing.assert_close(answers.log_p(slice(None)), again.log_p(slice(None)))


def test_a_task_whose_class_is_not_at_hand_asks_at_the_summary_and_keeps_its_values(folder, tmp_path):
    home = shutil.copytree(folder, tmp_path / "model")
    file = home / "processor_config.json"
    values = json.loads(file.read_text())
    values["tasks"]["own"]["class"] = "nowhere_to_be_found:Own"
    file.write_text(json.dumps(values))
    with pytest.warns(UserWarning, match="nowhere_to_be_found"):
        model, processor = load_model(home)
    row = {"photo": clients.picture(8, 8, 1)}
    assert ask(model, processor, "own", row) == ask(*load_model(folder), "own", row)
    processor.save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "processor_config.json").read_text())["tasks"]["own"]
    assert again == values["tasks"]["own"] and again["note"] == "kept"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": "generalist.recipe.specs:ModelSpec"}, "which is no task"),
        ({"shape": 3}, "does not fit this version"),
    ],
)
def test_what_is_no_task_of_this_version_is_said_in_a_line(folder, tmp_path, change, message):
    home = shutil.copytree(folder, tmp_path / "model")
    file = home / "processor_config.json"
    values = json.loads(file.read_text())
    values["tasks"]["shades"] |= change
    file.write_text(json.dumps(values))
    with pytest.raises(UserError, match=message):
        load_model(home)


def test_a_folder_of_an_earlier_version_is_asked(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model, processor = load_model(OLD)
    assert {name: type(task) for name, task in processor.tasks.items()} == {"digits": Classify, "wine": Classify}
    digit = (np.arange(64).reshape(8, 8) * 3).astype(np.uint8)
    found = ask(model, processor, "digits", [{"image": digit}, {"image": digit.T}])
    p = model.rank(processor(image=digit), processor.candidates(processor.tasks["digits"].candidates.names), "classify")
    assert found[0].probabilities == pytest.approx(p[0].sort(descending=True).values.tolist(), abs=1e-6)
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "processor_config.json").read_text())["tasks"]
    assert saved["wine"]["class"] == "generalist.tasks.kinds.classify:Classify"
    assert saved["wine"]["inputs"] == [["table", "table"]]


def test_an_unknown_kind_of_an_earlier_version_is_an_ordinary_task(both):
    processor = both[1]
    kept = processor.tasks
    try:
        processor.tasks = {"shades": {"kind": "tags", "scale": "classify", "inputs": ["image"], "answers": ["text"]}}
        task = processor.tasks["shades"]
        assert type(task).__mro__[1] is Task and task.about()["kind"] == "tags"
        assert set(ask(*both, "shades", {"image": clients.picture(8, 8)}).names) == set(NAMES)
    finally:
        processor.tasks = kept
