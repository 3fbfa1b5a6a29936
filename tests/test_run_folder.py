"""What lies in a run's folder and was not written by the run is never touched, and one run at a time writes there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.machine import lock
from generalist.run import train as run
from generalist.run.train import train_run
from generalist.train.checkpoints import checkpoint, owned
from generalist.train.engines.local import LocalEngine

RECIPE = str(Path(__file__).with_name("tiny.py"))
THEIRS = {
    "a thesis": "model/thesis.txt",
    "answers": "answers/exam.jsonl",
    "a report": "report.html",
    "checkpoints of something": "checkpoints/step-00000004/weights.pt",
    "a recipe": "recipe.json",
    "notes": "notes.txt",
}


def held(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def written(out: Path, *names: str) -> None:
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(f"my {name}")


# --- only the run's own files go ---


@pytest.mark.parametrize("command", [["--overwrite"], ["--auto-resume"], []], ids=str)
@pytest.mark.parametrize("name", THEIRS.values(), ids=THEIRS)
def test_a_folder_that_is_no_run_is_refused_in_one_line_and_nothing_in_it_changes(tmp_path, capsys, name, command):
    written(tmp_path / "mine", name)
    before = held(tmp_path / "mine")
    assert main(["train", RECIPE, "steps=2", "--out", str(tmp_path / "mine"), "--quiet", *command]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert (str(tmp_path / "mine") in line and "another --out" in line) or "sound checkpoint" in line
    assert held(tmp_path / "mine") == before


def test_files_of_the_users_inside_a_run_survive_its_replacement_evaluation_and_pruning(tmp_path, capsys):
    """A whole run twice: the second replaces what the first wrote, and nothing else."""
    out = tmp_path / "run"
    words = ["train", RECIPE, "--out", str(out), "--quiet", "--json", "checkpoint.keep=1"]
    assert main([*words, "steps=8"]) == 0
    mine = ["model/thesis.txt", "answers/exam.jsonl", "notes.txt", "tensorboard/events.mine", "model/1_Normalize/x"]
    mine += ["checkpoints/step-00000008/notes.txt", "checkpoints/other/weights.pt", "profile/mine.txt"]
    written(out, *mine)
    assert main(["eval", str(out), "--quiet", "--json"]) == 0
    first = held(out)
    assert main([*words, "steps=4", "--overwrite"]) == 0
    second = held(out)
    assert {name: second.get(name) for name in mine} == {name: first[name] for name in mine}
    assert [step for step, _ in checkpoint.checkpoints(out)] == [4]
    assert second.keys() - first.keys() == {n for n in second if n.startswith("checkpoints/step-00000004/")} | {
        n for n in second if n.startswith("tensorboard/events.out")
    }
    assert first["model/model.safetensors"] != second["model/model.safetensors"]
    assert json.loads(second["metrics.json"])["steps"] == 4
    # all of what is left is on the list or the user's
    assert set(second) - {owned.NAME, *mine} == {name for name in owned.listed(out) if (out / name).is_file()}


def test_a_list_that_names_files_elsewhere_removes_none_of_them(tmp_path):
    out = tmp_path / "run"
    written(tmp_path, "elsewhere/thesis.txt", "run/own.txt")
    (out / "link").symlink_to(tmp_path / "elsewhere")
    names = [
        "../elsewhere/thesis.txt",
        str(tmp_path / "elsewhere/thesis.txt"),
        "link/thesis.txt",
        "../elsewhere/",
        "./",
    ]
    (out / owned.NAME).write_text(json.dumps({"files": [*names, "own.txt", 7]}))
    owned.remove(out)
    assert (tmp_path / "elsewhere" / "thesis.txt").is_file() and not (out / "own.txt").exists()
    assert owned.listed(out) == []
    for broken in ("", "[]", '{"files": 3}', "{"):
        (out / owned.NAME).write_text(broken)
        assert owned.listed(out) == []


# --- one at a time ---


@pytest.mark.parametrize("command", ["--overwrite", "--resume", "--auto-resume"])
def test_a_second_run_in_the_same_folder_is_refused_and_the_first_one_does_not_notice(
    tmp_path, monkeypatch, capsys, command
):
    monkeypatch.setattr(run, "finish", lambda *args: {"done": True})
    plain, told, out = LocalEngine.step, [], str(tmp_path / "run")

    def step(self: LocalEngine, *args: Any) -> float:
        told.append(len(told))
        if len(told) == 6:
            assert main(["train", RECIPE, "--out", out, "--quiet", command]) == 2
        return plain(self, *args)

    monkeypatch.setattr(LocalEngine, "step", step)
    train_run(tiny(), tmp_path / "run", quiet=True)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"in use by another run (process {os.getpid()} on " in line
    assert [step for step, _ in checkpoint.checkpoints(tmp_path / "run")] == [8, 12]
    assert not (tmp_path / "run" / lock.NAME).exists()


def foreign(out: Path, **other: Any) -> Path:
    """The lock of a process elsewhere."""
    out.mkdir(exist_ok=True)
    (out / lock.NAME).write_text(json.dumps(lock._identity() | other))
    return out / lock.NAME


def test_the_lock_of_a_process_that_is_gone_is_taken_over_at_once(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    began = lock._began(gone.pid)
    gone.kill()
    time.sleep(0.1)  # a zombie: nobody waited for it yet
    foreign(tmp_path, process=gone.pid, began=began)
    lock.Lock(tmp_path).release()
    gone.wait()
    foreign(tmp_path, process=os.getpid(), began="1")  # the number is another's by now
    lock.Lock(tmp_path).release()
    foreign(tmp_path, process="x")
    lock.Lock(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("other", [{"host": "node7"}, {"boot": "an earlier one"}, {"processes": "pid:[1]"}], ids=str)
def test_another_machines_lock_is_stale_when_nobody_touches_it_and_refused_when_somebody_does(
    tmp_path, monkeypatch, other
):
    monkeypatch.setattr(lock, "STALE", 0.4)
    monkeypatch.setattr(lock, "WATCH", 0.05)
    path = foreign(tmp_path, **other)
    began = time.monotonic()
    lock.Lock(tmp_path).release()
    assert time.monotonic() - began > 0.3
    monkeypatch.setattr(lock, "STALE", 30.0)
    path = foreign(tmp_path, **other)
    beat = threading.Timer(0.3, os.utime, [path])
    beat.start()
    with pytest.raises(UserError, match="in use by another run"):
        lock.Lock(tmp_path)
    beat.join()
    old = time.time() - 3600
    os.utime(path, (old, old))
    lock.Lock(tmp_path).release()


def test_a_lock_that_says_nothing_is_stale_by_its_age(tmp_path):
    (tmp_path / lock.NAME).write_text("")
    old = time.time() - 3600
    os.utime(tmp_path / lock.NAME, (old, old))
    lock.Lock(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_find_a_dead_holder_one_takes_its_place(tmp_path):
    foreign(tmp_path, began="1")
    got, refused, ready = [], [], threading.Barrier(8)

    def take() -> None:
        ready.wait()
        try:
            got.append(lock.Lock(tmp_path))
        except UserError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)
    assert got[0].check()
    got[0].release()
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_folder_was_taken_over_stops_before_it_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "finish", lambda *args: {"done": True})
    plain, seen = LocalEngine.step, []

    def step(self: LocalEngine, *args: Any) -> float:
        seen.append(None)
        if len(seen) == 6:
            foreign(tmp_path / "run", host="node7", mark="another")
        return plain(self, *args)

    monkeypatch.setattr(LocalEngine, "step", step)
    with pytest.raises(UserError, match=r"taken over by another run .*node7"):
        train_run(tiny(), tmp_path / "run", quiet=True)
    assert [step for step, _ in checkpoint.checkpoints(tmp_path / "run")] == [4]
    assert lock.read(tmp_path / "run" / lock.NAME)["mark"] == "another"


def test_a_running_holder_touches_its_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.05)
    one = lock.Lock(tmp_path)
    os.utime(one.path, (1, 1))
    end = time.monotonic() + 20
    while one.path.stat().st_mtime < 2 and time.monotonic() < end:
        time.sleep(0.02)
    assert one.path.stat().st_mtime > 2
    one.release()
