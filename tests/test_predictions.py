"""Saved answers: every number of every kind of task follows again from its file of lines, and from nothing else."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from test_detect import parts, pictures

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.evaluate import answer as evaluate
from generalist.evaluate import measures, predictions
from generalist.hf.processor import GeneralistProcessor
from generalist.tasks.candidates.names import Numbers
from generalist.tasks.kinds.answer import Answer, soft_scores
from generalist.tasks.kinds.regions.detect import Detect
from generalist.tasks.kinds.regions.segment import Segment
from generalist.tasks.kinds.retrieve import Retrieve
from generalist.tasks.measures import lines


def some_answers(n: int = 57, k: int = 5, seed: int = 0):
    """log_p [n, k], rows sum to one in p, and labels that are right more often than by chance."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, k))
    labels = rng.integers(0, k, n)
    scores[np.arange(n), labels] += 1.0
    return torch.from_numpy(scores).log_softmax(-1), torch.from_numpy(labels)


def named(n: int = 57, seed: int = 0) -> lines.Columns:
    return {"record": np.arange(n), **lines.named(*some_answers(n, seed=seed))}


def test_named_measures_agree_with_their_definitions():
    log_p, labels = some_answers()
    value = measures.values("named", named())
    answers = log_p.argmax(1)
    assert value["accuracy"] == pytest.approx(float((answers == labels).double().mean()))
    assert value["macro-F1"] == pytest.approx(f1_score(labels, answers, average="macro"))
    assert value["nll"] == pytest.approx(float(-log_p[torch.arange(57), labels].mean()))
    assert value["recall@1"] == value["accuracy"] and "recall@5" not in value


def test_an_answer_outside_the_candidates_is_wrong_and_in_no_class():
    columns = lines.named(
        torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]]).log(), torch.tensor([0, -1, 1])
    )
    value = measures.values("named", {"record": np.arange(3), **columns})
    assert value["accuracy"] == pytest.approx(1 / 3) and value["nll"] == pytest.approx(-np.log([0.7, 0.3]).mean())
    assert value["macro-F1"] == pytest.approx((1 + 0 + 0) / 3)
    assert lines.named_chance(columns)["uniform"] == pytest.approx(2 / 9)


def test_calibration_error_is_zero_for_honest_and_large_for_boastful_confidence():
    def error(p: float) -> float:
        columns = lines.named(torch.tensor([[p, 1 - p]] * 400).log(), torch.tensor([0, 0, 0, 1] * 100))
        return measures.values("named", {"record": np.arange(400), **columns})["ECE"]

    assert error(0.75) == pytest.approx(0, abs=1e-6)
    assert error(1.0) == pytest.approx(0.25)


def test_number_measures_are_those_of_the_distribution():
    among = Numbers(edges=[-3.0, -1.0, 0.0, 1.0, 3.0])
    log_p = torch.tensor([[0.1, 0.4, 0.4, 0.1], [0.0, 0.0, 0.5, 0.5]]).clamp(min=1e-9).log()
    labels = torch.tensor([0.5, 2.0])
    columns = {"record": np.arange(2), **lines.numbers(log_p, labels, among, mean=10.0, std=2.0)}
    value = measures.values("numbers", columns)
    expected = among.expectation(log_p)
    assert value["mse"] == pytest.approx(4 * float(((expected - labels) ** 2).mean()), rel=1e-5)
    assert value["rmse"] == pytest.approx(value["mse"] ** 0.5)
    # the definition, by integration: the squared distance between the distribution's cdf and the value's step
    grid = torch.linspace(-3, 3, 6001)
    cdf = torch.stack([torch.from_numpy(np.interp(grid, among.edges, [0, *row.exp().cumsum(0)])) for row in log_p])
    crps = ((cdf - (grid >= labels[:, None]).double()) ** 2).sum(1) * 6 / 6000
    assert value["CRPS"] == pytest.approx(2 * float(crps.mean()), rel=0.05)  # 19 quantiles stand for the integral
    assert lines.number_chance(columns)["mae"] == pytest.approx(2 * 1.25)


def test_recall_both_ways_and_its_chance():
    log_p = torch.tensor([[3.0, 1, 2], [9, 1, 2], [0, 1, 2]]).log_softmax(-1)
    right = torch.eye(3, dtype=torch.bool)
    parts_ = [lines.gallery(log_p, right, "forward"), lines.gallery(log_p.T, right, "backward")]
    columns = {"record": np.tile(np.arange(3), 2), **lines.joined(parts_)}
    value = measures.values("gallery", columns)
    assert value["recall@1 forward"] == pytest.approx(2 / 3) and value["median rank forward"] == 1
    assert value["recall@1"] == pytest.approx((value["recall@1 forward"] + value["recall@1 backward"]) / 2)
    assert lines.gallery_chance(columns)["recall@1"] == pytest.approx(1 / 3)
    assert lines.gallery_chance(columns)["recall@5"] == 1
    two_right = {"choices": np.array([5]), "right": np.array([2])}
    assert lines.gallery_chance(two_right)["recall@5"] == 1
    assert lines.gallery_chance(two_right)["recall@1"] == pytest.approx(0.4)


def test_vqa_accuracy_is_the_published_one():
    ten = ["cat"] * 3 + ["dog"] * 5 + ["cow", "eel"]
    scores = soft_scores(ten)
    leave_one_out = [min((ten[:i] + ten[i + 1 :]).count("cat") / 3, 1) for i in range(10)]
    assert scores["cat"] == pytest.approx(np.mean(leave_one_out)) == pytest.approx(0.9)
    assert scores["dog"] == 1 and scores["cow"] == pytest.approx(0.3) and soft_scores(["yes"]) == {"yes": 1.0}
    task = Answer(name="vqa", source=None, answers=["dog", "cat", "fox"])
    task.candidates = task.candidate_set([])
    kept = lines.Kept(
        torch.tensor([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]).log(), torch.tensor([0, 0]), torch.arange(2),
        lambda i: {"answer": ten},
    )  # fmt: skip
    assert measures.values("named", task.keep(kept))["VQA accuracy"] == pytest.approx(0.45)


def test_the_interval_narrows_with_more_samples_is_fixed_by_its_seed_and_holds_the_truth():
    few, many = (measures.intervals("named", named(n), resamples=300)["accuracy"] for n in (30, 900))
    assert many["high"] - many["low"] < (few["high"] - few["low"]) / 3
    assert measures.intervals("named", named(30), 3, 40) == measures.intervals("named", named(30), 3, 40)
    normal = 1.96 * np.sqrt(many["value"] * (1 - many["value"]) / 900)
    assert many["high"] - many["low"] == pytest.approx(2 * normal, rel=0.2)


def test_answers_of_one_record_are_drawn_together():
    columns = named(60)
    together = columns | {"record": np.arange(60) // 30}  # two records: the interval spans both extremes
    spread = [measures.intervals("named", c, resamples=300)["accuracy"] for c in (columns, together)]
    halves = sorted(float((columns["label"] == columns["answer"])[i : i + 30].mean()) for i in (0, 30))
    assert [spread[1]["low"], spread[1]["high"]] == pytest.approx(halves)
    assert spread[0]["low"] < spread[0]["value"] < spread[0]["high"]


@pytest.mark.parametrize(("kind", "masks"), [(Detect, False), (Segment, True)])
def test_average_precision_follows_from_the_saved_lines(tmp_path, kind, masks):
    task, records, _, objective = parts(pictures(tmp_path), kind, masks)
    answers = evaluate.answer(task, records, objective)
    columns = predictions.kept(answers)
    predictions.save(tmp_path / "shapes.jsonl", predictions.head_of(task), answers.ids, columns)
    again = predictions.derived(tmp_path / "shapes.jsonl")
    assert set(again) == set(answers.metrics)
    assert all(again[name] == pytest.approx(answers.metrics[name], nan_ok=True) for name in again)
    head, read = predictions.read(tmp_path / "shapes.jsonl")
    times = np.array([[1.0] * 6, [2, 0, 1, 1, 0, 2]])
    twice = lines.KINDS[head["lines"]][0](read, times)
    assert twice["AP"][0] == pytest.approx(answers.metrics["AP"], nan_ok=True)
    # a resample is the reference's own number for a set in which the drawn pictures stand several times
    pool = [i for i, count in enumerate(times[1].astype(int)) for _ in range(count)]
    chosen = {name: value[pool] for name, value in read.items()}
    assert twice["AP50"][1] == pytest.approx(lines.KINDS[head["lines"]][0](chosen, np.ones((1, 6)))["AP50"][0])


def test_a_file_that_holds_no_answers_is_refused_in_one_line(tmp_path):
    path = tmp_path / "a.jsonl"
    for text in ("", "{", '{"lines": "nothing"}\n', '{"lines": "named"}\n[1]\n', '{"lines": "named"}\n{"label": 1}\n'):
        path.write_text(text)
        with pytest.raises(UserError, match="no saved answers") as caught:
            predictions.read(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot read"):
        predictions.read(tmp_path / "none.jsonl")


def test_lines_are_json_and_come_back_as_they_were():
    columns = named(7) | {"log_p": np.fromiter(([0.5, i] for i in range(7)), dtype=object)}
    text = [json.dumps(row) for row in lines.rows_of(columns)]
    again = lines.columns_of(json.loads(line) for line in text)
    assert all(np.array_equal(columns[name], again[name]) for name in columns if name != "log_p")
    assert again["log_p"].tolist() == columns["log_p"].tolist()


@pytest.mark.parametrize(("kind", "masks"), [(Detect, False), (Segment, True)])
def test_average_precision_of_a_saved_model_on_annotated_pictures(tmp_path, capsys, kind, masks):
    folder = tmp_path / "pictures"
    folder.mkdir()
    task, records, modalities, objective = parts(pictures(folder), kind, masks)
    expected = evaluate.answer(task, records, objective).metrics
    processor = GeneralistProcessor(
        tokenizer=modalities["text"].hf_tokenizer(),
        modalities=objective.model.config.modalities,
        candidate_sets={"shapes": task.candidates.to_dict()},
        tasks={"shapes": task.about()},
    )
    for made in (objective.model, processor):
        made.save_pretrained(tmp_path / "model")
    words = ["eval", str(tmp_path / "model"), f"coco:{folder}", "--task", "shapes", "--input", "region=image"]
    words += ["--split", "train", *(["--set", "masks=true"] if masks else [])]
    assert main([*words, "--out", str(tmp_path / "out"), "--json"]) == 0
    found = {name: one["value"] for name, one in json.loads(capsys.readouterr().out)["measures"].items()}
    assert found == pytest.approx(expected, nan_ok=True, abs=1e-6)
    assert predictions.derived(tmp_path / "out" / "predictions.jsonl") == pytest.approx(found, nan_ok=True)


def test_partners_that_are_all_alike_are_not_found():
    score = Retrieve(name="pairs", source=None, inputs={"image": "image"}).score
    alike, right = torch.full((3, 4), -1.4), torch.eye(3, 4, dtype=torch.bool)
    assert lines.gallery(alike, right, "forward")["rank"].tolist() == [3, 3, 3]
    assert score(alike, right)["recall@1"].value == 0
    clear = alike + right
    assert lines.gallery(clear, right, "forward")["rank"].tolist() == [0, 0, 0]
    assert score(clear, right)["recall@1"].value == 1
