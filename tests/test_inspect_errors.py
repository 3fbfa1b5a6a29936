"""Errors and similar samples: the worst is the worst, sums of the confusion matrix, slices, the nearest is itself."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small import Listed, modalities

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.data.stream.source import Records
from generalist.evaluate.answer import answer
from generalist.evaluate.zero_shot import Judge
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.inspect.drawn import SIDE, small
from generalist.inspect.errors import CLASSES, Errors, confusion
from generalist.inspect.similar import Similar, vectors
from generalist.inspect.slices import EMPTY, columns_of
from generalist.inspect.training import Training
from generalist.report.report import write_report
from generalist.run.train import train_run
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.regress import Regress
from generalist.tokenizers_mod.base.modalities import modality_settings
from generalist.tokenizers_mod.numbers.number import Number
from tests.tiny import tiny

WORDS = ["red", "green", "blue"]
# said is what the words say, which is what an encoder of words and names alike answers; label is what counts as right
ROWS = [
    {"id": f"{label}-{said}-{i}", "text": said, "label": label, "hand": "left" if said == label else "right", "n": i}
    for i, (label, said) in enumerate([(w, w) for w in WORDS] * 3 + [("red", "green")] * 2 + [("blue", "red")])
]


@pytest.fixture(scope="module")
def same():
    """A task whose answer is the word itself, a model that knows it by construction, and its training split."""
    rows = {"train": ROWS[:9], "test": ROWS}
    task = Classify(name="same", source=Listed(rows, {"classes": WORDS}), inputs={"text": "text"}, scale="default")
    kinds = modalities()
    config = GeneralistConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
                              modalities=modality_settings(kinds), initial_scale=20.0)  # fmt: skip
    torch.manual_seed(0)
    model = GeneralistModel(config).eval()
    records = task.source.open("test")
    task.bind(kinds, None, records.info)
    task.adopt(task.candidate_set(records))
    with torch.no_grad():  # the question is silent: what is said is the mean of the words
        model.encoder.layers[0].mixer.qkv.weight[:32] = 0
    known = lambda: (task.source.open("train"), {"text"}, "the list")  # noqa: E731
    return task, records, Judge(model, task), Training(Path("nowhere"), True, known)


def test_the_worst_are_those_given_the_least_probability(same):
    task, records, objective, training = same
    answers = answer(task, records, objective)
    found = Errors().run(task, records, objective, training)
    p = np.exp(-answers.columns["nll"])
    order = np.argsort(p, kind="stable")
    assert [one["id"] for one in found["worst"]] == [ROWS[i]["id"] for i in order[:12]]
    assert [float(one["told"]) for one in found["worst"]] == pytest.approx(p[order[:12]], rel=0.06)
    assert found["worst"][0]["correct"] is False and found["worst"][-1]["correct"] is True
    assert found["value"] == pytest.approx(np.mean(answers.columns["label"] == answers.columns["answer"]))


def test_the_confusion_matrix_counts_every_record_once_where_it_belongs(same):
    task, records, objective, _ = same
    answers = answer(task, records, objective)
    found = Errors().run(task, records, objective)["confusion"]
    counts, columns = np.array(found["counts"]), answers.columns
    assert counts.sum() == len(ROWS) and counts.sum(1).tolist() == [5, 3, 4]  # red, green, blue
    for i in range(3):
        for j in range(3):
            assert counts[i, j] == ((columns["label"] == i) & (columns["answer"] == j)).sum()
    assert sum(count for *_, count in found["pairs"]) == counts.sum() - np.trace(counts)
    assert "duplicates" not in Errors().run(task, records, objective)


def test_many_classes_keep_those_with_most_mistakes_and_the_sums():
    label = np.repeat(np.arange(40), 3)
    said = label.copy()
    said[label == 7], said[label == 30] = 30, 7
    label[0] = -1  # its right answer is no candidate
    found = confusion({"label": label, "answer": said}, [f"c{i}" for i in range(40)])
    counts = np.array(found["counts"])
    assert len(found["names"]) == CLASSES + 1 and found["names"][-1] == "others" and counts.sum() == 120
    at = [found["names"].index(name) for name in ("c7", "c30")]
    assert counts[at[0], at[1]] == counts[at[1], at[0]] == 3
    assert found["pairs"][0] == ["c7", "c30", 3] and ["no candidate", "c0", 1] in found["pairs"]


def test_slices_are_the_measure_of_their_records_the_worst_first(same):
    task, records, objective, _ = same
    columns = answer(task, records, objective).columns
    right = columns["label"] == columns["answer"]
    found = {one["column"]: one["values"] for one in Errors().run(task, records, objective)["slices"]}
    assert set(found) == {"hand", "text"}  # not the label, the id, or a number that is another in every record
    for name, values in found.items():
        for one in values:
            at = np.array([row[name] == one["value"] for row in ROWS])
            assert one["n"] == at.sum() and one["measure"] == pytest.approx(right[at].mean())
        assert [v["measure"] for v in values] == sorted(v["measure"] for v in values)
    assert found["hand"][0]["value"] == "right"


def test_columns_are_those_of_rows_too_with_2_to_20_values():
    rows = [{"id": str(i), "row": {"sex": "fm"[i % 2], "age": i % 25, "all": 1}, "image": np.zeros(3),
             **({"seen": True} if i % 3 else {})} for i in range(60)]  # fmt: skip
    found = columns_of(Records(rows), {"label"})
    assert set(found) == {"sex", "seen"} and found["seen"][:4] == [EMPTY, "True", "True", EMPTY]
    assert found["sex"] == ["f", "m"] * 30


def test_what_stands_in_training_is_named(same):
    task, records, objective, training = same
    found = Errors().run(task, records, objective, training)
    assert found["duplicates"]["count"] == len(ROWS)  # every word is a word of training
    assert "among 9 training samples: the list" in found["duplicates"]["said"]
    assert all("also in training: " in one["note"] for one in found["worst"])


def test_the_nearest_is_the_sample_itself_where_training_holds_it(same):
    task, records, objective, training = same
    found = Similar().run(task, records, objective, training)
    assert found["compared"] == 9 and len(found["samples"]) == 8
    theirs, sound, wrong = vectors(task, records, objective)
    assert sound == list(range(len(ROWS))) and not wrong
    assert np.linalg.norm(theirs, axis=1) == pytest.approx(1, abs=1e-5)
    for one in found["samples"]:
        word = one["id"].split("-")[1]
        assert [near["truth"] for near in one["near"][:3]] == [word] * 3
        assert one["near"][0]["cosine"] == pytest.approx(1, abs=1e-5)
        cosines = [near["cosine"] for near in one["near"]]
        assert cosines == sorted(cosines, reverse=True) and cosines[3] < 1 - 1e-4
    with pytest.raises(UserError, match="--training"):
        Similar().run(task, records, objective)


def test_pictures_are_kept_small_with_their_means():
    pixels = np.random.default_rng(0).random((4 * SIDE, 2 * SIDE))
    kept = np.array(small({"kind": "image", "pixels": pixels.tolist()})["pixels"])
    assert kept.shape == (SIDE, SIDE // 2) and kept.mean() == pytest.approx(pixels.mean(), abs=1e-3)
    assert small({"kind": "series", "past": [1.23456789], "n": 3}) == {"kind": "series", "past": [1.235], "n": 3}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Cultivars of wines, and numbers told by rows that hold them."""
    made = tiny(steps=30, checkpoint__every=0)
    made.tasks, made.baseline = [made.tasks[1]], False
    made.modalities["number"] = Number()
    made.tasks.append(
        Regress(name="numbers", source=Listed({"train": [{"row": {"x": i, "kind": "ab"[i % 2]}, "target": float(i)}
                                                         for i in range(40)]}), inputs={"table": "row"}, batch=8)
    )  # fmt: skip
    out = tmp_path_factory.mktemp("wine") / "run"
    train_run(made, out, quiet=True)
    return out


def test_the_command_writes_both_and_the_report_draws_them(run, capsys):
    before = (run / "model" / "model.safetensors").read_bytes()
    assert main(["inspect", str(run), "embedded:wine", "--task", "wine", "--what", "errors", "similar"]) == 0
    shown = capsys.readouterr().out
    errors, similar = (json.loads((run / "inspect" / f"{kind}.json").read_text()) for kind in ("errors", "similar"))
    assert np.sum(errors["confusion"]["counts"]) == errors["n"] == 36
    assert errors["duplicates"]["count"] == 0 and "what the run was trained on" in similar["where"]
    assert similar["compared"] == similar["training"] == 124
    assert all(near["truth"].endswith("cultivar") for one in similar["samples"] for near in one["near"])
    assert errors["worst"][0]["id"] in shown and similar["samples"][0]["near"][0]["id"] in shown
    assert [one["id"] for one in similar["samples"]] == [one["id"] for one in errors["worst"][:8]]
    text = write_report(run).read_text(encoding="utf-8")
    drawn = {name: text.partition(f"<h2>{name}</h2>")[2].partition("</section>")[0] for name in ("Errors", "Similar")}
    assert drawn["Errors"].count("<article") == 12 and drawn["Errors"].count("answered as") == 9
    assert drawn["Similar"].count("<figure>") == 8 * 5 and drawn["Similar"].count("in rows") == 8 * 6
    assert (run / "model" / "model.safetensors").read_bytes() == before


def test_of_numbers_the_largest_absolute_error_comes_first(run, tmp_path, capsys):
    rows = "x,kind,target\n" + "".join(f"{(7 * i) % 80 / 2},{'ab'[i % 2]},{i if i % 4 else 900}\n" for i in range(80))
    (tmp_path / "t.csv").write_text(rows)
    words = ["inspect", str(run), str(tmp_path / "t.csv"), "target=target", "--task", "numbers", "--json"]
    assert main([*words, "--what", "errors"]) == 0, capsys.readouterr().err
    found = json.loads(capsys.readouterr().out)
    costs = [one["cost"] for one in found["worst"]]
    assert found["worst"][0]["truth"] == "900" and costs == sorted(costs, reverse=True)
    assert 800 < costs[0] < 900 and "confusion" not in found


def test_bad_input_is_one_line(run, tmp_path, capsys):
    (tmp_path / "bare.csv").write_text("alcohol,malic_acid\n" + "12.1,1.4\n" * 20)
    for words, told in (
        ([str(tmp_path / "bare.csv"), "--task", "wine", "--what", "errors"], "label"),
        (["embedded:wine", "--task", "wine", "--what", "eror"], "did you mean 'errors'"),
        (["embedded:wine", "--task", "wine", "--what", "errors", "simlar"], "did you mean 'similar'"),
        (["embedded:wine", "--task", "wine", "--what", "similar", "--training", str(tmp_path / "no.csv")], "no.csv"),
    ):
        assert main(["inspect", str(run), *words]) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1 and told in said[0], said
