"""Every form that people's data has, and every task that it can feed: trained for three steps, evaluated, reported."""

import json
import math
from pathlib import Path

import pytest
from people_data import CASES, caption
from regions import region

from generalist.recipe.recipe import CheckpointSpec, EngineSpec, Recipe
from generalist.recipe.specs import ModelSpec, OptimizerSpec
from generalist.run.train import train_run
from generalist.tasks.base.task import Task
from generalist.tasks.baselines.ordinary import baseline
from generalist.tokenizers_mod.base.modalities import build_modalities
from generalist.tokenizers_mod.text.bpe import train_bpe

SMALL = {
    "image": {"size": 8, "patch": 4},
    "audio": {"rate": 8000, "mels": 8, "patch": [8, 4], "stride": [8, 4]},
    "points": {"groups": 4, "size": 4, "hidden": 4},
    "video": {"size": 8, "patch": 4, "frames": 2},
    "imu": {"channels": 3, "patch": 4},
    "series": {"patch": 4},
    "slot": {"patch": 4},
    "graph": {},
    "table": {},
    "number": {},
}
WORDS = train_bpe([caption(i % 2, i) for i in range(10)], 290).to_str()
# none has an ordinary method to compare with: writing and detecting
WITHOUT_BASELINE = {"describe", "detect"}


def recipe_of(task: Task) -> Recipe:
    """Three steps of the task, sixteen wide."""
    wanted = {*task.inputs, *getattr(task, "partners", {}), "number", "slot"} & set(SMALL)
    text = {"tokenizer": WORDS, "max_length": 24, "positions": 24}
    modalities = build_modalities({"summary": {}, "text": text, **{name: SMALL[name] for name in sorted(wanted)}})
    if "region" in task.inputs:
        modalities["region"] = region()
    return Recipe(
        name="three",
        about="three steps",
        steps=3,
        modalities=modalities,
        tasks=[task],
        model=ModelSpec(width=16, layers=1, heads=2, hidden=24),
        optimizer=OptimizerSpec(warmup=1),
        engine=EngineSpec(device="cpu", threads=1),
        checkpoint=CheckpointSpec(every=0),
    )


@pytest.mark.parametrize("case", CASES)
def test_a_form_of_data_is_trained_evaluated_and_reported(case, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("GENERALIST_CACHE", str(tmp_path / "cache"))
    task = CASES[case](tmp_path)
    metrics = train_run(recipe_of(task), tmp_path / "run", quiet=True)
    line = metrics["tasks"]["t"]
    assert "error" not in line, line
    assert math.isfinite(line["value"]) and line["n_test"] == len(task.source.open("test"))
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["tasks"]["t"]["value"] == line["value"]
    assert "<html" in (tmp_path / "run" / "report.html").read_text()
    if task.kind in WITHOUT_BASELINE:
        assert line["baseline"] is None and line["baseline_name"] == "none"
    else:
        assert math.isfinite(line["baseline"]) and math.isfinite(line["chance"]), line["notes"]


TOLD_APART = ("folder of pictures", "folder of sounds", "jsonl of paths", "hugging face: classify", "shards of")


@pytest.mark.parametrize("case", [c for c in CASES if c.startswith(TOLD_APART) and c.endswith("classify")])
def test_the_ordinary_method_sees_what_lies_behind_paths_and_bytes(case, tmp_path: Path, monkeypatch):
    """Squares and stripes, low and high tones: easy for a linear method that reads the values, not their names."""
    monkeypatch.setenv("GENERALIST_CACHE", str(tmp_path / "cache"))
    from generalist.train.prepare import prepare

    task = CASES[case](tmp_path)
    prepared = prepare(recipe_of(task))
    found = baseline(task, prepared.records["t"], None, task.source.open("test"))
    assert found["value"] == 1.0 and found["chance"] == 0.5
