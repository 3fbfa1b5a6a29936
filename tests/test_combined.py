"""The model with the ordinary method: exponents from validation data, the third column, and what predict answers."""

import json

import numpy as np
import pandas
import pytest
import torch

from generalist.data.stream.source import Records
from generalist.evaluate.together.combined import Weights, per_record
from generalist.evaluate.together.exponents import Choice, Evidence, chosen
from generalist.fitting.api import Fitted, fit
from generalist.fitting.predict import Asked
from generalist.recipe.load import load_recipe
from generalist.tasks.baselines import guesses
from generalist.tasks.baselines.budget import budget
from generalist.tasks.baselines.choice import Method, choose, refitted
from generalist.tasks.candidates.names import Names, Numbers
from generalist.tasks.measures import lines

NAMES = Names(["a", "b", "c"])


def evidence(seed: int, labels, strength: float):
    """log p that leans to the labels with noise."""
    rng = np.random.default_rng(seed)
    z = strength * np.eye(3)[labels] + rng.normal(size=(len(labels), 3))
    return torch.from_numpy(z).log_softmax(-1)


def of_names(model, other, truth) -> Evidence:
    """As of a classification, a record an answer."""
    record = list(range(len(truth)))

    def columns(log_p):
        return {"record": np.array(record), **lines.named(log_p[0][:, 0], truth)}

    def misfits(log_p, rows):
        return per_record(NAMES, log_p[0], truth[rows, None])

    return Evidence([(model[:, None], other[:, None])], misfits, columns)


def by(model, other, truth) -> Choice:
    return chosen(of_names(model, other, truth), "named", "accuracy", True)


def test_what_knows_nothing_gets_no_weight_and_two_that_know_get_both():
    labels = np.random.default_rng(1).integers(0, 3, 1500)
    truth = torch.from_numpy(labels)
    knows, other, nothing = evidence(2, labels, 1.5), evidence(3, labels, 1.5), evidence(4, labels, 0.0)
    assert by(nothing, knows, truth).way == "ordinary" and by(knows, nothing, truth).way == "model"
    found = by(nothing, knows, truth)
    assert found.a == 0.0 and found.b > 0.8
    found = by(knows, other, truth)
    assert found.way == "both" and found.a > 0.8 and found.b > 0.8
    both = Weights("other", 1, found.a, found.b).join(knows, other.numpy())
    right = [float((p.argmax(-1) == truth).double().mean()) for p in (knows, other, both)]
    assert right[2] > max(right[:2]) + 0.03
    assert torch.allclose(both.exp().sum(-1), torch.ones(1500, dtype=torch.float64))


def test_a_gain_within_its_standard_error_leaves_the_better_one_alone():
    """Two of the same mind, of which one is a little noisier: sixty answers cannot vouch for both."""
    alone = 0
    for seed in range(12):
        labels = np.random.default_rng(seed).integers(0, 3, 60)
        knows = evidence(100 + seed, labels, 2.5)
        noise = torch.from_numpy(np.random.default_rng(200 + seed).normal(size=knows.shape))
        alone += by(knows, (knows + 1.5 * noise).log_softmax(-1), torch.from_numpy(labels)).way == "model"
    assert alone >= 9


def test_a_handful_of_answers_fits_nothing_and_leaves_what_is_plainly_worse():
    labels = np.arange(12) % 3
    truth = torch.from_numpy(labels)
    knows, other, nothing = evidence(2, labels, 4.0), evidence(3, labels, 4.0), evidence(4, labels, 0.0)
    assert by(knows, other, truth) == Choice("both", 0.5, 0.5)
    assert by(3 * nothing, knows, truth) == Choice("ordinary", 0.0, 1.0)


def records(n: int, seed: int) -> Records:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    kinds = np.where(x > 0.5, 2, np.where(x < -0.5, 0, 1))
    return Records(
        [{"row": {"x": float(v)}, "label": int(k), "y": 10 + 3 * float(v)} for v, k in zip(x, kinds, strict=True)]
    )


def test_an_ordinary_classifier_says_the_classes_by_their_numbers():
    train, val, test = records(300, 0), records(80, 1), records(80, 2)
    # class 3 has no training row: it keeps what every class has at least
    found = guesses.classes({"t": "row"}, lambda r: r["label"], 4, train, val, [test], {}, "")
    p = np.exp(found.log_p[1])
    assert p.shape == (80, 4) and np.allclose(p.sum(1), 1) and np.allclose(p[:, 3], guesses.LEAST / 4)
    assert (p.argmax(1) == [r["label"] for r in test.rows]).mean() > 0.9
    again = guesses.classes({"t": "row"}, lambda r: r["label"], 4, train, val, [test], {}, found.name)
    assert again.name == found.name and np.array_equal(again.log_p[1], found.log_p[1])
    more = guesses.classes({"t": "row"}, lambda r: r["label"], 4, train, val, [test], {}, found.name, refit=True)
    whole = Records([*train.rows, *val.rows])
    same = guesses.classes({"t": "row"}, lambda r: r["label"], 4, whole, val, [test], {}, found.name)
    assert np.array_equal(more.log_p[0], found.log_p[0]) and np.allclose(more.log_p[1], same.log_p[1])
    assert not np.allclose(more.log_p[1], found.log_p[1])


def test_an_ordinary_number_is_a_distribution_around_it():
    train, val, test = records(300, 0), records(80, 1), records(80, 2)
    among = Numbers(edges=[i / 10 for i in range(-35, 36)], mean=10.0, std=3.0)
    found = guesses.numbers({"t": "row"}, lambda r: r["y"], among, train, val, [test], {})
    mean = among.expectation(torch.from_numpy(found.log_p[1]).float()) * 3 + 10
    inside = [abs(r["y"] - 10) < 9 for r in test.rows]
    error = (mean.numpy() - np.array([r["y"] for r in test.rows]))[inside]
    assert np.abs(error).max() < 0.6


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A table on which a linear method is exact: together must be near it, whatever the short training learnt."""
    folder = tmp_path_factory.mktemp("combined")
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame(rng.normal(size=(400, 3)), columns=["u", "v", "w"])
    frame["cost"] = 2 * frame["u"] - frame["v"] + 0.1 * rng.normal(size=400)
    frame.to_csv(folder / "t.csv", index=False)
    return folder, fit(folder / "t.csv", label="cost", time=5, out=folder / "run")


def test_the_table_has_the_model_the_ordinary_method_and_both(run):
    _, found = run
    line = found.metrics["tasks"]["cost"]
    assert {"method", "a", "b", "rows", "value"} <= set(line["together"])
    assert line["together"]["value"] < 1.3 * min(line["value"], line["baseline"])
    assert "together" in found.report().splitlines()[0]
    said = next(note for note in line["notes"] if note.startswith("together "))
    way = line["together"]["way"]
    assert ("as validation data weigh them" in said) is (way == "both")
    assert ("ordinary method" in said and line["together"]["method"] in said) is (way == "ordinary")


def test_predict_answers_as_the_third_column_was_measured(run):
    folder, found = run
    test = load_recipe(str(folder / "run" / "recipe.json")).tasks[0].source.open("test")
    rows = pandas.DataFrame([test[i]["row"] for i in range(len(test))])
    truth = np.array([test[i]["label"] for i in range(len(test))])
    line = found.metrics["tasks"]["cost"]
    for model_only, value in ((False, line["together"]["value"]), (True, line["value"])):
        said = Fitted(found.path, model_only=model_only).predict(rows)
        assert float(np.sqrt(np.mean((said - truth) ** 2))) == pytest.approx(value, rel=1e-3)
        asked = Asked(found.path, model_only=model_only)
        answers = asked.answers(asked.records(rows))
        inside = [one["low"] <= y <= one["high"] for one, y in zip(answers, truth, strict=True)]
        measures = line["extra"] if model_only else line["together"]["measures"]
        assert np.mean(inside) == pytest.approx(measures["coverage of 80% interval"], abs=1.5 / len(truth))


def test_without_its_training_data_the_model_answers_alone_and_says_so(run):
    folder, found = run
    rows = pandas.DataFrame({"u": [0.0, 1.0], "v": [0.0, 0.5], "w": [0.0, 0.0]})
    alone = Fitted(found.path, model_only=True).predict(rows)
    (folder / "t.csv").rename(folder / "gone.csv")
    try:
        asked = Asked(found.path)
        assert np.allclose([one["answer"] for one in asked.answers(asked.records(rows))], alone)
        assert len(asked.notes) == 1 and "the model alone answers" in asked.notes[0]
    finally:
        (folder / "gone.csv").rename(folder / "t.csv")


def test_metrics_json_keeps_its_promised_keys(run):
    _, found = run
    line = json.loads((found.path / "metrics.json").read_text())["tasks"]["cost"]
    assert {"metric", "value", "chance", "baseline", "higher_is_better", "n_test"} <= set(line)


def test_partners_are_guessed_by_a_regression_and_joined_in_both_directions(tmp_path):
    rng = np.random.default_rng(0)
    level = rng.normal(size=(200, 3))
    words = ["low", "middle", "high", "top"]
    told = [
        " ".join(f"{w}{words[int(np.digitize(v, [-0.7, 0, 0.7]))]}" for w, v in zip("abc", row, strict=True))
        for row in level
    ]
    frame = pandas.DataFrame({"wave": [np.repeat(row, 4).tolist() for row in level], "words": told})
    run = fit(frame, retrieve=("wave", "words"), time=4, out=tmp_path / "run", encoders=False)
    line = next(iter(run.metrics["tasks"].values()))
    both = line["together"]
    assert set(both["measures"]) >= {"recall@1", "recall@1 forward", "recall@1 backward", "median rank"}
    assert "ridge" in both["method"] and (both["b"] > 0) is (both["way"] != "model")
    assert both["measures"]["recall@10"] >= line["extra"]["recall@10"] - 0.1


def test_a_linear_bond_between_two_sides_is_found():
    rng = np.random.default_rng(0)
    x, bond = rng.normal(size=(300, 6)), rng.normal(size=(6, 5))
    rows = [{"a": v, "b": v @ bond + 0.05 * rng.normal(size=5)} for v in x]
    train, val, test = Records(rows[:200]), Records(rows[200:250]), Records(rows[250:])
    found = guesses.pairs({"one": "a"}, {"other": "b"}, train, val, test, {})
    assert [part.shape for part in found.likeness] == [(50, 50), (50, 50)]
    assert (found.likeness[1].argmax(1) == np.arange(50)).mean() > 0.9


def test_of_few_validation_rows_all_rows_choose_the_method():
    """Four validation rows of one class, one of them odd, are for guessing it always; eighty rows are not."""
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2))
    y = (x[:, 0] > -0.3).astype(int)
    held, odd = np.array([[1.0, 0], [2.0, 0], [1.5, 0], [-1.0, 0]]), np.ones(4, dtype=int)
    methods = [
        Method("linear", LogisticRegression),
        Method("always", lambda: DummyClassifier(strategy="constant", constant=1)),
    ]
    assert choose(methods, x, y, held, odd).name == "always"
    with budget(30, strong=True):
        found = choose(methods, x, y, held, odd)
    assert found.name == "linear"
    whole = refitted(found, [(x, y), (held, odd)])
    assert np.allclose(whole.coef_, LogisticRegression().fit(np.concatenate([x, held]), np.concatenate([y, odd])).coef_)


def test_scores_of_a_method_without_probabilities_become_log_odds():
    """Support vectors say distances: their sharpness is that of the least misfit on answers they have not seen."""
    rng = np.random.default_rng(0)
    rows = [
        {"row": {"x": float(x), "z": float(z)}, "label": int(x + 0.2 * z > 0)} for x, z in rng.normal(size=(260, 2))
    ]
    train, val, test = Records(rows[:120]), Records(rows[120:130]), Records(rows[130:])
    with budget(60, strong=True):
        found = guesses.classes(
            {"t": "row"}, lambda r: r["label"], 2, train, val, [test], {}, "kernel support vectors C=10", refit=True
        )
    sure = np.exp(found.log_p[1]).max(1)
    right = found.log_p[1].argmax(1) == [r["label"] for r in test.rows]
    assert right.mean() > 0.93 and abs(sure.mean() - right.mean()) < 0.05
