"""The annotations of the package are checked where `make typecheck` says so, and what breaks one fails."""

import ast
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

# Every one of these is called as its annotation says, then against it.
CALLS = """
import sys; sys.path.insert(0, "tests")
import typecheck; typecheck.install()
import torch
from jaxtyping import TypeCheckError
from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.nn.mixers.channel import SwiGLU
from generalist.tasks.candidates.likelihood import logits
from generalist.tokenizers_mod.numbers.number import Number

def refused(call):
    try:
        call()
    except TypeCheckError:
        return True
    return False

packed = pack([[Span("number", {"value": torch.zeros(3)}, 3).ask([0])]])
number, wide, scale = Number().build(8), torch.zeros(3, 8), torch.zeros(1)
mixer, at = SwiGLU(8, 12, torch.nn.GELU()), At(packed.layout)
sound = [
    lambda: number({"value": torch.zeros(3)}),
    lambda: mixer(wide, at),
    lambda: logits(wide, torch.zeros(2, 8), scale),
    lambda: packed.map(lambda t: t),
]
broken = [
    lambda: number([torch.zeros(3)]),                              # a list where names are looked up
    lambda: mixer(torch.zeros(1, 3, 8), at),                       # a batch axis where tokens are packed
    lambda: logits(wide, torch.zeros(2, 7), scale),                # another width
    lambda: packed.map(lambda t: t[:1] if t.dtype == torch.bool else t),  # fewer flags than tokens
    lambda: Span("number", [], 3),                                 # no tensor at all
]
print([refused(call) for call in sound], [refused(call) for call in broken])
"""


def test_calls_against_the_annotations_are_refused_and_others_pass():
    run = subprocess.run([sys.executable, "-c", CALLS], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.strip() == f"{[False] * 4} {[True] * 5}"


def test_a_suite_under_the_switch_fails_where_an_annotation_is_broken(tmp_path):
    """The switch reaches what pytest imports: one call with a wrong shape, with and without it."""
    (tmp_path / "conftest.py").write_text(
        (ROOT / "tests/conftest.py").read_text().replace("__file__", repr(str(ROOT / "tests/conftest.py")))
    )
    (tmp_path / "test_wrong.py").write_text(
        "import torch\nfrom generalist.tasks.candidates.likelihood import scale_of\n"
        "def test_wrong():\n    scale_of(torch.zeros(2, 2))\n"
    )
    codes = []
    for switch in ("0", "1"):
        environment = os.environ | {"GENERALIST_TYPECHECK": switch, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "."]
        codes.append(subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, timeout=200).returncode)
    assert codes == [0, 1]


def test_every_protocol_can_be_checked_at_run_time():
    """One that cannot stops the switch where it is first named."""
    bare = []
    for room in ("data", "tokenizers_mod", "tasks", "generalist"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef) and any(ast.unparse(b).startswith("Protocol") for b in node.bases):
                    marks = {ast.unparse(d) for d in node.decorator_list}
                    bare += [] if "runtime_checkable" in marks else [f"{path.name}: {node.name}"]
    assert not bare, "mark them @runtime_checkable"


@pytest.mark.parametrize(
    ("file", "what"), [("Makefile", "checks: lint typecheck test"), (".ci/run", "make --no-print-directory typecheck")]
)
def test_what_keeps_changes_out_runs_it(file, what):
    assert what in (ROOT / file).read_text()


def test_the_files_that_it_runs_exist():
    line = re.search(r"^TYPECHECKED := (.*)$", (ROOT / "Makefile").read_text(), flags=re.M)
    assert line and all((ROOT / name).is_file() for name in line[1].split())
