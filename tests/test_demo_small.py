"""The demo from end to end, shrunk: one training of few steps, and everything a user does with what it leaves."""

import json
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from generalist.cli import main
from generalist.data.sources.embedded import Embedded
from generalist.evaluate.predictions import derived
from generalist.recipe.load import load_recipe

ROOT = Path(__file__).resolve().parent.parent
TASKS = {"digits", "glyphs", "masked_words", "wine", "breast_cancer", "diabetes", "series", "tones", "solids"}
# few steps of small batches of a small model, on sets cut down where an option allows it
SMALL = [
    "steps=4",
    "checkpoint.every=0",
    "engine.threads=1",
    "engine.device=cpu",
    "model.width=16",
    "model.layers=1",
    "model.heads=2",
    "model.hidden=24",
    "modalities.text.learn=300",
    *(f"tasks.{name}.batch=4" for name in sorted(TASKS)),
    *(f'tasks.{name}.source.options={{"train": 40, "val": 10, "test": 12}}' for name in ("tones", "solids")),
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """The run's folder of the shrunk demo."""
    out = tmp_path_factory.mktemp("demo") / "run"
    assert main(["train", "demo", *SMALL, "--out", str(out), "--quiet", "--json"]) == 0
    return out


def test_the_run_leaves_everything_that_is_promised(demo):
    assert {"model", "metrics.json", "recipe.json", "report.html", "tensorboard", "log.jsonl"} <= {
        p.name for p in demo.iterdir()
    }
    assert list((demo / "tensorboard").glob("events.*"))
    model = {p.name for p in (demo / "model").iterdir()}
    assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json"} <= model
    page = (demo / "report.html").read_text()
    assert all(name in page for name in TASKS)
    assert "http://" not in page.replace("http://www.w3.org", "") and "<script src" not in page  # self-contained
    assert load_recipe(str(demo / "recipe.json")).steps == 4


def test_metrics_have_the_promised_keys_for_every_task(demo):
    tasks = json.loads((demo / "metrics.json").read_text())["tasks"]
    assert set(tasks) == TASKS
    for name, line in tasks.items():
        assert {"metric", "value", "chance", "baseline", "higher_is_better", "n_test"} <= set(line)
        assert np.isfinite([line["value"], line["chance"], line["baseline"]]).all(), name
        assert line["synthetic"] == (name in ("tones", "solids"))
    assert tasks["digits"]["baseline"] > 0.9 > tasks["digits"]["chance"]  # the ordinary method is run, not written down


def test_every_number_follows_from_the_saved_answers(demo):
    for name, line in json.loads((demo / "metrics.json").read_text())["tasks"].items():
        found = derived(demo / "answers" / line["answers"])
        assert found == pytest.approx(line["extra"], rel=1e-4, nan_ok=True), name  # written in float32 where torch is
        assert found[line["metric"]] == pytest.approx(line["value"], rel=1e-4)
        assert line["low"] <= line["value"] <= line["high"]


def test_a_run_is_compared_with_its_own_training_data(demo, tmp_path, capsys):
    copy = shutil.copytree(demo, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    assert main(["eval", str(copy), "--leakage", "--quiet"]) == 0
    said = capsys.readouterr().out
    tasks = json.loads((copy / "metrics.json").read_text())["tasks"]
    for name, line in tasks.items():
        found = line["leakage"]
        assert f"{name}: leakage: {found['count']} of {found['compared']['evaluation']} samples" in said
        assert found["exact"] + found["alike"] == found["count"] and found["compared"]["evaluation"] == line["n_test"]
    assert not any(tasks[name]["leakage"]["exact"] for name in ("digits", "wine", "tones"))
    assert main(["eval", str(copy), "--leakage", "embedded:digits"]) == 2
    assert "own training data" in capsys.readouterr().err


def test_the_readme_s_example_runs_on_the_folder(demo):
    """The Python example, run from another folder, so that nothing is found by chance."""
    example = ROOT / "tests/examples/quickstart.py"
    command = [sys.executable, str(example), str(demo / "model")]
    done = subprocess.run(command, cwd=demo, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "'one'" in done.stdout and "torch.Size([2, 16])" in done.stdout and "expected value" in done.stdout


def test_no_test_record_is_ever_trained_on(demo):
    for task in load_recipe(str(demo / "recipe.json")).tasks:
        ids = {}
        for split in ("train", "val", "test"):
            records = task.source.open(split)
            ids[split] = {records[i]["id"] for i in range(len(records))}
        assert not ids["test"] & (ids["train"] | ids["val"]), task.name
        assert json.loads((demo / "metrics.json").read_text())["tasks"][task.name]["n_test"] == len(ids["test"])


def test_evaluating_again_gives_the_same_metrics(demo, capsys):
    before = json.loads((demo / "metrics.json").read_text())
    assert main(["eval", str(demo), "--json", "--quiet"]) == 0
    printed = json.loads(capsys.readouterr().out)
    after = json.loads((demo / "metrics.json").read_text())
    assert printed == after
    assert after["tasks"] == before["tasks"]
    assert after["seconds"]["train"] == before["seconds"]["train"] > 0


# As a user writes it who installed the package: nothing but `import generalist` and transformers' own classes.
FRESH = """
import sys
import numpy as np, torch
import generalist
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained(sys.argv[1]).eval()
processor = AutoProcessor.from_pretrained(sys.argv[1])
t = np.arange(4000) / 8000
row = {"age": 40.0, "sex": 1.0, "bmi": 25.0, "bp": 90.0, "s1": 180.0, "s2": 110.0, "s3": 50.0, "s4": 4.0, "s5": 4.6}
row["s6"] = 90.0
inputs = [
    {"image": np.eye(24, dtype=np.uint8) * 255},
    {"text": "a line from corner to corner"},
    {"audio": {"array": np.sin(2 * np.pi * 440 * t).astype(np.float32), "sampling_rate": 8000}},
    {"table": row},
    {"series": np.arange(48.0)},
    {"points": np.random.default_rng(0).normal(size=(256, 3)).astype(np.float32)},
    {"image": np.eye(24), "text": "two inputs in one sequence"},
]
for given in inputs:
    vector = model.encode(processor(**given))
    assert vector.shape == (1, 16), (given.keys(), vector.shape)
    torch.testing.assert_close(vector.norm(dim=-1), torch.ones(1))

batch = processor(image=[np.eye(24), np.ones((30, 20))])
candidates = processor.candidates(["zero", "one", "two"])
p = model.rank(batch, candidates)
log_p = model.log_likelihood(batch, candidates)
assert p.shape == log_p.shape == (2, 3)
torch.testing.assert_close(p.sum(-1), torch.ones(2))
torch.testing.assert_close(log_p.exp(), p)
# one by one gives the same as together
torch.testing.assert_close(model.log_likelihood(batch[1:], candidates)[0], log_p[1], atol=1e-5, rtol=1e-4)
print("ok")
"""


def test_a_fresh_process_loads_the_folder_with_the_auto_classes_and_encodes_every_modality(demo):
    command = [sys.executable, "-c", FRESH, str(demo / "model")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def files(folder: Path) -> dict[str, str]:
    """One file of every modality, as a user has it; text is a word of the command line."""
    from PIL import Image

    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (30, 20, 3), dtype=np.uint8)).save(folder / "picture.png")
    with wave.open(str(folder / "sound.wav"), "wb") as sound:
        sound.setnchannels(2), sound.setsampwidth(2), sound.setframerate(16000)
        sound.writeframes((rng.normal(size=(8000, 2)) * 3000).astype("<i2").tobytes())
    row = Embedded("wine").open("test")[0]["row"]
    (folder / "row.csv").write_text(",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n")
    (folder / "series.csv").write_text("month,sales\n" + "".join(f"2020-{m:02d}-01,{m * 3}\n" for m in range(1, 13)))
    np.save(folder / "cloud.npy", rng.normal(size=(200, 3)))
    names = {"image": "picture.png", "audio": "sound.wav", "table": "row.csv"}
    names |= {"series": "series.csv", "points": "cloud.npy"}
    return {modality: str(folder / name) for modality, name in names.items()} | {"text": "a short text"}


@pytest.mark.parametrize("modality", ["image", "text", "audio", "table", "series", "points"])
def test_predict_ranks_candidates_for_a_file_of_every_modality(demo, tmp_path, capsys, modality):
    words = ["predict", str(demo), f"--{modality}", files(tmp_path)[modality]]
    assert main([*words, "--candidates", "first cultivar", "a cube", "zero", "--json"]) == 0
    answers = dict(json.loads(capsys.readouterr().out)["answers"])
    assert set(answers) == {"first cultivar", "a cube", "zero"}
    assert sum(answers.values()) == pytest.approx(1, abs=1e-4)


def test_predict_answers_as_the_task_that_it_was_trained_on(demo, tmp_path, capsys):
    found = files(tmp_path)
    assert main(["predict", str(demo), "--image", found["image"], "--task", "digits", "--json"]) == 0
    assert set(dict(json.loads(capsys.readouterr().out)["answers"])) == set(
        Embedded("digits").open("train").info["classes"]
    )
    assert main(["predict", str(demo), "--series", found["series"], "--json"]) == 0
    forecast = json.loads(capsys.readouterr().out)
    low, middle, high = (forecast["quantiles"][q] for q in ("0.1", "0.5", "0.9"))
    assert len(middle) == 24
    assert all(a <= b <= c for a, b, c in zip(low, middle, high, strict=True))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    keys = [key for key in SMALL if not key.startswith("steps")] + ["steps=3"]
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        from generalist.recipe.keys import override
        from generalist.run.train import train_run

        recipe = load_recipe("demo")
        override(recipe, *keys, f"seed={seed}")
        recipe.tasks = [t for t in recipe.tasks if t.name in ("wine", "tones")]  # quick to evaluate
        train_run(recipe, tmp_path / name, quiet=True)
        weights.append((tmp_path / name / "model/model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


@pytest.mark.parametrize(
    "keys", [["sampling=mixed"], ["optimizer.kind=adamw"], ["sampling=mixed", "optimizer.kind=adamw"]]
)
def test_mixed_sampling_and_plain_adamw_are_a_key_each(tmp_path, keys):
    from generalist.model.objective import Objective
    from generalist.recipe.keys import override
    from generalist.run.train import train_run
    from generalist.train.optimizer import BalancedAdamW, build_optimizer
    from generalist.train.prepare import prepare

    recipe = load_recipe("demo")
    override(recipe, *SMALL, *keys)
    recipe.tasks = [t for t in recipe.tasks if t.name in ("wine", "tones")]
    metrics = train_run(recipe, tmp_path, quiet=True)
    assert set(metrics["tasks"]) == {"wine", "tones"}
    prepared = prepare(recipe)
    optimizer = build_optimizer(recipe, Objective(prepared.model(recipe), prepared.sets, prepared.modalities))
    assert isinstance(optimizer, BalancedAdamW) == ("optimizer.kind=adamw" not in keys)
