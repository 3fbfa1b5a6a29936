"""The report: one self-contained page that says what the files say, whatever is missing in them."""

import base64
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from generalist.data.base.errors import UserError
from generalist.report.figures import fmt, png, scale_bar, smoothed, thinned, ticks
from generalist.report.projection import neighbour_agreement, pca, project, subsample
from generalist.report.report import write_report
from generalist.report.sections.inputs import show
from generalist.report.sections.results import read_results, verdict_sentences
from generalist.train.events import EventLog

EVIL = "<script>alert('x')</script>&\""
TASKS = {
    "digits": {"metric": "accuracy", "value": 0.962, "chance": 0.1, "baseline": 0.951, "baseline_name": "logistic "
               "regression", "n_test": 360, "low": 0.938, "high": 0.98, "extra": {"nll": 0.14, "accuracy": 0.962}},
    "sentiment": {"metric": "accuracy", "value": 0.741, "chance": 0.5, "baseline": 0.79, "n_test": 800,
                  "low": 0.71, "high": 0.771, "baseline_name": "tf-idf + logistic regression"},
    "spoken digits": {"metric": "accuracy", "value": 0.873, "chance": 0.1, "baseline": 0.81, "n_test": 300},
    "wine": {"metric": "mean absolute error", "value": 0.48, "chance": 0.67, "baseline": 0.51, "n_test": 480,
             "higher_is_better": False, "baseline_name": "gradient boosting"},
    "sunspots": {"metric": "pinball loss", "value": 21.4, "chance": 38.0, "baseline": 17.9, "n_test": 120,
                 "higher_is_better": False, "baseline_name": "seasonal naive"},
    "shapes": {"metric": "accuracy", "value": 0.99, "chance": 0.125, "baseline": 0.95, "n_test": 400,
               "synthetic": True},
    "captions": {"metric": "recall@1", "value": 0.12, "chance": 0.01, "baseline": None, "n_test": 100},
    f"noise {EVIL}": {"metric": "accuracy", "value": 0.26, "chance": 0.25, "baseline": 0.4, "n_test": 100,
                      "low": 0.18, "high": 0.35, "about": "labels drawn at random"},
}  # fmt: skip


def inputs(rng: np.random.Generator) -> dict[str, dict]:
    """One input of each kind, by task."""
    y, x = np.mgrid[:16, :16] / 15
    turn = rng.uniform(0, 2 * np.pi, 300)
    t = np.arange(60)
    wave = np.sin(np.arange(4000) * 0.21) * np.exp(-np.arange(4000) / 1200) * (1 + 0.2 * rng.normal(size=4000))
    season = 40 + 30 * np.sin(t / 7) + rng.normal(0, 3, 60)
    median = season[48:] + rng.normal(0, 4, 12)
    return {
        "digits": {"kind": "image", "pixels": np.clip(1.4 - 6 * abs(np.hypot(x - 0.5, y - 0.5) - 0.3), 0, 1).tolist()},
        "sentiment": {"kind": "text", "text": f"A film that {EVIL} takes its time, and yours; " + "slowly " * 30},
        "spoken digits": {"kind": "audio", "wave": wave.tolist(), "rate": 8000},
        "wine": {"kind": "table", "row": {"alcohol": 12.81, "colour": "red", EVIL: EVIL, "sulphates": 0.56, "pH": 3.3}},
        "sunspots": {"kind": "series", "past": season[:48].tolist(), "future": season[48:].tolist(),
                     "low": (median - 12).tolist(), "median": median.tolist(), "high": (median + 12).tolist()},
        "shapes": {"kind": "points", "xyz": np.stack([np.cos(turn), np.sin(turn), turn / 3], 1).tolist()},
        "captions": {"kind": "image", "pixels": np.stack([x, y, 1 - x], 2).tolist()},
        f"noise {EVIL}": {"kind": "smell", "note": EVIL},
    }  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A made-up run of eight tasks with every file."""
    return make_run(tmp_path / "demo")


def make_run(folder: Path, steps: int = 800, points: int = 40) -> Path:
    rng = np.random.default_rng(0)
    names = list(TASKS)
    with EventLog(folder, tensorboard=False) as log:
        for step in range(steps):
            k = int(rng.integers(len(names)))
            loss = 0.2 + 0.1 * k + 2.2 * np.exp(-step / (60 + 40 * k)) * rng.lognormal(0, 0.15)
            lr = 1e-3 * min(1, (step + 1) / 50) * (1 - step / steps)
            log.write(step, names[k], loss=loss, samples_per_second=900 + 50 * k, lr=lr, seconds=0.25)
    rows = {k: {"higher_is_better": True, **v} for k, v in TASKS.items()}
    (folder / "metrics.json").write_text(json.dumps({"tasks": rows, "step": steps, "parameters": 11_400_000}))
    recipe = {"class": "a.B", "name": "demo", "seed": 0, "steps": steps, "optimizer": {"lr": 1e-3}, "tasks": [{"n": 1}]}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    features, task, label = [], [], []
    for k, name in enumerate(names):
        kinds = points if name == "captions" else 4 + k
        which = np.arange(points) % kinds
        centre = rng.normal(size=32) + 0.6 * rng.normal(size=(kinds, 32))[which]
        features.append(centre + 0.25 * rng.normal(size=(points, 32)))
        task += [name] * points
        label += [f"class {w}" for w in which]
    features = np.concatenate(features)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    np.savez(folder / "space.npz", features=features.astype(np.float32), task=np.array(task), label=np.array(label))
    samples = {}
    for name in names:
        samples[name] = []
        for i in range(8 if name == "digits" else 3):
            p = np.sort(rng.dirichlet(np.full(5, 0.4)))[::-1]
            answers = [[f"answer {j}", float(v)] for j, v in enumerate(p)]
            right = None if name in ("sunspots", "wine") else bool(i != 1)
            truth = "answer 0" if i != 1 else f"answer 1 {EVIL}"
            given = inputs(rng)[name]
            samples[name].append({"id": f"{name}-{i}", "input": given, "truth": truth, "answers": answers,
                                  "correct": right})  # fmt: skip
    (folder / "predictions.json").write_text(json.dumps({"tasks": samples}))
    return folder


class Page(HTMLParser):
    """Checks that every tag is closed and gathers the attributes that could load something."""

    VOID = frozenset({"meta", "img", "br", "circle", "path"})

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href", "data", "action")]
        assert not any(k.startswith("on") for k, _ in attrs), (tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open and self.open.pop() == tag, tag

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_whole_self_contained_and_shows_every_task(run):
    out = write_report(run)
    assert out == run / "report.html" and not (run / "report.html.new").exists()
    text = out.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert page.links and all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "http" not in text and "@import" not in text and "url(" not in text
    words = "".join(page.text)
    for name, row in TASKS.items():
        assert words.count(name) >= 4, name  # table, curve, map, predictions
        assert fmt(float(row["value"])) in words
    for title in ("Results", "Training", "Representation space", "Predictions", "Recipe"):
        assert f"<h2>{title}</h2>" in text
    assert page.tags.count("img") == 6 + 3  # digits: 6 of 8, captions: 3
    assert "first 6 of 8" in words
    assert 'name="viewport"' in text and "prefers-color-scheme:dark" in text
    assert str(run.parent) not in text
    assert "<dt>time in steps</dt><dd>3 min</dd>" in text  # 800 steps of 0.25 s


def test_what_comes_from_data_is_escaped(run):
    text = write_report(run).read_text(encoding="utf-8")
    assert "<script" not in text and "alert(&#39;x&#39;)" in text


def test_the_honest_sentences(run):
    text = write_report(run).read_text(encoding="utf-8")
    block = re.search(r'<div class="verdict">(.*?)</div>', text, re.S)
    said = "".join(Page(block[1]).text)
    assert "4 of 7 tasks reach their baseline: digits, spoken digits, wine and shapes." in said
    assert f"3 do not: sentiment, sunspots and noise {EVIL}." in said
    assert "Without a baseline to compare with: captions." in said
    assert "Too close to call, as the baseline lies inside the interval: digits." in said
    assert f"Not clearly better than chance: noise {EVIL}." in said
    assert "Measured on synthetic data, so no statement about real data: shapes." in said
    assert text.count('<span class="tag">synthetic data</span>') == 1


@pytest.mark.parametrize(
    ("value", "baseline", "higher", "said"),
    [
        (0.5, 0.5, True, "The only task reaches its baseline"),
        (0.4, 0.5, True, "None of 1 task reach their baseline"),
        (0.4, 0.5, False, "The only task reaches its baseline"),
        (0.6, 0.5, False, "None of 1 task reach their baseline"),
        (float("nan"), 0.5, True, "None of 1 task reach their baseline"),
        (None, 0.5, False, "None of 1 task reach their baseline"),
        (0.5, None, True, "No task has a baseline"),
    ],
)
def test_one_task_is_judged_by_its_direction(value, baseline, higher, said):
    row = {"metric": "m", "value": value, "chance": None, "baseline": baseline, "higher_is_better": higher}
    sentences = verdict_sentences(read_results({"tasks": {"t": row}}, Path("metrics.json")))
    assert said in " ".join(sentences)


@pytest.mark.parametrize("missing", ["log.jsonl", "metrics.json", "space.npz", "predictions.json", "recipe.json"])
def test_a_missing_file_is_named_with_the_command_that_makes_it(run, missing):
    (run / missing).unlink()
    text = write_report(run).read_text(encoding="utf-8")
    command = "generalist train" if missing in ("log.jsonl", "recipe.json") else "generalist eval"
    assert re.search(rf"<code>{re.escape(missing)}</code> is not in this run: <code>{command} ", text)
    assert text.count('class="card missing"') == 1 and Page(text).open == []


def test_the_recipe_of_the_newest_checkpoint_stands_in(run):
    (run / "checkpoints" / "step-00000009").mkdir(parents=True)
    (run / "recipe.json").rename(run / "checkpoints" / "step-00000009" / "recipe.json")
    text = write_report(run).read_text(encoding="utf-8")
    assert "<h1>demo</h1>" in text and "optimizer.lr" in text and 'card missing"' not in text


def test_mistakes_end_in_one_line(run, tmp_path):
    with pytest.raises(UserError, match="not a folder"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is not a run"):
        write_report(tmp_path / "empty")
    good = (run / "metrics.json").read_text()
    for bad, said in (("{", "not JSON"), ("[]", "JSON object"), ("{}", "no object 'tasks'"),
                      ('{"tasks": {"a": {"metric": "m"}}}', "task 'a' has no 'value'")):  # fmt: skip
        (run / "metrics.json").write_text(bad)
        with pytest.raises(UserError, match=said) as caught:
            write_report(run)
        assert "\n" not in str(caught.value)
    (run / "metrics.json").write_text(good)
    (run / "space.npz").write_bytes(b"PK torn")
    with pytest.raises(UserError, match=r"space\.npz cannot be read"):
        write_report(run)


def test_losses_that_are_not_finite_are_counted_not_drawn(run):
    with EventLog(run, tensorboard=False) as log:
        log.write(900, "digits", loss=float("nan"), lr=float("inf"))
    text = write_report(run).read_text(encoding="utf-8")
    assert re.search(r"1 of \d+ losses are not finite", text)
    assert not re.search(r'd="[^"]*(nan|inf)', text)


@pytest.mark.parametrize(
    "given",
    [
        {"kind": "image", "pixels": [[0, 1], [0]]},
        {"kind": "image"},
        {"kind": "series", "past": []},
        {"kind": "points", "xyz": [1, 2, 3]},
        {"kind": "audio", "wave": ["a"], "rate": 1},
        {"kind": "table", "row": [1]},
        {"kind": ["x"]},
        "only words",
        None,
    ],
)
def test_an_input_that_cannot_be_drawn_is_shown_as_text(given):
    assert show(given).startswith('<pre class="in">')


@pytest.mark.parametrize("given", inputs(np.random.default_rng(1)).values(), ids=lambda given: given["kind"])
def test_every_kind_of_input_is_drawn_as_whole_html(given):
    html = show(given)
    assert Page(html).open == [] and "nan" not in html
    assert html.startswith('<pre class="in">') == (given["kind"] == "smell")


def test_a_png_holds_the_pixels():
    data = base64.b64decode(png([[0, 1, 0.5], [1, 2, float("nan")]]).split(",")[1])
    assert data[16:24] == (3).to_bytes(4, "big") + (2).to_bytes(4, "big")
    at = data.index(b"IDAT")
    body = zlib.decompress(data[at + 4 : at + 4 + int.from_bytes(data[at - 4 : at], "big")])
    assert body == bytes([0, 0, 255, 128, 0, 255, 255, 0])


def test_better_is_to_the_right_whatever_the_metric():
    def at(html: str, name: str) -> float:
        return float(re.search(rf'class="{name}[^"]*" style="left:([\d.]+)%', html)[1])

    for html in (
        scale_bar(0.7, 0.1, 0.9, None, None, True, "near"),
        scale_bar(0.3, 0.9, 0.1, None, None, False, "near"),
    ):
        assert at(html, "tick chance") < at(html, "dot") < at(html, "tick baseline")
    assert "dot" not in scale_bar(None, 0.1, 0.9, None, None, True, "bad")


def test_numbers_and_curves():
    assert [fmt(v) for v in (0.8123, -12.345, 1234, 12345.6, 11_400_000, 4.2e-5, None, float("nan"), 0.0, "a")] == [
        "0.812", "−12.35", "1234", "12,346", "11.4 M", "4.2e−05", "–", "not a number", "0.000", "a"]  # fmt: skip
    assert ticks(0.03, 1.02) == [0.5, 1.0] or len(ticks(0.03, 1.02)) in (3, 4, 5)
    assert np.allclose(smoothed(np.full(7, 3.0)), 3.0) and np.allclose(smoothed(np.arange(200.0)), np.arange(200))
    y = np.zeros(5000)
    y[1234] = 9
    x, z = thinned(np.arange(5000), y)
    assert len(z) <= 300 and z.max() == 9 and (np.diff(x) > 0).all()


def test_maps_are_the_same_every_time_and_keep_neighbours():
    rng = np.random.default_rng(0)
    names = np.repeat(np.arange(3), 40)
    features = 5 * np.eye(3, 11)[names] + 0.1 * rng.normal(size=(120, 11))
    (first, method), (second, _) = project(features), project(features)
    assert method == "t-SNE" and np.array_equal(first, second)
    assert neighbour_agreement(first, names)[0] == neighbour_agreement(features, names)[0] == 1.0
    assert abs(neighbour_agreement(features, names)[1] - 39 / 119) < 1e-12
    assert project(features[:20])[1] == "PCA" and project(np.ones((60, 5)))[0].shape == (60, 2)
    assert pca(features[:1]).shape == (1, 2)
    rows = subsample(np.array(["a"] * 900 + ["b"] * 100), most=200)
    assert len(rows) == 200 and abs((rows >= 900).sum() - 20) <= 1


def test_mistakes_stand_first_the_surest_on_top_and_answers_left_out_are_counted(tmp_path):
    from generalist.report.sections.samples import predictions_section

    def item(name: str, correct: bool | None, p: float) -> dict:
        rest = [[f"other {i}", (1 - p) / 6] for i in range(6)]
        return {"id": name, "truth": "a", "answers": [["a" if correct else "b", p], *rest], "correct": correct}

    items = [item("right", True, 0.9), item("unsure", False, 0.3), item("open", None, 0.5), item("sure", False, 0.8)]
    told = predictions_section({"tasks": {"digits": items}}, tmp_path / "predictions.json")
    order = re.findall(r"<header><span>(\w+)</span>", told)
    assert order == ["sure", "unsure", "right", "open"]
    assert told.count("and 2 more") == 4 and "inspect RUN --what errors" in told
