"""Retrieval between every two modalities: the matrix by hand, which pairs were trained, and what is refused."""

import json

import clients
import numpy as np
import pytest

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.data.stream.source import Records
from generalist.evaluate.any_to_any import ask, table
from generalist.evaluate.measures import values
from generalist.evaluate.predictions import derived, read
from generalist.hf.card import trained_pairs

FIELDS = {"image": "photo", "text": "said", "audio": "heard"}


def heard(i: int) -> dict:
    return {"array": clients.sound(4000, i), "sampling_rate": 8000}


def records(count: int = 7) -> Records:
    rows = [
        {"id": str(i), "photo": clients.picture(12, 12, i), "said": f"thing {i % 5}", "heard": heard(i)}
        for i in range(count)
    ]
    return Records(rows, {"about": "made up"})


@pytest.fixture(scope="module")
def both():
    model, processor = clients.model_and_processor()
    processor.tasks = {
        "captions": {"kind": "retrieve", "scale": "default", "inputs": ["image"], "answers": ["text"]},
        "heard": {"kind": "classify", "scale": "default", "inputs": ["audio"], "answers": ["text"]},
        "vqa": {"kind": "answer", "scale": "default", "inputs": ["points", "series"], "answers": ["text"]},
    }
    return model, processor


def test_the_matrix_is_the_nearest_neighbour_by_hand_and_knows_what_was_trained(both):
    model, processor = both
    held = records()
    result, columns = ask(model, processor, held, FIELDS)
    unit = {m: model.encode(processor(**{m: [held[i][f] for i in range(7)]})) for m, f in FIELDS.items()}
    said = np.arange(7) % 5
    for pair in result["pairs"]:
        nearest = (unit[pair["from"]] @ unit[pair["to"]].T).argmax(1).numpy()
        same_text = said[nearest] == said  # records with one text are one answer where text is asked or answered
        right = same_text if "text" in (pair["from"], pair["to"]) else nearest == np.arange(7)
        assert pair["recall@1"]["value"] == pytest.approx(right.mean()), pair
        assert pair["trained"] == ("text" in (pair["from"], pair["to"]))
        assert pair["chance"] == pytest.approx(11 / 49 if pair["trained"] else 1 / 7)
    assert len(result["pairs"]) == 6
    text = table(result)
    assert text.count("*") == 3 and "* never trained together" in text and "chance 0.1429 to 0.2245, 7 records" in text
    assert values("gallery", columns)["recall@1 audio to image"] == next(
        p["recall@1"]["value"] for p in result["pairs"] if (p["from"], p["to"]) == ("audio", "image")
    )


def test_pairs_trained_together_are_read_off_the_folder_s_tasks(both):
    _, processor = both
    pairs = {"-".join(sorted(pair)) for pair in trained_pairs(processor)}
    assert pairs == {"image-text", "audio-text", "points-series", "points-text", "series-text"}
    kept, processor.tasks = processor.tasks, {}
    assert trained_pairs(processor) is None
    result, _ = ask(*both, records(3), FIELDS)
    processor.tasks = kept
    assert "? the model" in table(result)


def test_a_trained_folder_s_card_says_which_pairs_its_recipe_trained_and_what_was_measured(tmp_path):
    from tiny import tiny

    from generalist.hf.processor import GeneralistProcessor
    from generalist.run.train import train_run

    train_run(tiny(steps=1), tmp_path, quiet=True)
    processor = GeneralistProcessor.from_pretrained(tmp_path / "model")
    assert trained_pairs(processor) == {frozenset(("image", "text")), frozenset(("table", "text"))}
    card = (tmp_path / "model" / "README.md").read_text()
    assert "Trained together: image - text, table - text." in card
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    rows = {line.split(" | ")[0].strip("| "): line for line in card.splitlines() if line.startswith("| ")}
    assert metrics["tasks"] and set(metrics["tasks"]) <= set(rows)
    for name, line in metrics["tasks"].items():
        assert f"| {line['value']:.4g} | {line['chance']:.4g} |" in rows[name] and f"| {line['n_test']} |" in rows[name]
    processor.save_pretrained(tmp_path / "untrained")
    assert "None were measured." in (tmp_path / "untrained" / "README.md").read_text()


def test_the_command_writes_the_matrix_and_lines_from_which_it_follows(tmp_path, capsys):
    from PIL import Image

    clients.save(tmp_path / "model")
    (tmp_path / "pairs").mkdir()
    for i in range(5):
        Image.fromarray(clients.picture(12, 12, i)).save(tmp_path / "pairs" / f"{i}.png")
        (tmp_path / "pairs" / f"{i}.txt").write_text(f"a photo of thing {i}")
    base = ["eval", str(tmp_path / "model"), str(tmp_path / "pairs"), "--any-to-any", "--split", "train"]
    base += ["--set", "val=0", "--set", "test=0", "--set", "labelled=false"]
    assert main([*base, "--out", str(tmp_path / "out"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "out" / "any_to_any.json").read_text())
    assert printed["modalities"] == ["image", "text"] and printed["n"] == 5
    again = derived(tmp_path / "out" / "any_to_any.jsonl")
    for pair in printed["pairs"]:
        assert again[f"recall@1 {pair['from']} to {pair['to']}"] == pair["recall@1"]["value"]
    assert read(tmp_path / "out" / "any_to_any.jsonl")[1]["choices"].tolist() == [5] * 10
    assert main([*base, "--input", "image"]) == 2
    assert "needs two modalities at least, got ['image']; give --input MODALITY=FIELD twice (the records have id, " in (
        capsys.readouterr().err
    )
    assert main(["eval", str(tmp_path / "model"), "--any-to-any"]) == 2
    assert "give DATA" in capsys.readouterr().err


def test_what_cannot_be_compared_is_refused(both):
    held = records(3)
    held.rows[1]["heard"] = None
    for inputs, said in (
        (FIELDS, "record 1 has no 'heard'"),
        ({"image": "photo", "smell": "said"}, "no modality 'smell'"),
        ({"image": "photo", "text": "say"}, "no field 'say'"),
    ):
        with pytest.raises(UserError, match=said):
            ask(*both, held, inputs)
    with pytest.raises(UserError, match="no record"):
        ask(*both, Records([]), FIELDS)
