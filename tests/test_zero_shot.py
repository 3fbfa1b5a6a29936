"""Any saved model on any data: the four forms of data, kinds of task, candidates, files and mistakes."""

import json

import clients
import numpy as np
import pytest
import torch

from generalist.data.base.errors import UserError
from generalist.data.stream.source import Records
from generalist.evaluate import predictions
from generalist.evaluate.zero_shot import content_hash, zero_shot

NAMES = ["a red seven", "a blue nine", "some words"]


@pytest.fixture(scope="module")
def both():
    return clients.model_and_processor()


def pictures(count: int = 7) -> Records:
    rows = [{"id": f"p{i}", "image": clients.picture(12, 12, i), "label": i % 3} for i in range(count)]
    return Records(rows, {"classes": NAMES})


def test_zero_shot_gives_the_law_and_a_line_a_sample(both):
    model, processor = both
    records = pictures()
    result, samples = zero_shot(model, processor, records, {"image": "image"})
    images = [records[i]["image"] for i in range(7)]
    expected = model.log_likelihood(processor(image=images), processor.candidates(NAMES), model.config.zero_shot_scale)
    torch.testing.assert_close(torch.tensor([s["log_p"] for s in samples]), expected, atol=1e-5, rtol=0)
    assert [s["id"] for s in samples] == [f"p{i}" for i in range(7)]
    right = [s["label"] == s["answer"] == NAMES[int(np.argmax(s["log_p"]))] for s in samples]
    assert result["measures"]["accuracy"]["value"] == pytest.approx(np.mean(right))


def test_a_template_and_other_names_change_the_candidates(both):
    model, processor = both
    result, _ = zero_shot(
        model, processor, pictures(), {"image": "image"}, classes=["one", "two", "three"], template="a photo of {}"
    )
    assert result["candidates"] == ["a photo of one", "a photo of two", "a photo of three"]


def test_candidates_are_encoded_once_and_again_when_weights_or_names_change(tmp_path):
    model, processor = clients.model_and_processor()
    calls = []
    encode = model.features
    model.features = lambda packed, candidate=False, **more: (
        calls.append(candidate) or encode(packed, candidate, **more)
    )

    def asked(names):
        calls.clear()
        zero_shot(model, processor, pictures(), {"image": "image"}, classes=names, cache=tmp_path)
        return sum(calls)

    first = content_hash(model, NAMES)
    assert [asked(NAMES), asked(NAMES), len(list(tmp_path.iterdir()))] == [1, 0, 1]
    assert [asked(NAMES[::-1]), asked(NAMES)] == [1, 0]
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    assert asked(NAMES) == 1 and content_hash(model, NAMES) != first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["only one"]}, "at least two"),
        ({"classes": ["one", "one", "two"]}, "twice"),
        ({"inputs": {"image": "picture"}}, "picture"),
        ({"inputs": {"sound": "image"}}, "sound"),
        ({"label": "labell"}, "labell"),
        ({"template": "a photo"}, "template"),
        ({"classes": ["one", "two"]}, "not one of 0..1"),
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

    from generalist.scripts.evaluate_zero_shot import main

    clients.save(tmp_path / "model")
    for i in range(9):
        place = tmp_path / "photos" / ("test" if i < 6 else "train") / NAMES[i % 3]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(clients.picture(12, 9, i)).save(place / f"{i}.png")
    out = tmp_path / "out"
    assert main([str(tmp_path / "model"), str(tmp_path / "photos"), "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((out / "result.json").read_text()) and printed["n"] == 6
    assert predictions.derived(out / "predictions.jsonl")["accuracy"] == printed["measures"]["accuracy"]["value"]
    assert "<svg" in (out / "reliability.svg").read_text()
    assert main([str(tmp_path / "model"), str(tmp_path / "nowhere")]) == 2
