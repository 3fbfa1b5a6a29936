"""The tutorials are followed word for word in an empty folder, each block after the one before; only --time is cut."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TUTORIALS = ROOT / ".docs" / "tutorials"
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.M | re.S)


def follow(name: str, folder: Path) -> str:
    """Every block in `folder`; all that they print."""
    text = (TUTORIALS / f"{name}.md").read_text(encoding="utf-8")
    fences = re.findall(r"^```", text, flags=re.M)
    blocks = BLOCK.findall(text)
    assert len(fences) == 2 * len(blocks)  # no block is left out
    tools = folder / "tools"
    tools.mkdir()
    (tools / "generalist").write_text(f'#!/bin/sh\nexec {sys.executable} -m generalist.cli "$@"\n')
    (tools / "generalist").chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    printed = []
    for kind, code in blocks:
        command = [sys.executable, "-c", code] if kind == "python" else ["bash", "-euc", shortened(code)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        printed.append(done.stdout)
    return "\n".join(printed)


def shortened(code: str) -> str:
    return re.sub(r"--time \d+s", "--time 10s", code)


def results(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())["tasks"]


def test_own_data(tmp_path):
    printed = follow("own_data", tmp_path)
    line = results(tmp_path / "runs" / "shop")["kind"]
    assert "error" not in line, line
    assert line["value"] > 3 * line["chance"]
    assert (tmp_path / "runs" / "edited" / "model" / "config.json").is_file()
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 20
    assert "'balloon'" in printed and "(19, 10)" in printed


def test_few_examples(tmp_path):
    follow("few_examples", tmp_path)
    line = results(tmp_path / "runs" / "known")["known"]
    assert line["value"] > 3 * line["chance"]
    assert list((tmp_path / "tuned").rglob("prompts.safetensors"))


def test_forecast(tmp_path):
    follow("forecast", tmp_path)
    line = results(tmp_path / "runs" / "co2")["co2"]
    assert line["value"] < line["chance"] / 2
    assert len((tmp_path / "next.csv").read_text().splitlines()) == 27


def test_detection(tmp_path):
    follow("detection", tmp_path)
    assert results(tmp_path / "runs" / "shapes")["shapes"]["metric"] == "AP50"
    assert (tmp_path / "found.png").is_file()


def test_every_tutorial_is_followed():
    assert {path.stem for path in TUTORIALS.glob("*.md")} == {
        name.removeprefix("test_") for name in globals() if name.startswith("test_")
    } - {"every_tutorial_is_followed"}
