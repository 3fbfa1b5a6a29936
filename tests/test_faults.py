"""What a run does when something breaks: bad losses, broken samples, signals, full disks, ranks that differ."""

from __future__ import annotations

import atexit
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import tiny

from generalist.data.base.errors import UserError
from generalist.machine import ranks, stop_file
from generalist.run import train as run
from generalist.run.attempt import Interrupted
from generalist.run.train import train_run
from generalist.train.checkpoints import checkpoint
from generalist.train.engines.local import LocalEngine
from generalist.train.events import read_log
from generalist.train.faults import Faults, RollBack, bad_samples
from generalist.train.loop import StepResult, train


@pytest.fixture(autouse=True)
def only_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "finish", lambda *args: {"done": True})


def spoil(monkeypatch: pytest.MonkeyPatch, task: str, value: float, which: range) -> list[int]:
    """Multiply the loss of the `which`-th batches of a task by `value`; the list counts that task's batches."""
    plain, seen = LocalEngine.loss, []

    def loss(self: LocalEngine, batch: Any) -> torch.Tensor:
        out = plain(self, batch)
        if batch.task == task:
            seen.append(len(seen))
            if seen[-1] in which:
                return out * value
        return out

    monkeypatch.setattr(LocalEngine, "loss", loss)
    return seen


def faults(out: Path) -> list[dict[str, Any]]:
    path = out / "faults.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_step_whose_loss_is_not_finite_moves_nothing_and_is_recorded(tmp_path, monkeypatch):
    moved: list[bool] = []
    plain = LocalEngine.step

    def step(self: LocalEngine, *args: Any) -> float:
        before = [p.detach().clone() for p in self.objective.parameters()]
        norm = plain(self, *args)
        moved.append(any(not torch.equal(a, b) for a, b in zip(before, self.objective.parameters(), strict=True)))
        return norm

    monkeypatch.setattr(LocalEngine, "step", step)
    spoil(monkeypatch, "wine", float("nan"), range(1, 2))
    assert train_run(tiny(), tmp_path / "run", quiet=True) == {"done": True}
    (fault,) = faults(tmp_path / "run")
    assert (fault["task"], fault["action"]) == ("wine", "left out")
    assert moved == [step != fault["step"] for step in range(12)]
    assert [e["step"] for e in read_log(tmp_path / "run") if not e.get("applied", True)] == [fault["step"]]


def test_losses_that_stay_broken_go_back_to_the_last_checkpoint_and_their_steps_are_left_out(tmp_path, monkeypatch):
    spoil(monkeypatch, "wine", float("inf"), range(3, 6))
    train_run(tiny(steps=20), tmp_path / "run", quiet=True)
    record = faults(tmp_path / "run")
    assert [f["action"] for f in record] == ["left out"] * 3 + ["rolled back"]
    assert record[-1]["task"] == "wine"
    left_out = record[-1]["leave_out"]
    assert record[-1]["to"] <= left_out[-1]
    assert json.loads((tmp_path / "run" / "skip.json").read_text()) == left_out
    steps = [e["step"] for e in read_log(tmp_path / "run")]
    assert steps == [s for s in range(20) if s not in left_out]
    assert checkpoint.latest(tmp_path / "run")[0] == 20


def test_a_loss_that_never_mends_stops_the_run_and_names_the_task(tmp_path, monkeypatch):
    spoil(monkeypatch, "wine", float("nan"), range(3, 100))
    with pytest.raises(UserError, match=r"task wine.*after going back 2 times.*optimizer\.lr"):
        train_run(tiny(steps=60), tmp_path / "run", quiet=True)
    with pytest.raises(UserError, match=r"task wine.*before the first checkpoint"):
        train_run(tiny(steps=60, checkpoint__every=0), tmp_path / "other", quiet=True)


def result(step: int, loss: float, applied: bool = True, **values: Any) -> StepResult:
    return StepResult(step, "wine", loss, 8, 0.1, 0.0, 1e-3, 1.0, applied, **values)


def test_an_exploding_loss_is_known_by_what_its_own_task_had_before(tmp_path):
    held = Faults(tmp_path, tiny(), 0, 0, [], set())
    assert held.trusted("wine", 1e6)  # nothing is usual yet
    for step in range(8):
        held.after(result(step, 0.5))
    assert held.trusted("wine", 14.9) and not held.trusted("wine", 15.1)  # 10 x (0.5 + 1)
    assert held.trusted("digits", 1e6)
    assert not held.trusted("digits", float("nan"))
    # a resume knows the same from the log
    events = [{"step": s, "task": "wine", "loss": 0.5} for s in range(8)]
    assert not Faults(tmp_path, tiny(), 0, 8, events, set()).trusted("wine", 15.1)
    with pytest.raises(RollBack):
        for step in (8, 9, 10):
            held.after(result(step, 1e6, applied=False))


def break_samples(monkeypatch: pytest.MonkeyPatch, broken: Any) -> None:
    from generalist.tasks.kinds.classify import Classify

    plain, count = Classify.example, []

    def example(self: Classify, record: dict, rng: Any = None) -> Any:
        if self.name == "digits" and rng is not None:
            count.append(None)
            if broken(len(count)):
                raise UserError("the picture is cut off")
        return plain(self, record, rng)

    monkeypatch.setattr(Classify, "example", example)


def test_samples_that_cannot_be_decoded_are_counted_by_task_and_listed(tmp_path, monkeypatch):
    break_samples(monkeypatch, lambda n: n in (3, 20))
    train_run(tiny(), tmp_path / "run", quiet=True)
    assert bad_samples(tmp_path / "run") == {"digits": 2}
    lines = [json.loads(line) for line in (tmp_path / "run" / "bad_samples.jsonl").read_text().splitlines()]
    assert all(line["error"] == "the picture is cut off" and line["record"] for line in lines)


def test_too_many_broken_samples_stop_the_run(tmp_path, monkeypatch):
    break_samples(monkeypatch, lambda n: n % 2 == 0)
    with pytest.raises(UserError, match=r"cannot be decoded, more than faults.bad_rate=0.01.*task digits"):
        train_run(tiny(steps=60), tmp_path / "run", quiet=True)


def test_a_record_that_fails_again_is_counted_as_unread_but_not_as_another_one():
    class Step:
        count, task, inputs = 7, "wine", SimpleNamespace(sequences=7)

        def __init__(self, *skipped: str) -> None:
            self.skipped = skipped

        def to(self, device: str) -> Any:
            return self

    engine: Any = SimpleNamespace(
        device="cpu", world=1, loss=lambda batch: torch.ones(1), backward=lambda loss: None, step=lambda *args: 1.0
    )
    tasks: Any = {"wine": SimpleNamespace(name="wine", weight=1.0, omega=0.0)}
    schedule: Any = SimpleNamespace(share=lambda task, step: 1.0)
    batches: Any = iter([Step("record 7"), Step("record 7", "record 8"), Step("record 7"), Step()])
    told: list[StepResult] = []
    train(engine, batches, tasks, schedule, 0, 4, 1e-3, 0, after=told.append)
    assert [(one.unread, one.fresh) for one in told] == [(1, 1), (2, 1), (1, 0), (0, 0)]


def test_the_rate_of_broken_samples_counts_only_beyond_some_different_ones(tmp_path):
    held = Faults(tmp_path, tiny(), 0, 0, [], set())
    for step in range(100):  # a ninth of what is read, always the same record
        held.after(result(step, 0.5, unread=1, fresh=int(step == 0), bad=("task wine, record 7: cut off",)))
    with pytest.raises(UserError, match="120 of 1080 samples cannot be decoded"):
        for step in range(100, 140):
            held.after(result(step, 0.5, unread=1, fresh=1, bad=(f"task wine, record {step}: cut off",)))


def test_a_full_disk_ends_in_one_line_and_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    plain, saved = checkpoint.write_tensors, []

    def write(value: Any, path: Path) -> None:
        saved.append(path)
        if len(saved) == 2:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(value, path)

    monkeypatch.setattr(checkpoint, "write_tensors", write)
    with pytest.raises(UserError, match=r"No space left.*last good one is after step 4.*--resume"):
        train_run(tiny(), tmp_path / "run", quiet=True)
    assert [step for step, _ in checkpoint.checkpoints(tmp_path / "run")] == [4]
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000004"]
    train_run(tiny(), tmp_path / "run", resume=True, quiet=True)
    assert checkpoint.latest(tmp_path / "run")[0] == 12


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of its own that holds three megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a disk of a few megabytes needs root and mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_disk_that_really_fills_up_leaves_a_whole_checkpoint_to_go_on_from(small_disk, capsys, asynchronous):
    """Every step is kept until nothing fits any more, wherever that happens to strike."""
    from generalist.cli import main

    out = small_disk / "run"
    recipe = str(Path(__file__).with_name("tiny.py"))
    keys = ["checkpoint.every=1", f"checkpoint.asynchronous={asynchronous}", "steps=90"]
    words = ["train", recipe, *keys, "--out", str(out), "--quiet"]
    assert main([*words, "checkpoint.keep=0"]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and "No space left" in told[0], told
    step, last = checkpoint.latest(out)
    assert 0 < step < 90
    assert checkpoint.verify(last)["engine"] == "local"
    assert not list((out / "checkpoints").glob("*.partial"))
    subprocess.run(["mount", "-o", "remount,size=60m", str(small_disk)], check=True)
    assert main([*words, "checkpoint.keep=1", "checkpoint.every=45", "--resume", "--json"]) == 0
    assert checkpoint.latest(out)[0] == 90


def test_a_path_that_does_not_answer_is_tried_again_and_a_forbidden_one_is_not():
    calls: list[int] = []

    def flaky() -> str:
        calls.append(len(calls))
        if len(calls) < 3:
            raise OSError(errno.EIO, "not now")
        return "there"

    assert checkpoint.retry(flaky, (0.0, 0.0, 0.0)) == "there"
    assert len(calls) == 3
    calls.clear()

    def forbidden() -> None:
        calls.append(0)
        raise PermissionError(errno.EACCES, "no")

    with pytest.raises(PermissionError):
        checkpoint.retry(forbidden, (0.0, 0.0))
    assert len(calls) == 1


def test_sigterm_ends_the_step_saves_and_says_so_within_seconds(tmp_path, monkeypatch):
    plain, asked = LocalEngine.loss, []

    def loss(self: LocalEngine, batch: Any) -> torch.Tensor:
        if not asked and batch.task == "wine":
            asked.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, batch)

    monkeypatch.setattr(LocalEngine, "loss", loss)
    with pytest.raises(Interrupted) as stopped:
        train_run(tiny(steps=500, checkpoint__every=0), tmp_path / "run", quiet=True)
    assert time.monotonic() - asked[0] < 10
    step, number = stopped.value.args
    assert number == signal.SIGTERM
    assert checkpoint.latest(tmp_path / "run")[0] == step < 500


def test_a_file_in_the_runs_folder_asks_it_to_save_and_stop_and_is_gone_afterwards(tmp_path):
    stop_file.ask(tmp_path / "run")  # before the run is there
    with pytest.raises(Interrupted) as stopped:
        train_run(tiny(), tmp_path / "run", quiet=True)
    assert stopped.value.args == (1, signal.SIGTERM)
    assert [step for step, _ in checkpoint.checkpoints(tmp_path / "run")] == [1]
    assert not stop_file.is_asked(tmp_path / "run")


def test_an_asynchronous_checkpoint_holds_the_state_of_its_own_step(tmp_path, monkeypatch):
    plain = checkpoint.write_tensors

    def slow(value: Any, path: Path) -> None:
        time.sleep(0.3)  # several steps go by
        plain(value, path)

    train_run(tiny(checkpoint__keep=9), tmp_path / "now", quiet=True)
    monkeypatch.setattr(checkpoint, "write_tensors", slow)
    train_run(tiny(checkpoint__keep=9, checkpoint__asynchronous=True), tmp_path / "later", quiet=True)
    pairs = zip(checkpoint.checkpoints(tmp_path / "now"), checkpoint.checkpoints(tmp_path / "later"), strict=True)
    for (step, now), (other, later) in pairs:
        assert step == other
        a, b = (torch.load(f / "state.pt", weights_only=True)["model"] for f in (now, later))
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert [s for s, _ in checkpoint.checkpoints(tmp_path / "later")] == [4, 8, 12]


def test_training_goes_on_while_an_asynchronous_checkpoint_is_written(tmp_path, monkeypatch):
    """The write of step 4's state ends only when three more steps were done: a save that held training up never would.

    What was written is brought to the disk by the writer too, not by the loop.
    """
    plain, loss, sync = checkpoint.write_tensors, LocalEngine.loss, checkpoint.sync_tree
    done, further, in_time, synced = [0], threading.Event(), [], []

    def slow(value: Any, path: Path) -> None:
        in_time.append(further.wait(30))
        plain(value, path)

    def counted(self: LocalEngine, batch: Any) -> torch.Tensor:
        done[0] += 1
        if done[0] > 4 + 3:
            further.set()
        return loss(self, batch)

    def watched(path: Path) -> None:
        synced.append((path.name, threading.current_thread().name))
        sync(path)

    monkeypatch.setattr(checkpoint, "write_tensors", slow)
    monkeypatch.setattr(LocalEngine, "loss", counted)
    monkeypatch.setattr(checkpoint, "sync_tree", watched)
    train_run(tiny(checkpoint__asynchronous=True), tmp_path / "run", quiet=True)
    assert in_time == [True, True, True]
    assert [name for name, thread in synced if thread == "checkpoint"][:2] == ["state.pt", "model"]
    assert checkpoint.latest(tmp_path / "run")[0] == 12


def test_resume_check_proves_a_checkpoint_and_names_the_broken_file(tmp_path, capsys):
    from generalist.cli import main

    train_run(tiny(steps=4), tmp_path / "run", quiet=True)
    assert main(["resume-check", str(tmp_path / "run")]) == 0
    assert "all finite" in capsys.readouterr().out
    state = checkpoint.latest(tmp_path / "run")[1] / "state.pt"
    state.write_bytes(state.read_bytes()[:-2000])
    assert main(["resume-check", str(tmp_path / "run")]) == 2
    assert "state.pt is broken" in capsys.readouterr().err


def test_ranks_with_another_recipe_or_other_code_do_not_start(monkeypatch):
    def pretend(everyone: list, own: dict) -> None:
        everyone[:] = [own, {**own, other: "0123"}]

    monkeypatch.setattr(ranks, "world", lambda: 2)
    monkeypatch.setattr(ranks.dist, "all_gather_object", pretend)
    for other in ("recipe", "code"):
        with pytest.raises(UserError, match=f"rank 1 has another {other} than rank 0"):
            ranks.agree({"steps": 3})
    other = "nothing else"
    monkeypatch.setattr(
        ranks.dist, "all_gather_object", lambda everyone, own: everyone.__setitem__(slice(None), [own] * 2)
    )
    ranks.agree({"steps": 3})


def test_a_rank_that_ends_writes_what_it_has_and_keeps_its_code(tmp_path):
    written = tmp_path / "out.txt"
    child = os.fork()
    if child == 0:
        atexit._clear()  # the tests' own
        with written.open("w") as file:
            sys.stdout = file
            atexit.register(lambda: file.write("and the last"))
            print("first", end=" ")
            ranks.end(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert written.read_text() == "first and the last"


def test_a_free_port_is_none_that_the_kernel_gives_to_others_by_itself():
    lowest = int(ranks.EPHEMERAL.read_text().split()[0]) if ranks.EPHEMERAL.is_file() else 32768
    found = [ranks.free_port() for _ in range(20)]
    assert all(1024 <= port < lowest for port in found) and len(set(found)) > 1
