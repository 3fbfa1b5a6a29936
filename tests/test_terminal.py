"""Tables and lists keep within the terminal, and say the same in both forms."""

import shutil
import subprocess

import pytest

from generalist.cli import main
from generalist.machine.terminal import laid_out

ROWS = [
    ("task", "metric", "value", "baseline", ""),
    ("digits", "accuracy (higher)", "0.975", "0.955", "logistic regression: reached"),
    ("a task with a long name of its own", "mae (lower)", "0.513", "0.647", "seasonal naive: reached"),
]


def test_a_table_that_fits_stands_side_by_side_and_one_that_does_not_below():
    wide = laid_out(ROWS, most=200)
    assert len(wide) == 3 and wide == laid_out(ROWS, most=0)  # no terminal: as wide as it is
    assert [line.index("0.") for line in wide[1:]] == [wide[0].index("value")] * 2
    narrow = laid_out(ROWS, most=60)
    assert max(map(len, narrow)) <= 60
    for row in ROWS[1:]:
        for cell in filter(None, row):
            assert any(cell in line for line in narrow)
    assert "  value     0.975" in narrow


@pytest.mark.parametrize("columns", [60, 200])
def test_info_keeps_within_the_terminal(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["info", "--modalities"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert max(map(len, said)) <= min(columns, 110) and any("backbone" in line for line in said)


def test_info_lists_sources_every_modality_and_recipe(capsys):
    assert main(["info"]) == 0
    said = capsys.readouterr().out
    for name in ("sources", "hub:NAME", "CocoObjects", "variates", "backbone", "pretrained_text", "recipes", "demo"):
        assert name in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["eval", "--help"], "--any-to-any           retrieval between every two"),
        (["train", "--help"], "generalist recipe RECIPE"),
    ],
)
def test_help_tells_what_people_look_for(words, told, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 0 and told in capsys.readouterr().out


def test_completion_is_a_script_of_the_shell_and_knows_commands_and_options(capsys):
    assert main(["--completion", "bash"]) == 0
    said = capsys.readouterr().out
    assert "resume-check" in said and "--forecast" in said
    if shutil.which("bash"):
        assert subprocess.run(["bash", "-n"], input=said, text=True, capture_output=True).returncode == 0
    assert main(["--completion", "fish"]) == 2
    assert "bash, zsh, tcsh" in capsys.readouterr().err
