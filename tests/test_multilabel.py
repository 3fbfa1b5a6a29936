"""Several names a record: read from lists, texts and columns; learnt, measured, predicted and reported."""

import json
import random

import numpy as np
import pytest
import torch
from small import Listed, modalities

from generalist.data.base.errors import UserError
from generalist.data.sources.tabular import Tabular
from generalist.hf.predict import predict
from generalist.recipe.recipe import Recipe
from generalist.run.train import train_run
from generalist.tasks.candidates.likelihood import negative_log_likelihood
from generalist.tasks.kinds.multilabel import Marks, MultiLabel
from generalist.tasks.measures import marks
from generalist.tokenizers_mod.base.modalities import build_modalities

NAMES = ["big", "red", "round"]


def made(count: int = 240) -> list[tuple[list[float], list[str]]]:
    rng = random.Random(0)
    rows = [[rng.gauss(0, 1) for _ in range(3)] for _ in range(count)]
    return [(row, [n for n, v in zip(NAMES, row, strict=True) if v > 0]) for row in rows]


def ready(rows, info=None, **settings) -> MultiLabel:
    task = MultiLabel(name="t", source=Listed({"train": rows}, info or {}), inputs={"text": "text"}, **settings)
    records = task.open("train")
    task.bind(modalities(), None, records.info)
    task.adopt(task.candidate_set(records))
    return task


@pytest.mark.parametrize(
    "rows, info, settings, names",
    [
        ([["red", "big"], ["red"], []], {}, {}, ["big", "red"]),
        (["red|big", "red", "big"], {}, {}, ["big", "red"]),
        (["red; big", "big ;red", "red"], {}, {"separator": ";"}, ["big", "red"]),
        ([{"red": 1, "big": 0}, {"red": 0, "big": 1}], {}, {}, ["big", "red"]),
        ([[1, 0], [1], []], {"classes": ["big", "red"]}, {}, ["big", "red"]),
        ([0, 1, 2], {"classes": ["red|big", "red", "big"]}, {}, ["big", "red"]),
        ([["red"], ["big"]], {}, {"classes": ["red", "big", "old"]}, ["red", "big", "old"]),
        ([[10, 9], [2]], {}, {}, ["2", "9", "10"]),
    ],
)
def test_labels_are_read_from_lists_texts_and_numbers(rows, info, settings, names):
    task = ready([{"text": "a", "label": value} for value in rows], info, **settings)
    assert task.candidates.names == names
    for value in rows:
        record = {"text": "a", "label": value}
        labels = task.example(record).inputs[0].labels
        assert labels.shape == (1, len(names))
        assert [n for n, v in zip(names, labels[0].tolist(), strict=True) if v] == sorted(
            task.right(record), key=names.index
        )


def test_the_right_names_of_every_form_are_the_same():
    forms = [
        ready([{"text": "a", "label": v} for v in (["red", "big"], ["red"], ["big"])]),
        ready([{"text": "a", "label": v} for v in ("big|red", "red", "big")]),
        ready(
            [{"text": "a", "label": v} for v in ({"red": True, "big": 1}, {"red": 1, "big": 0}, {"red": 0, "big": 1})]
        ),
        ready(
            [{"text": "a", "red": a, "big": b} for a, b in ((1, "1"), (True, 0), (0.0, "true"))], columns=["big", "red"]
        ),
    ]
    for task in forms:
        rows = task.source.rows["train"]
        assert [sorted(task.right(row)) for row in rows] == [["big", "red"], ["red"], ["big"]]


def test_an_empty_label_leaves_the_task_unless_it_means_none_and_an_empty_list_always_does():
    rows = [{"text": "a", "label": v} for v in ("red|big", "", None, "big")]
    task = ready(rows)
    assert (
        len(task.open("train")) == 2 and "2 of 4 train records have no 'label'" in task.open("train").info["notes"][0]
    )
    with pytest.raises(UserError, match="has no 'label'"):
        task.example(rows[1], torch.Generator())
    none = ready(rows, none=True)
    assert len(none.open("train")) == 4 and none.marks(rows[1]) == none.marks(rows[2]) == [0.0, 0.0]
    assert ready([{"text": "a", "label": []}, {"text": "a", "label": ["b"]}]).marks({"label": []}) == [0.0]
    with pytest.raises(UserError, match="did you mean 'red'"):
        task.marks({"label": "redd"})
    with pytest.raises(UserError, match="does not deny"):
        Marks(["a"], denial="{}")


def test_the_law_over_all_pairs_is_each_name_s_own_question():
    chosen = Marks(["a", "b"])
    logits = torch.tensor([[1.0, -0.5, 0.3, 0.2]], requires_grad=True)
    log_p = logits.log_softmax(-1)
    p = chosen.yes(log_p)
    torch.testing.assert_close(p, torch.sigmoid(torch.tensor([[0.7, -0.7]])))
    target = chosen.target(torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(target, torch.tensor([[0.5, 0.0, 0.0, 0.5]]))
    optimizer = torch.optim.SGD([logits], 2.0)
    truth = torch.tensor([[0.8, 0.3]])  # as often as the name is right
    for _ in range(500):
        optimizer.zero_grad()
        negative_log_likelihood(logits.log_softmax(-1), chosen.target(truth), 0.0)[0].sum().backward()
        optimizer.step()
    torch.testing.assert_close(chosen.yes(logits.log_softmax(-1)), truth, atol=1e-3, rtol=0)


def test_measures_are_those_of_scikit_learn():
    from sklearn.metrics import average_precision_score, f1_score

    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (50, 3))
    p = np.clip(truth * 0.3 + rng.random((50, 3)) * 0.7, 0, 1)
    record, label = np.indices(truth.shape)
    columns = {"record": record.ravel(), "label": label.ravel(), "truth": truth.ravel(), "p": p.ravel()}
    found = marks.measures(columns, np.ones((1, truth.size)))
    assert found["mAP"][0] == pytest.approx(average_precision_score(truth, p, average="macro"))
    assert found["micro-F1"][0] == pytest.approx(f1_score(truth, p >= 0.5, average="micro"))
    assert found["macro-F1"][0] == pytest.approx(f1_score(truth, p >= 0.5, average="macro"))
    assert found["exact match"][0] == pytest.approx(((p >= 0.5) == truth).all(1).mean())
    tied = marks.average_precision(np.array([1, 0, 0, 0]), np.zeros(4), np.ones((1, 4)))
    assert tied[0] == pytest.approx(0.25), "equal probabilities are no success"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on a table whose label is a list of names."""
    folder = tmp_path_factory.mktemp("run")
    with (folder / "t.jsonl").open("w") as file:
        for row, names in made():
            file.write(json.dumps(dict(zip("abc", row, strict=True)) | {"label": names}) + "\n")
    source = Tabular(str(folder / "t.jsonl"), label="label")
    task = MultiLabel(name="tags", source=source, inputs={"table": "row"}, batch=64)
    settings = {"summary": {}, "text": {"tokenizer": "", "learn": 270, "max_length": 12, "positions": 12}, "table": {}}
    recipe = Recipe(name="tags", about="", tasks=[task], modalities=build_modalities(settings), steps=150)
    spec = recipe.model
    spec.width, spec.layers, spec.heads, spec.hidden = 24, 1, 2, 48
    recipe.workers, recipe.optimizer.lr, recipe.optimizer.warmup, recipe.engine.device = 0, 5e-3, 10, "cpu"
    return folder, train_run(recipe, folder / "out", quiet=True)


def test_a_table_of_lists_is_trained_evaluated_and_compared(run):
    folder, metrics = run
    line = metrics["tasks"]["tags"]
    assert line["metric"] == "mAP" and 0.35 < line["chance"] < 0.65 < 0.9 < line["baseline"]
    assert line["value"] > 0.85, "the sign of a number says the name"
    assert {"micro-F1", "macro-F1", "exact match"} <= set(line["extra"])
    head, first, *_ = (folder / "out/answers/tags.jsonl").read_text().splitlines()
    assert json.loads(head)["lines"] == "marks" and {"label", "truth", "p"} <= set(json.loads(first))
    assert "tags" in (folder / "out/report.html").read_text()


def test_a_prediction_names_every_tag_with_its_own_probability(run):
    folder, _ = run
    (folder / "row.json").write_text(json.dumps({"a": 2.0, "b": -2.0, "c": 2.0}))
    answers = dict(predict(folder / "out", {"table": str(folder / "row.json")}, None, "tags")["answers"])
    assert sorted(answers) == NAMES
    assert min(answers["big"], answers["round"]) > 0.5 > answers["red"]
