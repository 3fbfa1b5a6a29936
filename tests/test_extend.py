"""A newcomer adds a modality, a task and a source as two files in a folder of their own, and all commands take them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Several commands in one process, which saves the imports; each one's output and exit code as JSON.
COMMANDS = """
import contextlib, io, json, sys
from generalist.cli import main
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


def run(folder: Path, *commands: list[str], path: str = "") -> list[list]:
    """[exit code, stdout, stderr] of each command given in this folder; path: what is added to PYTHONPATH."""
    # -P: the working folder is not on the path, as with the installed command
    words = [sys.executable, "-P", "-c", COMMANDS, json.dumps(commands)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{path}"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with the example files and the run that their recipe gave."""
    folder = tmp_path_factory.mktemp("newcomer")
    for path in (ROOT / "tests/examples").glob("melody*.py"):
        shutil.copy(path, folder)
    [[code, _, err]] = run(folder, ["train", "melody_recipe.py", "--out", "run", "--quiet"])
    assert code == 0, err
    return folder


def test_the_recipe_trains_evaluates_and_reports(trained):
    metrics = json.loads((trained / "run/metrics.json").read_text())["tasks"]["words"]
    assert (metrics["metric"], metrics["n_test"], metrics["synthetic"]) == ("precision@1", 300, True)
    assert metrics["value"] > 0.9  # by chance half of it: two of four tags are right
    page = (trained / "run/report.html").read_text()
    assert "rising, high" in page or "falling, low" in page


def test_the_model_folder_names_the_class_by_its_import_path(trained):
    config = json.loads((trained / "run/model/config.json").read_text())
    assert config["modalities"]["melody"] == {"class": "melody:Melody", "longest": 32}


def test_another_process_evaluates_the_run_and_describes_a_melody_in_a_file(trained):
    before = json.loads((trained / "run/metrics.json").read_text())["tasks"]
    (trained / "up.txt").write_text("48 50 52 53 55 57 59 60")
    (trained / "wrong.txt").write_text("48 500")
    predict = ["predict", "run", "--trust", "--candidates", "rising", "falling", "--json", "--input"]
    evaluated, described, refused = run(
        trained,
        ["eval", "run", "--json", "--trust"],
        [*predict, "melody=up.txt"],
        [*predict, "melody=wrong.txt"],
        path=".",
    )
    assert evaluated[0] == 0, evaluated
    assert json.loads(evaluated[1])["tasks"] == before
    assert described[0] == 0, described
    answers = dict(json.loads(described[1])["answers"])
    assert answers["rising"] > 0.5 > answers["falling"]
    assert sum(answers.values()) == pytest.approx(1, abs=1e-4)
    assert refused == [2, "", "generalist: melody: notes are whole numbers from 0 to 127\n"]
