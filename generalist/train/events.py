"""What happened in a run, one line an event: `log.jsonl`, and the same scalars for TensorBoard.

A run that was stopped and resumed at step s leaves the same log as one that was never stopped: the lines
of the steps that will be done again are dropped first.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.train.checkpoints import owned
from generalist.train.trackers import Trackers

LOG = "log.jsonl"
# One value for the whole run whatever the task; every other scalar gets one TensorBoard curve a task.
RUN_WIDE = frozenset({"lr", "samples_per_second", "seconds"})


class EventLog:
    """Appends events to `folder/log.jsonl` and `folder/tensorboard`; one process a run writes it.

    resume_at: the first step that will be done (again); lines and TensorBoard points with step >= resume_at
    are dropped. 0 starts the log anew, None appends. A torn last line, left by a killed process, is dropped.
    trackers: are told the same scalars; they are the caller's to close.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        resume_at: int | None = None,
        tensorboard: bool = True,
        trackers: Trackers | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / LOG
        self._trackers = trackers
        self._writer = _summary_writer(self.folder, resume_at) if tensorboard else None
        self._threads, threading.excepthook = threading.excepthook, self._untold
        _repair(self.path, resume_at)
        # No buffer: every event reaches the system whole, so a killed process loses none, and a full disk is seen here.
        self._file = self.path.open("ab", buffering=0)

    def write(self, step: int, task: str | None = None, **values: Any) -> None:
        """One event. Numbers (Python's, numpy's or 0-dimensional tensors) are also drawn in TensorBoard.

        The report reads loss, samples_per_second, lr, and seconds (what this step took).
        """
        event: dict[str, Any] = {"step": int(step)}
        if task is not None:
            event["task"] = str(task)
        event.update({key: _plain(value) for key, value in values.items()})
        line = (json.dumps(event, ensure_ascii=False) + "\n").encode()
        if self._file.write(line) != len(line):  # the disk filled up within the line
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        points = {
            key if task is None or key in RUN_WIDE else f"{key}/{task}": value
            for key, value in event.items()
            if key not in ("step", "task") and isinstance(value, (int, float)) and not isinstance(value, bool)
        }
        if self._writer is not None:
            for tag, value in points.items():
                self._writer.add_scalar(tag, value, event["step"])
        if self._trackers is not None:
            self._trackers.log(points, event["step"])

    def _untold(self, failed: threading.ExceptHookArgs) -> None:
        """TensorBoard's thread cannot write: the next event raises it here, so that its traceback says nothing more."""
        if not (isinstance(failed.exc_value, OSError) and type(failed.thread).__module__.startswith("tensorboard.")):
            self._threads(failed)

    def flush(self) -> None:
        """Everything written so far is on the disk: call it before a checkpoint is declared complete."""
        os.fsync(self._file.fileno())
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Flushes and closes; closing twice does nothing."""
        if self._file.closed:
            return
        try:
            self.flush()
        finally:
            self._file.close()
            if self._writer is not None:
                self._writer.close()
            threading.excepthook = self._threads

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read_log(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """The events of a run folder, in the order written; [] where there is no log.

    A torn last line (the process died while writing it) is left out; any other broken line is a UserError.
    """
    return [event for _, event in _parsed(Path(folder) / LOG)]


def _parsed(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """(the line as it stands, without its end; the event) for every whole line."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    out: list[tuple[bytes, dict[str, Any]]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
            if not isinstance(event, dict):
                raise ValueError("not an object")
        except ValueError:
            if number == len(lines):  # no line end after it: torn
                break
            raise UserError(f"{path}, line {number}, is not a JSON object: delete that line") from None
        out.append((line, event))
    return out


def _repair(path: Path, resume_at: int | None) -> None:
    """Drops the torn last line and the events from `resume_at` on, all or nothing."""
    if not path.exists():
        return
    kept = [line for line, event in _parsed(path) if resume_at is None or event.get("step", -1) < resume_at]
    whole = b"".join(line + b"\n" for line in kept)
    if whole == path.read_bytes():
        return
    fresh = path.with_name(path.name + ".new")
    with open(fresh, "wb") as file:
        file.write(whole)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def _plain(value: Any) -> Any:
    """A Python number for a 0-dimensional tensor or a numpy scalar; anything else as it is."""
    return value.item() if isinstance(value, Tensor | np.generic) else value


def _summary_writer(run: Path, resume_at: int | None):
    folder = run / "tensorboard"
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError(f"TensorBoard cannot be loaded ({error}): pip install tensorboard") from None
    # Two writers started in one second on one host would share a file name: the count keeps them apart.
    before = set(folder.glob("events.*"))
    writer = SummaryWriter(str(folder), purge_step=resume_at, filename_suffix=f".{len(before)}")
    owned.claim(run, [path.relative_to(run).as_posix() for path in set(folder.glob("events.*")) - before])
    return writer
