"""The wheel: one import name, and it works where the user has a data/, a tasks.py and a scripts/ of his own."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from generalist.data.sources.embedded import Embedded

ROOT = Path(__file__).resolve().parent.parent

RECIPE = """
from generalist.data.sources.embedded import Embedded
from generalist.recipe.recipe import Recipe
from generalist.recipe.specs import CheckpointSpec, EngineSpec, ModelSpec
from generalist.tasks.kinds.classify import Classify
from generalist.tokenizers_mod.tables.table import Table
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text


def recipe():
    return Recipe(
        name="mine", about="a row of wine", steps=2,
        modalities={"summary": Summary(), "text": Text(tokenizer="", learn=260, max_length=8, positions=8),
                    "table": Table()},
        tasks=[Classify(name="wine", source=Embedded("wine"), inputs={"table": "row"}, batch=4)],
        model=ModelSpec(width=8, layers=1, heads=2, hidden=8),
        engine=EngineSpec(device="cpu", threads=1), checkpoint=CheckpointSpec(every=0),
    )
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Of the archive of sources, as a package index would have both."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(folder)]
    copy = folder / "source"  # a build leaves folders behind
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True)
    for name in listed.stdout.decode().split("\0"):
        if name and not name.startswith("tests/") and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    pack = f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})"
    packed = subprocess.run([sys.executable, "-c", pack], cwd=copy, capture_output=True, text=True, timeout=200)
    assert packed.returncode == 0, packed.stderr[-2000:]
    archive = next(folder.glob("*.tar.gz"))
    done = subprocess.run([*command, str(archive)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(target)]
    done = subprocess.run([*command, str(wheel)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    return target


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A user's folder whose files bear the names of our rooms."""
    folder = tmp_path_factory.mktemp("home")
    for name in ("data", "scripts"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise ImportError('this is mine')\n")
    (folder / "tasks.py").write_text("raise ImportError('this is mine')\n")
    (folder / "mine.py").write_text(RECIPE)
    return folder


def run(site: Path, home: Path, *words: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, *words], cwd=home, env=environment, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_shipped_model_is_whole_in_it(wheel):
    home = ROOT / "generalist" / "shipped" / "starter"
    wanted = {f"generalist/shipped/starter/{place.relative_to(home).as_posix()}" for place in home.rglob("*.*")}
    wanted = {name for name in wanted if "__pycache__" not in name}
    with zipfile.ZipFile(wheel) as held:
        assert wanted <= set(held.namelist())
        name = "generalist/shipped/starter/model.safetensors"
        assert held.read(name) == (ROOT / name).read_bytes()


def test_the_wheel_brings_one_name_and_all_of_it(wheel, site):
    assert wheel.name.startswith("generalist_encoder-")
    found = {path.name for path in site.iterdir() if path.name not in ("bin", "__pycache__")}
    assert {name for name in found if not name.endswith(".dist-info")} == {"generalist"}
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "generalist/py.typed" in names
    for folder in ("generalist", "data", "tokenizers_mod", "tasks", "scripts"):
        home = "" if folder == "generalist" else "generalist/"
        inside = {f"{home}{p.relative_to(ROOT).as_posix()}" for p in (ROOT / folder).rglob("*.py")}
        assert inside <= names, sorted(inside - names)[:5]


def test_a_user_trains_predicts_and_loads_beside_folders_of_the_same_names(site, home):
    where = run(site, home, "-c", "import generalist.data.batch.types as types; print(types.__file__)")
    assert where.startswith(str(site))
    run(site, home, "-m", "generalist.cli", "train", "mine.py", "--out", "run", "--quiet")
    row = Embedded("wine").open("test")[0]["row"]
    (home / "row.csv").write_text(",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n")
    words = ["predict", "run", "--table", "row.csv", "--candidates", "first cultivar", "second cultivar", "--json"]
    answers = dict(json.loads(run(site, home, "-m", "generalist.cli", *words))["answers"])
    assert np.isclose(sum(answers.values()), 1, atol=1e-4) and len(answers) == 2
    code = (
        "import generalist\nfrom transformers import AutoModel, AutoProcessor\n"
        "model = AutoModel.from_pretrained('run/model').eval()\n"
        "processor = AutoProcessor.from_pretrained('run/model')\n"
        "print(tuple(model.encode(processor(text=['wine'])).shape), type(model).__module__)"
    )
    assert run(site, home, "-c", code) == "(1, 8) generalist.hf.model\n"
