"""A number of metrics.json and the one derived from the saved lines are one computation, for every kind of line."""

import json

import numpy as np
import pytest
import torch
from test_detect import parts, pictures

from generalist.data.stream.source import Records
from generalist.evaluate import answer as evaluate
from generalist.evaluate import heldout, measures, predictions
from generalist.tasks.base.reading import Reading
from generalist.tasks.base.task import Task
from generalist.tasks.candidates.names import Names, Numbers
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.describe import Describe
from generalist.tasks.kinds.regress import Regress
from generalist.tasks.kinds.restore import RestoreCodes
from generalist.tasks.kinds.retrieve import Retrieve
from generalist.tasks.measures import average_precision, lines
from generalist.tasks.measures.metrics import Mean


class Asked(Task):
    """Counts how often its `score` is asked."""

    calls = 0

    def score(self, log_p, labels):
        self.calls += 1
        return super().score(log_p, labels)


def answers_of(task: Task, log_p: torch.Tensor, labels: torch.Tensor, keys=None) -> evaluate.Answers:
    """Answers whose queries are their log p, so that nothing needs a model."""
    rows = torch.arange(len(log_p))
    records = Records([{"id": str(i)} for i in rows.tolist()], {})

    def score(queries, members):
        return queries[..., : len(members.vectors)]

    found = evaluate.Answers(task, records, log_p, log_p, labels, rows, score, keys=keys, ids=[str(i) for i in rows])
    found.columns = lines.joined(evaluate.kept(found))
    found.derived = measures.values(task.line_kind, found.columns)
    found.metrics = evaluate.measured(found)
    return found


class Likeliest(Reading):
    """How an answer is read, without a question: what evaluation knows of a task."""

    name, scale, inputs, modalities, candidates = "likeliest", "", {}, {}, Names(["a", "b", "c"])

    def score(self, log_p, labels):
        return {"accuracy": Mean(float((log_p.argmax(-1) == labels).sum()), len(labels))}

    def show(self, record, log_p, labels, names):
        return {"answers": self.answer(log_p[0], names, top=1), "correct": self.correct(log_p[0], labels[0])}


def test_answers_are_measured_kept_and_shown_by_a_reading_alone(tmp_path):
    log_p = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.1, 0.2, 0.7]]).log()
    found = answers_of(Likeliest(), log_p, torch.tensor([0, 2, 2]))
    assert found.metrics["accuracy"] == pytest.approx(2 / 3)
    told = {"lines": "named", "metric": "accuracy", "kind": "", "names": ["a", "b", "c"]}
    assert predictions.head_of(found.task) == told
    assert [s["correct"] for s in evaluate.samples(found)] == [True, False, True]


def square(n: int = 7, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, n, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)


def some_tasks() -> list:
    names = Names([f"class {i}" for i in range(7)])
    numbers = Numbers(edges=[-3.0, -2, -1, 0, 1, 2, 2.5, 3.0])
    labels = torch.tensor([0, 3, 2, 2, 6, 1, 0])
    values = torch.tensor([0.5, -1.2, 2.2, 0.1, 0.0, -2.5, 1.0])
    ids = torch.tensor([0, 1, 1, 3, 4, 5, 6])
    return [
        (Classify, names, labels, None),
        (Describe, names, labels, None),
        (RestoreCodes, names, torch.tensor([0, 3, -1, 2, 6, -1, 0]), None),
        (Regress, numbers, values, None),
        (Retrieve, None, ids, ids),
    ]


@pytest.mark.parametrize(("kind", "candidates", "labels", "keys"), some_tasks(), ids=lambda v: getattr(v, "kind", ""))
def test_what_a_task_scores_follows_from_its_lines_and_is_not_computed_twice(kind, candidates, labels, keys, tmp_path):
    counted = type("Counted", (Asked, kind), {})
    settings = {Regress: {"target": "y"}, Classify: {"label": "y"}}.get(kind, {})
    if kind in (RestoreCodes, Regress, Classify):
        settings["inputs"] = {"image": "image"}
    task = counted(name="t", source=None, **settings)
    task.candidates = candidates
    found = answers_of(task, square(), labels, keys)
    assert task.calls == 1  # of the first record alone, to know what it names
    own = {name: mean.value for name, mean in evaluate._score(found).items()}
    assert len(own) >= 2
    for name, value in own.items():
        assert found.metrics[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name
    columns = predictions.kept(found)
    predictions.save(tmp_path / "t.jsonl", {"lines": task.line_kind, "metric": task.metric}, found.ids, columns)
    again = predictions.derived(tmp_path / "t.jsonl")
    assert again == pytest.approx(found.derived, nan_ok=True) and again.keys() <= found.metrics.keys()


def test_a_measure_that_only_the_task_knows_is_asked_of_the_task():
    class Own(Asked, Classify):
        def score(self, log_p, labels):
            return super().score(log_p, labels) | {"second": Mean(float((labels == 2).sum()), float(len(labels)))}

        def measure(self, records, log_p, owner, rows):
            return {"whole": float(len(records))}

    task = Own(name="t", source=None, label="y", inputs={"image": "image"})
    task.candidates = Names([f"class {i}" for i in range(7)])
    found = answers_of(task, square(), torch.tensor([0, 3, 2, 2, 6, 1, 0]))
    assert found.metrics["second"] == pytest.approx(2 / 7) and found.metrics["whole"] == 7
    assert "second" not in found.derived and found.metrics["accuracy"] == found.derived["accuracy"]


def test_average_precision_is_compared_once_for_the_table_and_its_lines(tmp_path, monkeypatch):
    task, records, _, objective = parts(pictures(tmp_path, 3))
    compared = []
    once = average_precision._compared
    monkeypatch.setattr(average_precision, "_compared", lambda *a: compared.append(1) or once(*a))
    monkeypatch.setattr(heldout, "RESAMPLES", 0)
    answers = evaluate.answer(task, records, objective)
    line = evaluate.row(answers, {}) | heldout.measured(answers, predictions.kept(answers), tmp_path / "a.jsonl")
    assert len(compared) == 1
    written = json.loads(json.dumps(line))
    assert np.isfinite(written["value"]) and written["value"] == written["measures"]["AP50"]["value"]
    assert predictions.derived(tmp_path / "a.jsonl") == pytest.approx(answers.metrics, nan_ok=True)
