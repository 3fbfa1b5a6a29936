"""Measures of a table of log-likelihoods, and zero-shot evaluation of a saved model from data to files."""

import json

import clients
import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from data.errors import UserError
from data.source import Records
from generalist import measures
from generalist.zero_shot import candidate_features, content_hash, zero_shot

NAMES = ["a red seven", "a blue nine", "some words"]


def some_table(n: int = 57, k: int = 5, seed: int = 0):
    """log_p [n, k], rows sum to one in p, and labels that are right more often than by chance."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, k))
    labels = rng.integers(0, k, n)
    scores[np.arange(n), labels] += 1.0
    return scores - np.log(np.exp(scores).sum(1, keepdims=True)), labels


def test_measures_agree_with_their_definitions():
    log_p, labels = some_table()
    found = measures.measure(log_p, labels, resamples=50)
    answers = log_p.argmax(1)
    value = {name: one["value"] for name, one in found["measures"].items()}
    assert value["accuracy"] == pytest.approx((answers == labels).mean())
    assert value["macro-F1"] == pytest.approx(f1_score(labels, answers, average="macro"))
    assert value["nll"] == pytest.approx(-log_p[np.arange(57), labels].mean())
    assert value["recall@1"] == value["accuracy"] and "recall@5" not in value
    assert sum(line["count"] for line in found["reliability"]) == 57
    for one in found["measures"].values():
        assert one["low"] <= one["value"] <= one["high"] or one["high"] - one["low"] < 0.2
    assert found["chance"]["uniform"] == 0.2


def test_calibration_error_is_zero_for_honest_and_large_for_boastful_confidence():
    honest = np.tile([[0.75, 0.25]], (400, 1))
    labels = np.array([0, 0, 0, 1] * 100)
    assert measures.calibration_error(honest, labels) == pytest.approx(0, abs=1e-9)
    boastful = np.tile([[1.0, 0.0]], (400, 1))
    assert measures.calibration_error(boastful, labels) == pytest.approx(0.25)


def test_the_interval_narrows_with_more_samples_and_is_fixed_by_its_seed():
    few, many = (measures.measure(*some_table(n), resamples=200)["measures"]["accuracy"] for n in (30, 900))
    assert many["high"] - many["low"] < (few["high"] - few["low"]) / 3
    assert measures.measure(*some_table(30), seed=3, resamples=40) == measures.measure(
        *some_table(30), seed=3, resamples=40
    )


@pytest.fixture(scope="module")
def both():
    return clients.model_and_processor()


def pictures(count: int = 7) -> Records:
    rows = [{"id": f"p{i}", "image": clients.picture(12, 12, i), "label": i % 3} for i in range(count)]
    return Records(rows, {"classes": NAMES})


def test_zero_shot_gives_the_law_and_samples_from_which_every_number_follows(both):
    model, processor = both
    records = pictures()
    result, samples = zero_shot(model, processor, records, {"image": "image"}, batch=3)
    images = [records[i]["image"] for i in range(7)]
    expected = model.log_likelihood(processor(image=images), processor.candidates(NAMES), model.config.zero_shot_scale)
    torch.testing.assert_close(torch.tensor([s["log_p"] for s in samples]), expected, atol=1e-5, rtol=0)
    again = measures.measure(
        np.array([s["log_p"] for s in samples]), np.array([NAMES.index(s["label"]) for s in samples])
    )
    assert again["measures"] == result["measures"]


def test_a_template_and_other_names_change_the_candidates(both):
    model, processor = both
    result, _ = zero_shot(
        model, processor, pictures(), {"image": "image"}, classes=["one", "two", "three"], template="a photo of {}"
    )
    assert result["candidates"] == ["a photo of one", "a photo of two", "a photo of three"]


def test_candidates_are_encoded_once_and_again_when_weights_or_names_change(both, tmp_path):
    model, processor = clients.model_and_processor()
    first = candidate_features(model, processor, NAMES, tmp_path)
    calls = []
    model.register_forward_hook(lambda *args: calls.append(1))
    torch.testing.assert_close(candidate_features(model, processor, NAMES, tmp_path), first)
    assert not calls and len(list(tmp_path.iterdir())) == 1
    candidate_features(model, processor, NAMES[::-1], tmp_path)
    before = content_hash(model, NAMES)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    assert calls == [1] and content_hash(model, NAMES) != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["only one"]}, "at least two"),
        ({"classes": ["one", "one", "two"]}, "twice"),
        ({"inputs": {"image": "picture"}}, "picture"),
        ({"inputs": {"sound": "image"}}, "sound"),
        ({"label": "labell"}, "labell"),
        ({"template": "a photo"}, "template"),
        ({"classes": ["one", "two"]}, "outside"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_line(both, change, message):
    model, processor = both
    with pytest.raises(UserError, match=message) as caught:
        zero_shot(model, processor, pictures(), **{"inputs": {"image": "image"}, **change})
    assert "\n" not in str(caught.value)


def test_a_class_in_the_data_that_is_not_among_the_names_is_refused(both):
    rows = [{"image": clients.picture(12, 12), "label": "a green four"}]
    with pytest.raises(UserError, match="a green four"):
        zero_shot(*both, Records(rows, {"classes": NAMES}), {"image": "image"})


def test_the_script_scores_a_folder_by_class_and_writes_its_files(tmp_path, capsys):
    from PIL import Image

    from scripts.evaluate_zero_shot import main

    clients.save(tmp_path / "model")
    for i in range(9):
        place = tmp_path / "photos" / ("test" if i < 6 else "train") / NAMES[i % 3]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(clients.picture(12, 9, i)).save(place / f"{i}.png")
    out = tmp_path / "out"
    assert main([str(tmp_path / "model"), str(tmp_path / "photos"), "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((out / "result.json").read_text()) and printed["n"] == 6
    assert len((out / "predictions.jsonl").read_text().splitlines()) == 6
    assert "<svg" in (out / "reliability.svg").read_text()
    assert main([str(tmp_path / "model"), str(tmp_path / "nowhere")]) == 2
