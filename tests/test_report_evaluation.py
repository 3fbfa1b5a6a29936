"""What the report draws of evaluations: calibration, retrieval between modalities, leakage, other data, curves."""

import json
import re

import clients
import numpy as np
import pytest
from test_adapt import photos
from test_report import Page, make_run

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.evaluate import measures, predictions
from generalist.report.report import write_report
from generalist.tasks.measures import lines


def result(leaks: int = 2) -> dict:
    """What an evaluation says, from 60 made-up answers."""
    import torch

    rng = np.random.default_rng(0)
    log_p = torch.from_numpy(rng.normal(size=(60, 4))).log_softmax(-1)
    columns = {"record": np.arange(60), **lines.named(log_p, torch.from_numpy(rng.integers(0, 4, 60)))}
    found = {"task": "classify", "metric": "accuracy", **measures.measure("named", columns, resamples=50)}
    samples = [{"id": f"test/{i}<b>", "how": "alike", "training": f"train/{i}"} for i in range(leaks)]
    compared = {"training": 700, "evaluation": 60, "fields": ["image"]}
    found["leakage"] = {"compared": compared, "count": leaks, "exact": 0, "alike": leaks, "samples": samples}
    found["leakage"]["measures"] = found["measures"] | {"accuracy": {"value": 0.123, "low": 0.1, "high": 0.2}}
    return found


def matrix() -> dict:
    pairs = []
    for i, (source, target) in enumerate(
        [("image", "text"), ("text", "image"), ("image", "audio"), ("audio", "image")]
    ):
        one = {"value": 0.2 * (i + 1), "low": 0.1, "high": 0.9}
        pairs.append({"from": source, "to": target, "trained": i < 2, "chance": 0.05, "recall@1": one})
    return {"modalities": ["image", "text", "audio"], "n": 70, "about": "pairs", "pairs": pairs}


def tuning() -> list[dict]:
    out = [{"method": "zero-shot", "shots": None, "fraction": None, "samples": 0, "accuracy": 0.31, "std": 0.0,
            "draws": [0.31], "n_test": 90, "classes": 5}]  # fmt: skip
    for method in ("prompts", "full"):
        for fraction, samples in ((0.01, 5), (0.1, 50), (1.0, 500)):
            accuracy = 0.3 + 0.2 * np.log10(samples) + 0.05 * (method == "full")
            draws = [accuracy - 0.04, accuracy + 0.04]
            size = {"fraction": fraction, "samples": samples, "shots": None, "classes": 5, "n_test": 90}
            out.append({"method": method, "accuracy": accuracy, "std": 0.04, "draws": draws, **size})
    return out


@pytest.fixture
def run(tmp_path):
    folder = make_run(tmp_path / "demo", steps=40, points=12)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["tasks"]["digits"] |= {k: v for k, v in result().items() if k in ("measures", "reliability", "leakage")}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "any_to_any.json").write_text(json.dumps(matrix()))
    for name, file, value in (("tuning", "tuning.json", tuning()), ("evaluations", "result.json", result(0))):
        (folder / name / "photos").mkdir(parents=True)
        (folder / name / "photos" / file).write_text(json.dumps(value))
    return folder


def test_every_section_is_drawn_from_its_file_and_absent_without_it(run):
    text = write_report(run).read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == [] and "nan" not in re.sub(r"<style>.*?</style>", "", text, flags=re.S)
    for title in ("Other data", "Calibration", "Any to any", "Leakage", "Learning curves"):
        assert f"<h2>{title}</h2>" in text
    (run / "any_to_any.json").unlink()
    (run / "tuning" / "photos" / "tuning.json").unlink()
    again = write_report(run).read_text(encoding="utf-8")
    assert "Any to any" not in again and "Learning curves" not in again and "<h2>Calibration</h2>" in again


def test_other_data_has_its_chance_beside_every_measure_that_guessing_has_one_for(run):
    section = write_report(run).read_text(encoding="utf-8").partition("<h2>Other data</h2>")[2].partition("<h2>")[0]
    rows = dict(re.findall(r"<tr><td>([^<]*)</td>.*?<td>([^<]*)</td></tr>", section))
    assert rows["accuracy"] == rows["recall@1"] == "0.250" and rows["nll"] == "–"


def test_the_matrix_marks_what_was_never_trained_together(run):
    text = write_report(run).read_text(encoding="utf-8")
    drawing = re.search(r'<svg class="heat".*?</svg>', text, re.S)[0]
    cells = re.findall(r"<g><title>(.*?)</title><rect(.*?)/>", drawing)
    dashed = {title.split(":")[0] for title, style in cells if "dasharray" in style}
    assert len(cells) == 4 and dashed == {"image → audio", "audio → image"}
    assert "Never trained together and still above chance with the whole interval: image → audio" in text


def test_leaked_samples_are_named_and_the_result_without_them_given(run):
    words = "".join(Page(write_report(run).read_text(encoding="utf-8")).text)
    assert "digits: 2 samples" in words and "test/0<b>" in words and "alike: train/1" in words
    assert "accuracy 0." in words and "0.123" in words
    assert words.count("60 / 700") == 2  # the run's task and the other data


def test_a_curve_has_a_point_and_a_bar_a_size_and_lines_for_zero_shot_and_chance(run):
    text = write_report(run).read_text(encoding="utf-8")
    drawing = re.search(r'<svg class="chart"[^>]*aria-label="accuracy on photos.*?</svg>', text, re.S)[0]
    assert drawing.count("<circle") == 6 and drawing.count("stroke-dasharray") == 1 and "chanceline" in drawing
    tips = re.findall(r"<title>((?:prompts|full).*?)</title>", drawing)
    assert tips[0] == "prompts, 5 samples: 0.440 ± 0.040"
    heights = [float(y) for y in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', drawing)]
    assert heights[0] > heights[1] > heights[2] and heights[3] < heights[0]  # better is higher
    assert "2 draws a point, 90 test samples" in text


@pytest.mark.parametrize("name", ["tuning.json", "result.json", "any_to_any.json"])
def test_a_folder_that_an_evaluation_left_has_a_page_of_its_own(tmp_path, name):
    value = {"tuning.json": tuning(), "result.json": result(), "any_to_any.json": matrix()}[name]
    (tmp_path / name).write_text(json.dumps(value))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert Page(text).open == [] and 'class="card missing"' not in text and "<h2>" in text
    (tmp_path / name).write_text("[]")
    with pytest.raises(UserError, match=name.replace(".", r"\.")) as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)


def test_tune_curve_writes_what_the_report_draws(tmp_path, capsys):
    clients.save(tmp_path / "base", scales=["default", "classify"])
    photos(tmp_path / "photos", train=60, test=9)
    base = ["tune", str(tmp_path / "base"), str(tmp_path / "photos")]
    words = [*base, "--method", "zero-shot", "probe", "--curve", "--draws", "2", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    found = json.loads((tmp_path / "out" / "tuning.json").read_text())
    assert [line["fraction"] for line in found if line["method"] == "probe"] == [0.01, 0.02, 0.05, 0.1, 1.0]
    assert {line["classes"] for line in found} == {3}
    assert main(["report", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<h2>Learning curves</h2>" in text and text.count("<circle") == 5
    assert main([*base, "--curve", "--shots", "1"]) == 2
    assert "--curve" in capsys.readouterr().err


def kept_answers(run, task: str, names: list[str], kind: str, label, said) -> None:
    """The answers of one task as an evaluation keeps them, named in metrics.json."""
    path = run / "answers" / f"{task}.jsonl"
    columns = {"record": np.arange(len(label)), "label": np.array(label), "answer": np.array(said)}
    head = {"lines": "named", "metric": "accuracy", "kind": kind} | ({"names": names} if names else {})
    predictions.save(path, head, [f"r{i}" for i in range(len(label))], columns)
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["tasks"][task]["answers"] = path.name
    (run / "metrics.json").write_text(json.dumps(metrics))


def confused(run) -> str:
    text = write_report(run).read_text(encoding="utf-8")
    assert Page(text).open == []
    return text.partition("<h2>What is taken for what</h2>")[2].partition("<h2>")[0]


def test_a_classification_of_few_classes_has_its_whole_confusion_matrix(run):
    assert confused(run) == ""  # a run that kept no answers
    kept_answers(run, "digits", ["one", "two<b>", "three"], "classify", [0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 1, 0])
    section = confused(run)
    rows = re.findall(r"<tr><td [^>]*>([^<]*)</td>(.*?)</tr>", section, re.S)
    counts = {name: re.findall(r">([·\d]+)</td>", cells) for name, cells in rows}
    expected = {"one": ["1", "2", "·"], "two&lt;b&gt;": ["·", "2", "·"], "three": ["1", "·", "·"]}
    assert counts == expected
    assert "3 of 6 answers are wrong" in section and 'title="one answered as two&lt;b&gt;: 2 of 3"' in section


def test_of_many_classes_the_pairs_confused_most_are_told_with_their_counts(run):
    label = [*np.arange(40), 7, 7, 3]
    kept_answers(run, "digits", [], "classify", label, [*np.arange(40), 9, 9, 4])
    section = confused(run)
    told = re.findall(r"<tr><td [^>]*>([^<]*)</td><td [^>]*>([^<]*)</td><td>(\d+)</td></tr>", section)
    assert told == [("candidate 7", "candidate 9", "2"), ("candidate 3", "candidate 4", "1")]
    assert "of 40 classes" in section and "confusion" not in section


def test_what_is_no_classification_has_no_confusion_matrix_and_damaged_answers_are_named(run):
    kept_answers(run, "digits", ["a", "b"], "fill", [0, 1], [1, 1])
    assert confused(run) == ""
    kept_answers(run, "digits", ["a", "b"], "classify", [0, 1], [1, 1])
    (run / "answers" / "digits.jsonl").write_text("{")
    with pytest.raises(UserError, match=r"digits\.jsonl holds no saved answers"):
        write_report(run)


def test_model_and_ordinary_method_together_have_a_column(run):
    assert "<th>Together</th>" not in write_report(run).read_text(encoding="utf-8")
    metrics = json.loads((run / "metrics.json").read_text())
    found = {"value": 0.987, "way": "both", "a": 0.5, "b": 1.25, "method": "logistic regression"}
    metrics["tasks"]["digits"]["together"] = found
    metrics["tasks"]["sentiment"]["together"] = None  # it could not be joined
    metrics["tasks"]["wine"]["together"] = found | {"value": 0.51, "way": "ordinary"}
    (run / "metrics.json").write_text(json.dumps(metrics))
    text = write_report(run).read_text(encoding="utf-8")
    assert "<th>Together</th>" in text and Page(text).open == []
    cells = re.findall(r'<td data-label="Together">(.*?)</td>', text, re.S)
    assert len(cells) == len(metrics["tasks"])
    assert re.sub(r"\s+", " ", cells[0]) == "0.987 <small>model^0.5 · baseline^1.2</small> "
    assert cells[1].strip() == "–" and "the baseline alone" in cells[3]
    assert text.count('class="tick together"') == 2
