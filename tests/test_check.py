"""`generalist check`: a stranger's modality and task pass, and what is broken fails at its own line."""

import json
import sys

import pytest
from conftest import ROOT

from generalist.cli import main

MELODY = (ROOT / "tests/examples/melody.py").read_text(encoding="utf-8")
TOKENS = 'self.note(data["note"]) + self.place(data["place"])'
FORWARD = f"return {TOKENS}"
ASKED = "self.input_spans(record, rng)"
ADOPTED = "    @classmethod\n    def examples(cls) -> Examples:"


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """check(kind, name, old, new): the README's melodies with one part exchanged, in a file NAME.py of a stranger's ->
    exit code, {check: (outcome, what is said)}."""
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(kind, name, old="", new=""):
        assert not old or MELODY.count(old) == 1, old
        path = tmp_path / f"{name}.py"
        path.write_text(MELODY.replace(old, new) if old else MELODY, encoding="utf-8")
        code = main(["check", kind, str(path), "--json"])
        monkeypatch.delitem(sys.modules, name)
        told = json.loads(capsys.readouterr().out)
        ((_, lines),) = told["checks"].items()
        assert told["passed"] == (code == 0)
        return code, {line["check"]: (line["outcome"], line["said"]) for line in lines}

    return run


@pytest.mark.parametrize("kind", ["modality", "task"])
def test_the_melody_of_the_readme_passes_every_check(check, kind):
    code, lines = check(kind, f"melody_{kind}")
    assert code == 0 and len(lines) >= 11
    assert [name for name, (outcome, _) in lines.items() if outcome == "left out"] == (
        ["token count", "least input"] if kind == "modality" else ["mask"]
    )


# what is exchanged, the check that fails for it, and what that says; others may fail besides
MODALITIES = {
    "unsaved": (
        ADOPTED,
        f"    def settings(self):\n        return {{}}\n\n{ADOPTED}",
        "settings round trip",
        "longest",
    ),
    "always": ("if rng is not None:", "if True:", "good input", "two calls without rng"),
    "shapeless": (FORWARD, f"return ({TOKENS})[:1]", "good input", "build(width) gives (1, 32)"),
    "unordered": ("    axes = 1\n", "", "good input", "its grid is (3,), `axes` says 0"),
    "unseeded": (", generator=rng)", ")", "draws by seed", "of one seed differ in 'note'"),
    "lenient": (" or notes.max() > 127", "", "bad input", "[60, 128] is taken"),
    "wordless": ('0.5], "whole', '0.5], "integers', "bad input", "does not say 'integers"),
    "mixed": (
        FORWARD,
        f"x = {TOKENS}\n        return x - x.mean(0)",
        "batched = alone",
        "differ",
    ),
    "spilling": (FORWARD, f"return ({TOKENS}).cumsum(0)", "mask", "what masked tokens hold"),
    "unmasked": (
        "    def build(self",
        "    def tensors(self, values):\n        found = super().tensors(values)\n"
        '        return {k: v for k, v in found.items() if not k.endswith("mask")}\n\n    def build(self',
        "padded = packed",
        "differ",
    ),
    "coarse": (
        FORWARD,
        f"return ({TOKENS} + 100) @ torch.eye(32) - 100",
        "bf16",
        "apart",
    ),
    "forgetful": (
        FORWARD,
        f'if not hasattr(self, "tilt"):\n            self.tilt = torch.rand(1)\n        return ({TOKENS}) * self.tilt',
        "save and load",
        "is a tensor not saved?",
    ),
    "deaf": (FORWARD, f"{FORWARD}.detach()", "gradients", "place.weight"),
    "shy": (ADOPTED, ADOPTED.replace("examples", "samples"), "examples", "return (settings, good, bad)"),
}
TASKS = {
    "turning": (
        "    def truth(",
        "    def __post_init__(self):\n        super().__post_init__()\n        self.tags.reverse()\n\n    def truth(",
        "settings round trip",
        "other settings",
    ),
    "unlabelled": (
        "self.question(right / right.sum())",
        "self.question()",
        "good input",
        "neither labels nor partners",
    ),
    "careless": (
        "self.input_spans(record, rng)",
        'self.input_spans({"notes": [60], **record}, rng)',
        "bad input",
        "is taken",
    ),
    "restless": (
        ASKED,
        "self.input_spans(record, rng and torch.Generator().manual_seed(int(torch.randint(99, (1,)))))",
        "draws by seed",
        "other tokens",
    ),
    "misnamed": ('metric = "precision@1"', 'metric = "precision"', "law", "'precision' is not among"),
}


@pytest.mark.parametrize(("kind", "name"), [*(("modality", n) for n in MODALITIES), *(("task", n) for n in TASKS)])
def test_what_is_broken_fails_at_its_own_line(check, kind, name):
    old, new, line, says = (MODALITIES if kind == "modality" else TASKS)[name]
    code, lines = check(kind, name, old, new)
    outcome, said = lines[line]
    assert code == 1 and outcome == "FAILED" and says in said and "\n" not in said


def test_the_lines_are_printed_and_a_class_may_be_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = tmp_path / "songs.py"
    path.write_text(MELODY)
    assert main(["check", "modality", f"{path}:Melody"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "modality Melody" and lines[-1] == "all passed"
    assert lines[1].split() == ["ok", "settings", "round", "trip:", "1", "settings"]
    assert main(["check", "modality", f"{path}:Melodie"]) == 2
    assert "no Modality class 'Melodie' in it; did you mean 'Melody'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "says"),
    [("imagee", "did you mean 'image'?"), ("nowhere.py", "no file nowhere.py"), ("empty.py", "defines no class")],
)
def test_a_place_without_a_modality_ends_in_one_line(place, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "empty.py").write_text("x = 1\n")
    assert main(["check", "modality", place]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1


MIXER = """
from generalist.nn.mixers.base import Mixer
from torch import nn


class Gate(Mixer):
    def __init__(self, width, heads, norm=None):
        super().__init__()
        self.gate = nn.Linear(width, width)

    def forward(self, x, at):
        first, sequence = at.sequences
        return self.gate(x).tanh() * x[first][sequence]
"""
# what is exchanged in it, the check that fails for it, and what that says
MIXERS = {
    "sound": ("", "", "", ""),
    "mixed": ("x[first][sequence]", "x.mean(0)", "batched = alone", "each alone differ"),
    "ahead": ("x[first][sequence]", "x[(first - 1) % len(x)][sequence]", "causal", "changes what stands before it"),
    "drawn": ("nn.Linear(width, width)", "nn.Linear(width, width).requires_grad_(False)", "gradients", "gate.weight"),
    "coarse": ("self.gate(x).tanh()", "(self.gate(x) * 1e3).sin()", "bf16", "apart"),
    "unsaved": (
        "        self.gate = nn.Linear(width, width)",
        "        self.gate = nn.Linear(width, width)\n        self.turn = __import__('torch').rand(width)",
        "save and load",
        "",  # what torch says of a tensor that is no weight
    ),
}


@pytest.mark.parametrize("name", MIXERS)
def test_a_mixer_of_ones_own_fails_at_its_own_line(name, tmp_path, monkeypatch, capsys):
    from generalist.commands.check import mixer
    from generalist.nn.mixers.table import TOKEN_MIXERS

    old, new, failing, says = MIXERS[name]
    text = MIXER.replace(old, new) if old else MIXER
    if name == "unsaved":
        text = text.replace("self.gate(x).tanh()", "(self.gate(x).tanh() + self.turn)")
    path = tmp_path / f"gates_{name}.py"
    path.write_text(text.replace("Gate(", f"Gate{name}("), encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])
    quick = {check: run for check, run in mixer.CHECKS.items() if check not in mixer.LONG}
    monkeypatch.setattr(mixer, "CHECKS", quick)
    code = main(["check", "mixer", str(path), "--json"])
    TOKEN_MIXERS.pop(f"Gate{name}")
    lines = {line["check"]: line for line in json.loads(capsys.readouterr().out)["checks"][f"Gate{name}"]}
    assert len(lines) == 9 and code == (name != "sound")
    if failing:
        assert lines[failing]["outcome"] == "FAILED" and says in lines[failing]["said"]


def test_a_misspelt_mixer_is_one_line(capsys):
    assert main(["check", "mixer", "retentoin"]) == 2
    assert "no mixer 'retentoin'; did you mean 'retention'?" in capsys.readouterr().err
