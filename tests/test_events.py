"""The event log: a resumed run's log equals an uninterrupted one's, whatever the kill left behind."""

import json

import numpy as np
import pytest
import torch

from generalist.data.base.errors import UserError
from generalist.train.events import EventLog, read_log


def write(log: EventLog, steps: range) -> None:
    for step in steps:
        log.write(step, f"task{step % 3}", loss=1 / (1 + step), samples_per_second=100.0, lr=1e-3, seconds=float(step))


def test_every_event_is_one_json_line_with_plain_numbers(tmp_path):
    with EventLog(tmp_path / "run", tensorboard=False) as log:
        log.write(7, "digits", loss=torch.tensor(0.5), lr=np.float32(0.25), note="ü\n")
        # Readable before closing: a killed process loses nothing.
        assert read_log(tmp_path / "run") == [{"step": 7, "task": "digits", "loss": 0.5, "lr": 0.25, "note": "ü\n"}]
    lines = (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 and json.loads(lines[0])["step"] == 7


def test_a_resumed_log_is_the_log_of_an_uninterrupted_run(tmp_path):
    with EventLog(tmp_path / "whole", tensorboard=False) as log:
        write(log, range(23))
    with EventLog(tmp_path / "cut", tensorboard=False) as log:
        write(log, range(17))  # the checkpoint is of step 11, the process died after 17
    with EventLog(tmp_path / "cut", resume_at=11, tensorboard=False) as log:
        assert [e["step"] for e in read_log(tmp_path / "cut")] == list(range(11))
        write(log, range(11, 23))
    assert (tmp_path / "cut" / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()


def test_without_a_resume_step_events_are_appended_and_zero_starts_anew(tmp_path):
    for resume_at, count in ((None, 2), (None, 4), (0, 2)):
        with EventLog(tmp_path, resume_at=resume_at, tensorboard=False) as log:
            write(log, range(2))
        assert len(read_log(tmp_path)) == count


@pytest.mark.parametrize("torn", [b'{"step": 3, "lo', b"{", b'{"step": 3, "task": "\xc3'])
def test_a_torn_last_line_is_left_out_and_the_next_event_does_not_stick_to_it(tmp_path, torn):
    with EventLog(tmp_path, tensorboard=False) as log:
        write(log, range(3))
    path = tmp_path / "log.jsonl"
    path.write_bytes(path.read_bytes() + torn)
    assert [e["step"] for e in read_log(tmp_path)] == [0, 1, 2]
    with EventLog(tmp_path, resume_at=3, tensorboard=False) as log:
        write(log, range(3, 5))
    assert [e["step"] for e in read_log(tmp_path)] == [0, 1, 2, 3, 4]
    assert torn not in path.read_bytes().splitlines()


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 0}\n{"st\n{"step": 2}\n')
    with pytest.raises(UserError, match="line 2"):
        read_log(tmp_path)
    with pytest.raises(UserError, match="line 2"):
        EventLog(tmp_path, resume_at=1, tensorboard=False)
    assert (tmp_path / "log.jsonl").read_text().count("\n") == 3  # nothing was thrown away


def test_no_log_is_an_empty_log(tmp_path):
    assert read_log(tmp_path) == []


def test_closing_twice_does_nothing(tmp_path):
    log = EventLog(tmp_path, tensorboard=False)
    log.close()
    log.close()


def test_tensorboard_shows_the_same_scalars_and_no_step_twice_after_a_resume(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with EventLog(tmp_path) as log:
        write(log, range(9))
        log.flush()
    with EventLog(tmp_path, resume_at=5) as log:
        write(log, range(5, 12))
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert set(board.Tags()["scalars"]) == {
        "loss/task0",
        "loss/task1",
        "loss/task2",
        "lr",
        "samples_per_second",
        "seconds",
    }
    for task in ("task0", "task1", "task2"):
        logged = [(e["step"], e["loss"]) for e in read_log(tmp_path) if e["task"] == task]
        drawn = [(s.step, pytest.approx(s.value)) for s in board.Scalars(f"loss/{task}")]
        assert logged == drawn
    assert [s.step for s in board.Scalars("lr")] == list(range(12))
