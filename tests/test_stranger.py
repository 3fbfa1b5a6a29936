"""Somebody who adds a modality or a task touches one file and one table, in a house of his own (mixers and stages:
test_stages.py)."""

import os
import shutil
import subprocess
import sys
import textwrap

import pytest
from conftest import ROOT

TASK = '''
"""Is a number positive?"""

from dataclasses import dataclass

import torch

from generalist.data.batch.types import Example
from generalist.tasks.base.task import Task
from generalist.tasks.base.task import accuracy
from generalist.tasks.candidates.names import Names
from generalist.tasks.base.examples import TaskExamples


@dataclass(kw_only=True)
class Sign(Task):
    kind = "sign"

    def candidate_set(self, records):
        return Names(["no", "yes"])

    def example(self, record, rng=None):
        label = torch.tensor([int(record["positive"])])
        return Example([self.question(label), *self.input_spans(record, rng)], record=record["id"])

    def score(self, log_p, labels):
        return {"accuracy": accuracy(log_p, labels)}

    @classmethod
    def examples(cls):
        rows = [{"id": str(i), "x": [i / 4, 1.0], "positive": i > 0} for i in (-3, -1, 2, 4)]
        bad = [({"id": "none", "x": [], "positive": True}, "no values")]
        return TaskExamples({"inputs": {"number": "x"}}, rows, bad)
'''


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A copy of the package that may be written in."""
    home = tmp_path_factory.mktemp("house")
    for name in ("data", "tokenizers_mod", "tasks", "generalist", "scripts"):
        shutil.copytree(ROOT / name, home / name, ignore=shutil.ignore_patterns("__pycache__", "bench_results"))
    return home


def add(house, file, text, table, *lines):
    """One file, and in one table the lines behind others: (line that is there, what it becomes)."""
    (house / file).write_text(textwrap.dedent(text).lstrip(), encoding="utf-8")
    path = house / table
    held = path.read_text(encoding="utf-8")
    for old, new in lines:
        assert held.count(old) == 1, old
        held = held.replace(old, new)
    path.write_text(held, encoding="utf-8")


def generalist(house, folder, *words):
    environment = os.environ | {"PYTHONPATH": str(house)}
    command = [sys.executable, "-P", "-m", "generalist.cli", *words]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, (run.stdout + run.stderr)[-3000:]
    return run.stdout


def test_a_modality_is_one_file_and_a_line_in_its_table(house, tmp_path):
    text = (ROOT / "tests/examples/melody.py").read_text(encoding="utf-8").split("@dataclass(kw_only=True)")[0]
    text = "\n".join(line for line in text.splitlines() if not line.startswith("from generalist.tasks")) + "\n"
    there = '    "number": "generalist.tokenizers_mod.numbers.number:Number",\n'
    line = '    "melody": "generalist.tokenizers_mod.numbers.melody:Melody",\n'
    modalities = "tokenizers_mod/base/modalities.py"
    add(house, "tokenizers_mod/numbers/melody.py", text, modalities, (there, there + line))
    assert generalist(house, tmp_path, "check", "modality", "melody").endswith("all passed\n")
    assert "a list of MIDI numbers" in generalist(house, tmp_path, "info", "--modalities")


def test_a_task_is_one_file_and_a_line_in_its_table(house, tmp_path):
    there = "from generalist.tasks.kinds.regions.segment import Segment\n"
    add(
        house,
        "tasks/sign.py",
        TASK,
        "tasks/registry/table.py",
        (there, f"{there}from generalist.tasks.sign import Sign\n"),
        ("        Segment,\n", "        Segment,\n        Sign,\n"),
    )
    assert generalist(house, tmp_path, "check", "task", "sign").endswith("all passed\n")
