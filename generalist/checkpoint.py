"""Checkpoints: a folder a step, written aside and renamed, so that a kill leaves the last good one.

The state of the data and of the schedule is the step itself (both are functions of seed and step), so a
folder holds the engine's files, the recipe, the list of steps to leave out, and the model as a Hugging
Face folder. `asynchronous`: tensors are copied to the CPU at once and written while training goes on.
"""

from __future__ import annotations

import copy
import errno
import json
import os
import queue
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.errors import UserError
from generalist.engine import Engine, read_meta
from generalist.ranks import barrier, first_line

NAME = re.compile(r"step-(\d{8})$")
HOPELESS = (errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT, errno.ENOENT, errno.EEXIST)
FULL = 1 << 20  # bytes: a disk with less is taken for full
RETRIES = (1.0, 2.0, 4.0, 8.0)  # seconds between tries at a path that does not answer


def checkpoints(run: Path) -> list[tuple[int, Path]]:
    """Complete checkpoints of a run, oldest first."""
    folder = run / "checkpoints"
    found = [
        (int(m.group(1)), p) for p in folder.glob("step-*") if (m := NAME.search(p.name)) and (p / "done").exists()
    ]
    return sorted(found)


def latest(run: Path) -> tuple[int, Path]:
    """The newest complete checkpoint. UserError when the run has none."""
    found = checkpoints(run)
    if not found:
        raise UserError(f"{run} holds no checkpoint to resume from; start it without --resume")
    return found[-1]


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

    def save(self, step: int, skip: list[int]) -> None:
        """Start (and, unless asynchronous, end) writing the state after `step` steps."""
        self.finish()
        partial = self.path(step).with_suffix(".partial")
        write = self._writer.put if self._writer else write_tensors
        try:
            if self.engine.rank == 0:
                shutil.rmtree(partial, ignore_errors=True)
                retry(lambda: partial.mkdir(parents=True))
            barrier()
            self.engine.save(partial, write)
            weights = self.engine.weights()
            if self.engine.rank == 0:
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
            barrier()
            if self.engine.rank == 0:
                (partial / "done").write_text(str(step))
                sync_tree(partial)
                shutil.rmtree(final, ignore_errors=True)
                retry(lambda: partial.rename(final))
                for _, old in checkpoints(self.run)[: -self.keep] if self.keep > 0 else []:
                    shutil.rmtree(old, ignore_errors=True)
            barrier()
        except OSError as error:
            raise self._failed(step, error) from error

    def path(self, step: int) -> Path:
        return self.run / "checkpoints" / f"step-{step:08d}"

    def _failed(self, step: int, error: OSError) -> UserError:
        shutil.rmtree(self.path(step).with_suffix(".partial"), ignore_errors=True)
        held = checkpoints(self.run)
        last = f"the last good one is after step {held[-1][0]}" if held else "there is none yet"
        why = error.strerror or first_line(error)
        return UserError(
            f"cannot write the checkpoint {self.path(step)} ({why}); {last}; "
            "free disk space (or choose another --out) and go on with --resume"
        )


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

    def put(self, value: Any, path: Path) -> None:
        kept = on_cpu(value)
        self.call(lambda: write_tensors(kept, path), path)

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


def verify(folder: Path) -> dict[str, Any]:
    """Read every file of a checkpoint. UserError names the first that is missing or broken; else what it holds."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    meta = read_meta(folder)
    tensors = numbers = files = 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            if path.suffix == ".safetensors":
                held: Any = load_file(path)
            elif path.suffix == ".pt":
                held = torch.load(path, map_location="cpu", weights_only=False)
            elif path.suffix == ".json":
                held = json.loads(path.read_text())
            else:
                continue
        except (OSError, ValueError, RuntimeError, EOFError, KeyError, SafetensorError) as error:
            raise UserError(
                f"{path} is broken ({first_line(error)}); resume from an older checkpoint: remove {folder}"
            ) from error
        files += 1
        for tensor in tensors_of(held):
            tensors, numbers = tensors + 1, numbers + tensor.numel()
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise UserError(
                    f"{path} holds numbers that are not finite; resume from an older checkpoint: remove {folder}"
                )
    for name in ("recipe.json", "skip.json", "model/config.json"):
        if not (folder / name).is_file():
            raise UserError(f"{folder} lacks {name}; resume from an older checkpoint: remove {folder}")
    return {"files": files, "tensors": tensors, "numbers": numbers} | {k: meta[k] for k in ("engine", "world", "stage")}


def tensors_of(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    return [t for part in parts for t in tensors_of(part)]
