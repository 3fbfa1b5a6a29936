"""Checkpoints: a folder a step, written aside and renamed, so that a kill leaves the last good one.

Every file has its checksum in the folder's manifest, which is written last; what is read is checked against it, and a
damaged checkpoint gives way to the one before. The state of the data and of the schedule is the step itself (both are
functions of seed and step), so a folder holds the engine's files, the recipe, the list of steps to leave out, and the
model as a Hugging Face folder. `asynchronous`: tensors are copied to the CPU at once and written as training goes on.
"""

from __future__ import annotations

import copy
import errno
import json
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.machine.ranks import barrier, first_line, gathered
from generalist.train.checkpoints import manifest, owned
from generalist.train.checkpoints.sound import check, checkpoints, folders, latest, newest_sound, verify
from generalist.train.engines.base import Engine
from generalist.train.engines.portable import Write

__all__ = ["Saver", "check", "checkpoints", "folders", "latest", "newest_sound", "verify"]

HOPELESS = (errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT, errno.ENOENT, errno.EEXIST)
FULL = 1 << 20  # bytes: a disk with less is taken for full
RETRIES = (1.0, 2.0, 4.0, 8.0)  # seconds between tries at a path that does not answer


@runtime_checkable
class Beside(Protocol):
    """What a run keeps beside the engine's state (`generalist.run.looks`)."""

    def state(self) -> dict[str, Any]:
        """{file's name: what it holds}: JSON, or tensors where the name ends with .pt."""
        ...

    def shown(self) -> AbstractContextManager[None]:
        """Inside, the weights are those that the model's folder gets."""
        ...


class Saver:
    """Writes checkpoints of a run; one is under way at a time.

    export(folder, weights) writes the Hugging Face folder on rank 0. `poll` says whether this rank has
    written its part; when all have, every rank calls `finish`.
    """

    def __init__(
        self,
        run: Path,
        engine: Engine,
        recipe: dict,
        keep: int,
        asynchronous: bool,
        export: Callable[[Path, dict], Any],
    ) -> None:
        self.run, self.engine, self.recipe, self.keep = run, engine, recipe, keep
        self.asynchronous, self.export = asynchronous, export
        self.step: int | None = None
        self._writer = Writer() if asynchronous else None
        self._sums: dict[str, dict[str, Any]] = {}  # of this rank's files

    def save(self, step: int, skip: list[int], beside: Beside | None = None) -> None:
        """Start (and, unless asynchronous, end) writing the state after `step` steps."""
        self.finish()
        partial = self.path(step).with_suffix(".partial")
        self._sums = {}
        try:
            if self.engine.rank == 0:
                shutil.rmtree(partial, ignore_errors=True)
                retry(lambda: partial.mkdir(parents=True))
                owned.claim(self.run, [f"{partial.relative_to(self.run).as_posix()}/"])
            barrier()
            write = partial_write(partial, self._writer, self._sums)
            self.engine.save(partial, write)
            with nullcontext() if beside is None else beside.shown():
                weights = self.engine.weights()
            if self.engine.rank == 0:
                for name, value in ({} if beside is None else beside.state()).items():
                    if name.endswith(".pt"):
                        write(value, partial / name)
                    else:
                        (partial / name).write_text(json.dumps(value, indent=1))
                (partial / "recipe.json").write_text(json.dumps(self.recipe, indent=1))
                (partial / "skip.json").write_text(json.dumps(skip))
                if self._writer:
                    kept = on_cpu(weights)
                    self._writer.call(lambda: self._export(partial / "model", kept), partial / "model")
                else:
                    self._export(partial / "model", weights)
        except OSError as error:
            raise self._failed(step, error) from error
        self.step = step
        if not self.asynchronous:
            self.finish()

    def _export(self, folder: Path, weights: dict) -> None:
        """The Hugging Face folder; a disk that is full or gone is an OSError (safetensors says SafetensorError)."""
        from safetensors import SafetensorError

        try:
            self.export(folder, weights)
            for name in manifest.files(folder):
                self._sums[f"{folder.name}/{name}"] = manifest.digest(folder / name)
        except SafetensorError as error:
            raise disk_error(folder, error) from error

    def poll(self) -> bool:
        """Whether this rank's part of the checkpoint under way is on the disk."""
        return self.step is not None and (self._writer is None or self._writer.idle())

    def finish(self) -> None:
        """Wait for the checkpoint under way on all ranks and give it its name."""
        if self.step is None:
            return
        step, self.step = self.step, None
        final, partial = self.path(step), self.path(step).with_suffix(".partial")
        try:
            if self._writer:
                self._writer.wait()
            sums = gathered(self._sums)  # also: every rank has written
            if self.engine.rank == 0:
                manifest.write(partial, step, {name: one for part in sums for name, one in part.items()})
                sync_tree(partial)
                retry(lambda: owned.install(self.run, partial, final.relative_to(self.run).as_posix()))
                older = [folder for number, folder in checkpoints(self.run) if number <= step]
                for old in older[: -self.keep] if self.keep > 0 else []:
                    owned.remove(self.run, old.relative_to(self.run).as_posix())
            barrier()
        except OSError as error:
            raise self._failed(step, error) from error

    def path(self, step: int) -> Path:
        return self.run / "checkpoints" / f"step-{step:08d}"

    def _failed(self, step: int, error: OSError) -> UserError:
        shutil.rmtree(self.path(step).with_suffix(".partial"), ignore_errors=True)
        return stopped(self.run, f"the checkpoint {self.path(step)}", error)


def stopped(run: Path, what: str, error: OSError) -> UserError:
    """What a run says that cannot write any more."""
    held = checkpoints(run)
    last = f"of the checkpoints the last good one is after step {held[-1][0]}" if held else "there is no checkpoint yet"
    why = error.strerror or first_line(error)
    return UserError(
        f"cannot write {what} ({why}); {last}; free disk space (or choose another --out) and go on with --resume"
    )


@contextmanager
def kept(run: Path) -> Iterator[None]:
    """Around what a run writes beside its checkpoints: a full disk is a UserError, and they are kept.

    Where the whole folder is gone nothing is said: the run finds it so at its next step, saves there anew and ends.
    """
    try:
        yield
    except OSError as error:
        if not run.is_dir():
            return
        raise stopped(run, str(error.filename or run), error) from error


class Writer:
    """A thread that writes copies of tensors to files in the order they were handed over."""

    def __init__(self) -> None:
        self._jobs: queue.Queue[Callable[[], Any]] = queue.Queue()
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="checkpoint", daemon=True).start()

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                if self._error is None:
                    job()
            except BaseException as error:
                self._error = error
            finally:
                self._jobs.task_done()

    def call(self, job: Callable[[], Any], written: Path) -> None:
        """A job that writes a file or a folder, brought to the disk here: at the end training would wait for it."""

        def on_the_disk() -> None:
            job()
            sync_tree(written)

        self._jobs.put(on_the_disk)

    def idle(self) -> bool:
        return self._jobs.unfinished_tasks == 0

    def wait(self) -> None:
        """Until all is written; raises what went wrong."""
        self._jobs.join()
        error, self._error = self._error, None
        if error is not None:
            raise error


def partial_write(folder: Path, writer: Writer | None, sums: dict[str, dict[str, Any]]) -> Write:
    """How an engine writes a file of a checkpoint: now, or a copy of it by the writer; its digest goes to `sums`."""

    def put(value: Any, path: Path) -> None:
        write_tensors(value, path)
        sums[path.relative_to(folder).as_posix()] = manifest.digest(path)

    def put_later(value: Any, path: Path) -> None:
        assert writer is not None
        kept = on_cpu(value)
        writer.call(lambda: put(kept, path), path)

    return put_later if writer else put


def write_tensors(value: Any, path: Path) -> None:
    """torch.save; a disk that is full or gone is an OSError (torch says RuntimeError)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.save(value, path)
    except RuntimeError as error:
        raise disk_error(path, error) from error


def disk_error(path: Path, error: Exception) -> OSError:
    """What torch or safetensors could not write, as an OSError; torch does not say that the disk is full (measured)."""
    if shutil.disk_usage(path.parent).free < FULL:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return OSError(0, f"cannot write {path.name}: {first_line(error)}")


def on_cpu(value: Any) -> Any:
    """A copy that training does not touch any more, tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return type(value)((k, on_cpu(v)) for k, v in value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(on_cpu(v) for v in value))
    if isinstance(value, list | tuple):
        return type(value)(on_cpu(v) for v in value)
    return copy.deepcopy(value)


def retry(do: Callable[[], Any], waits: tuple[float, ...] = RETRIES) -> Any:
    """`do()`, again with back-off while the path does not answer; the last OSError when it never does.

    A full disk or a forbidden path does not mend by waiting and is raised at once.
    """
    for wait in waits:
        try:
            return do()
        except OSError as error:
            if error.errno in HOPELESS:
                raise
            time.sleep(wait)
    return do()


def sync_tree(folder: Path) -> None:
    """A file, or every file of a folder and the folder, are on the disk: only then may it be called done."""
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
