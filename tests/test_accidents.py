"""Killed loader workers, closed terminals, full disks, folders that vanish: a run saves what it has and says so."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from test_faults import only_training, small_disk  # noqa: F401  fixtures
from test_resume import untimed

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.machine import stop_file
from generalist.run.attempt import Interrupted
from generalist.run.train import train_run
from generalist.train.checkpoints import checkpoint, manifest
from generalist.train.engines.local import LocalEngine
from tests.tiny import tiny

RECIPE = str(Path(__file__).with_name("tiny.py"))


def at_step(monkeypatch: pytest.MonkeyPatch, which: set[int], do: Callable[[], Any]) -> None:
    """`do()` while these steps (from 1) of this process are computed."""
    plain, seen = LocalEngine.step, []

    def step(self: LocalEngine, *args: Any) -> float:
        seen.append(None)
        if len(seen) in which:
            do()
        return plain(self, *args)

    monkeypatch.setattr(LocalEngine, "step", step)


def kill_workers() -> None:
    """As the kernel does where memory runs out."""
    for child in psutil.Process().children():
        if "resource_tracker" not in " ".join(child.cmdline()):
            child.kill()


def state(out: Path) -> dict[str, Any]:
    """The bytes of the newest checkpoint's files."""
    return manifest.read(checkpoint.latest(out)[1])["files"]


# --- loader workers ---


def test_a_killed_loader_worker_is_replaced_once_and_no_byte_changes(tmp_path, monkeypatch, capsys):
    keys = {"workers": 1, "model__drop_path": 0.3, "steps": 30}
    train_run(tiny(**keys), tmp_path / "calm", quiet=True)
    with monkeypatch.context() as patch:
        at_step(patch, {6}, kill_workers)
        train_run(tiny(**keys), tmp_path / "rough", quiet=True)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "a loader worker was killed (Killed) before step" in line
    (fault,) = [json.loads(line) for line in (tmp_path / "rough" / "faults.jsonl").read_text().splitlines()]
    assert fault["action"] == "worker restarted" and 6 <= fault["step"] < 30
    assert untimed(tmp_path / "calm") == untimed(tmp_path / "rough")
    assert state(tmp_path / "calm") == state(tmp_path / "rough")


def test_a_second_killed_worker_ends_the_run_behind_its_last_step_and_a_resume_changes_no_byte(
    tmp_path, monkeypatch, capsys
):
    keys = {"workers": 1, "steps": 40, "checkpoint__every": 0}
    train_run(tiny(**keys), tmp_path / "calm", quiet=True)
    with monkeypatch.context() as patch:
        at_step(patch, {6, 14}, kill_workers)
        with pytest.raises(UserError, match=r"the second one.*saved after step \d+, go on with --resume") as told:
            train_run(tiny(**keys), tmp_path / "rough", quiet=True)
    step = checkpoint.latest(tmp_path / "rough")[0]
    assert f"saved after step {step}," in str(told.value) and 14 <= step < 40
    assert [event["step"] for event in untimed(tmp_path / "rough")] == list(range(step))
    train_run(tiny(**keys), tmp_path / "rough", resume=True, quiet=True)
    assert untimed(tmp_path / "calm") == untimed(tmp_path / "rough")
    assert state(tmp_path / "calm") == state(tmp_path / "rough")


def test_an_error_of_the_data_is_no_killed_worker(tmp_path, monkeypatch):
    from generalist.tasks.kinds.classify import Classify

    monkeypatch.setattr(Classify, "example", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_run(tiny(workers=1), tmp_path / "run", quiet=True)


# --- a closed terminal ---


def test_sighup_saves_after_the_step_under_way(tmp_path, monkeypatch):
    at_step(monkeypatch, {6}, lambda: os.kill(os.getpid(), signal.SIGHUP))
    with pytest.raises(Interrupted) as stopped:
        train_run(tiny(steps=500, checkpoint__every=0, workers=1), tmp_path / "run", quiet=True)
    assert stopped.value.args == (7, signal.SIGHUP)
    assert checkpoint.latest(tmp_path / "run")[0] == 7


def test_a_run_under_nohup_does_not_stop_at_sighup(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        at_step(monkeypatch, {6}, lambda: os.kill(os.getpid(), signal.SIGHUP))
        train_run(tiny(), tmp_path / "run", quiet=True)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert checkpoint.latest(tmp_path / "run")[0] == 12


def test_a_run_whose_terminal_is_closed_saves_though_nobody_reads_its_words(tmp_path, root):
    """A terminal of its own, progress bar and all, closed in the middle: every later write to it fails."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "generalist.cli", "train", RECIPE, "steps=1000000", "checkpoint.every=0"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "run")],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "PYTHONPATH": str(root)},
        start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )
    os.close(slave)
    os.set_blocking(master, False)
    log, end = tmp_path / "run" / "log.jsonl", time.monotonic() + 200
    try:
        while not (log.exists() and log.read_bytes().count(b"\n") > 5) and time.monotonic() < end:
            time.sleep(0.05)
            with suppress(BlockingIOError):
                os.read(master, 1 << 16)
        os.close(master)  # the kernel sends SIGHUP
        assert process.wait(100) == 130
    finally:
        process.kill()
    (saved,) = checkpoint.checkpoints(tmp_path / "run")
    assert saved[0] == log.read_bytes().count(b"\n")


# --- disks ---


def test_a_disk_that_is_full_when_the_log_is_written_ends_in_one_line_and_keeps_the_checkpoint(
    small_disk,  # noqa: F811
    capsys,
    monkeypatch,
):
    """The disk holds three megabytes; another program takes the rest of it while step 6 is computed."""
    out, filler = small_disk / "run", small_disk / "filler"
    words = ["train", RECIPE, "--out", str(out), "--quiet", "--json", "checkpoint.every=4", "steps=16"]

    def fill() -> None:
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(b"x" * 512):
                pass

    with monkeypatch.context() as patch:
        at_step(patch, {6}, fill)
        assert main(words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "No space left on device" in line and "the last good one is after step 4" in line and "--resume" in line
    assert checkpoint.verify(checkpoint.latest(out)[1])["engine"] == "local"
    filler.unlink()
    assert main([*words, "--resume"]) == 0
    assert [event["step"] for event in untimed(out)] == list(range(16))


@pytest.mark.parametrize("every", [0, 4])
def test_a_folder_that_is_removed_under_a_run_gets_its_state_and_one_line(tmp_path, monkeypatch, capsys, every):
    out = tmp_path / "run"
    words = ["train", RECIPE, "--out", str(out), "--quiet", "--json", f"checkpoint.every={every}"]
    train_run(tiny(checkpoint__every=every), tmp_path / "calm", quiet=True)
    with monkeypatch.context() as patch:
        at_step(patch, {6}, lambda: shutil.rmtree(out))
        assert main(words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    step = checkpoint.latest(out)[0]
    assert "was removed" in line and f"after step {step} is saved" in line and 6 <= step <= 8
    assert main([*words, "--resume"]) == 0
    assert state(out) == state(tmp_path / "calm")


def test_a_stop_file_is_no_reason_to_take_a_folder_for_a_users(tmp_path):
    stop_file.ask(tmp_path / "run")
    with pytest.raises(Interrupted):
        train_run(tiny(), tmp_path / "run", quiet=True)
