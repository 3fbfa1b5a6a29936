"""Captions written for a split: saved beside those of people, BLEU-4 and CIDEr from the file, resampled alike."""

import json

import clients
import numpy as np
import pytest
from PIL import Image

from generalist.cli import main
from generalist.evaluate.predictions import derived, read
from generalist.tasks.measures.captioning import caption_metrics, resampled

pytest.importorskip("pycocoevalcap")

WRITTEN = ["a dog runs on the grass", "two cats", "a red bus in a street", "a man and a horse stand there"]
REFERENCES = [
    ["A dog runs on the green grass.", "the dog is running"],
    ["Two cats sleep in a bed."],
    ["A bus on a street.", "a red bus in the street", "a bus"],
    ["a man stands with a horse"],
]


def test_the_whole_set_has_the_reference_s_numbers_and_resamples_those_of_their_pictures():
    whole = caption_metrics(WRITTEN, REFERENCES)
    times = np.array([[1, 1, 1, 1], [2, 0, 1, 1], [0, 0, 3, 1]], dtype=float)
    found = resampled(WRITTEN, REFERENCES, times)
    assert {name: value[0] for name, value in found.items()} == pytest.approx(whole)
    pool = [0, 0, 2, 3]
    again = caption_metrics([WRITTEN[i] for i in pool], [REFERENCES[i] for i in pool])
    assert found["BLEU-4"][1] == pytest.approx(again["BLEU-4"])
    alone = [resampled(WRITTEN, REFERENCES, np.eye(4)[i : i + 1])["CIDEr"][0] for i in range(4)]
    assert found["CIDEr"][2] == pytest.approx((3 * alone[2] + alone[3]) / 4)


def test_the_command_writes_captions_and_measures_them(tmp_path, capsys):
    model, processor = clients.model_and_processor(scales=["default", "describe"])
    processor.tasks = {"captions": {"kind": "describe", "scale": "describe", "inputs": ["image"], "writes": True}}
    for made in (model, processor):
        made.save_pretrained(tmp_path / "model")
    (tmp_path / "photos").mkdir()
    for i in range(3):
        Image.fromarray(clients.picture(12, 12, i)).save(tmp_path / "photos" / f"{i}.png")
        (tmp_path / "photos" / f"{i}.txt").write_text(f"a photo of thing {i}")
    words = ["eval", str(tmp_path / "model"), str(tmp_path / "photos"), "caption=text", "--task", "describe"]
    words += ["--set", "labelled=false", "--set", "val=0", "--set", "test=0", "--split", "train", "--input", "image"]
    out = tmp_path / "out"
    assert main([*words, "--write", "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)["measures"]
    again = derived(out / "captions.jsonl")
    assert again == pytest.approx({name: printed[name]["value"] for name in ("BLEU-4", "CIDEr")})
    columns = read(out / "captions.jsonl")[1]
    assert columns["references"].tolist() == [[f"a photo of thing {i}."] for i in range(3)]
    assert derived(out / "predictions.jsonl")["accuracy"] == printed["accuracy"]["value"]
    capsys.readouterr()
    assert main(words) == 0
    assert "CIDEr" not in capsys.readouterr().out  # written only where asked for
