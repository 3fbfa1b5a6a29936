"""What an earlier version wrote still loads, and its import paths still lead somewhere: tests/old/ is a run of its."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from generalist.cli import main
from generalist.data.base.moved import MOVED, moved
from generalist.recipe.load import load_recipe

ROOT = Path(__file__).resolve().parent.parent
OLD = ROOT / "tests" / "old"
# f of a picture and of a word, as the version that wrote the folder gave them
PICTURE = [0.016754, -0.300259, 0.279914, 0.329047, -0.336659, 0.253061, -0.192289, -0.713152]
WORD = [0.277116, -0.584817, 0.361509, 0.107394, -0.312227, 0.30886, 0.107867, -0.484209]


def python(code: str, *words: str, cwd: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-c", code, *words]
    run = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


def test_an_old_recipe_names_its_classes_by_their_old_paths_and_loads():
    text = (OLD / "recipe.json").read_text()
    assert '"tokenizers_mod.video:Picture"' in text and '"generalist.routing:MoeSpec"' in text
    recipe = load_recipe(str(OLD / "recipe.json"))
    assert [task.name for task in recipe.tasks] == ["digits", "wine"]
    assert recipe.model.moe.placement == "all" and recipe.modalities["image"].size == 8


def test_an_old_run_goes_on_from_its_checkpoint_to_the_same_losses(tmp_path):
    run = shutil.copytree(OLD, tmp_path / "run")
    # every checkpoint held a model folder; one is kept here for both
    shutil.copytree(OLD / "model", run / "checkpoints" / "step-00000002" / "model")
    before = [json.loads(line) for line in (OLD / "log.jsonl").read_text().splitlines()]
    assert main(["train", str(OLD / "recipe.json"), "--resume", "--trust", "--out", str(run), "--quiet"]) == 0
    after = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in after] == [0, 1, 2, 3]
    assert [line["loss"] for line in after] == pytest.approx([line["loss"] for line in before], rel=1e-3)


LOAD = """
import json, sys
import numpy as np
{first}
from transformers import AutoModel, AutoProcessor
options = json.loads(sys.argv[2])
model = AutoModel.from_pretrained(sys.argv[1], **options).eval()
processor = AutoProcessor.from_pretrained(sys.argv[1], **options)
picture = (np.arange(64).reshape(8, 8) * 3).astype(np.uint8)
vectors = [model.encode(processor(**given))[0].tolist() for given in ({{"image": picture}}, {{"text": "wine"}})]
print(json.dumps([type(model).__module__, *vectors]))
"""


@pytest.mark.parametrize("remote", [False, True])
def test_an_old_model_folder_gives_the_same_vectors(tmp_path, remote):
    """With `import generalist`, and by the old file that trust_remote_code runs."""
    code = LOAD.format(first="" if remote else "import generalist")
    (tmp_path / "cache").mkdir()
    os.environ["HF_MODULES_CACHE"] = str(tmp_path / "cache")
    try:
        said = python(code, str(OLD / "model"), json.dumps({"trust_remote_code": True} if remote else {}), cwd=tmp_path)
    finally:
        del os.environ["HF_MODULES_CACHE"]
    module, picture, word = json.loads(said)
    assert module == "generalist.hf.model"
    assert picture == pytest.approx(PICTURE, abs=1e-4) and word == pytest.approx(WORD, abs=1e-4)


def test_every_old_path_leads_to_something(tmp_path):
    code = """
import sys
from importlib import import_module
import generalist
from generalist.data.base.moved import MOVED
for old in MOVED:
    module, _, name = old.partition(":")
    if module.endswith(("launchers.agent", "deepspeed")) or module == "generalist.clients.lm_eval":
        continue
    found = import_module(module)
    if name:
        getattr(found, name)
from generalist.recipe import ModelSpec, Recipe, load_recipe, override
from generalist.moe import Experts, placed
from tasks.classify import Classify
from tokenizers_mod.text import Text
from generalist.tasks.base import Task
from generalist.tasks.candidates import Names, candidate_set
import generalist.tokenizers_mod.text.text as text, generalist.tasks.kinds.classify as classify
assert Text is text.Text and Classify is classify.Classify and issubclass(Classify, Task) and callable(candidate_set)
assert Names is sys.modules["generalist.tasks.candidates.names"].Names
import generalist.sklearn, generalist.clients.sklearn
assert generalist.sklearn is generalist.clients.sklearn
assert generalist.clients.sklearn.__spec__.name == "generalist.clients.sklearn"
print("ok")
"""
    assert python(code, cwd=tmp_path).splitlines()[-1] == "ok"
    assert moved("generalist.recipe:ModelSpec") == "generalist.recipe.specs:ModelSpec"
    assert moved("generalist.tasks.segment:Segment") == "generalist.tasks.kinds.regions.segment:Segment"
    assert moved("data.embedded:Embedded") == "generalist.data.sources.embedded:Embedded"
    assert moved("tasks.classify:Classify") == "generalist.tasks.kinds.classify:Classify"
    assert moved("my.own:Thing") == "my.own:Thing"
    assert all(moved(new) == new for new in MOVED.values())


@pytest.mark.parametrize(
    ("door", "says"), [("generalist.agent", "nproc-per-node"), ("generalist.deepspeed_launcher", "starts a training")]
)
def test_an_old_program_runs_by_its_old_name(tmp_path, door, says):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-m", door, "--help"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert says in run.stdout + run.stderr, run.stderr[-2000:]


def test_a_package_of_the_user_s_own_is_never_hidden(tmp_path):
    (tmp_path / "tasks.py").write_text("mine = 1\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "__init__.py").write_text("mine = 2\n")
    code = """
import sys
sys.path.insert(0, ".")
import generalist.tasks.classify, generalist.data.batch.types
import data, tasks
assert (tasks.mine, data.mine) == (1, 2)
try:
    import data.errors
except ModuleNotFoundError:
    print("ok")
"""
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100
    )
    assert run.stdout == "ok\n", run.stderr
