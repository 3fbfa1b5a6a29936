"""A run's folder: who may write in it, what is in it already, and what of that may go."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
from generalist.evaluate.unread import FILE as UNREAD
from generalist.machine import lock, stop_file
from generalist.recipe.json import to_json
from generalist.recipe.load import read_recipe
from generalist.recipe.recipe import Recipe
from generalist.run import control
from generalist.run.grown import COUNTS
from generalist.run.looks import FILE as LOOKS
from generalist.train.checkpoints import checkpoint, manifest, owned

METHOD = "method.json"
# What a run writes beside its checkpoints, model and answers; {} is a rank.
FILES = (
    "recipe.json",
    "metrics.json",
    "predictions.json",
    "space.npz",
    "report.html",
    "log.jsonl",
    "log.jsonl.new",
    "faults.jsonl",
    "skip.json",
    "interference.json",
    "init.json",
    METHOD,
    "bad_samples.jsonl",
    "profile/trace.json",
    "profile/profile.json",
    "model/README.md",
    LOOKS,
    COUNTS,
    *(UNREAD.format(split=split) for split in ("test", "val")),
)


# What a run is made of may lie there before it begins: it is the user's, and never removed.
GIVEN = ("recipe.py", "rows.csv", "rows.parquet", "rows_test.parquet")


class RunFolder:
    """A run's folder, which one process at a time holds: from `open` until `release`."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._lock: lock.Lock | None = None

    def open(
        self, recipe: Recipe, resume: bool, overwrite: bool, trust: bool = False, world: int = 1
    ) -> tuple[int, Path | None]:
        """The first step to do, and the checkpoint to go on from (None: from the start).

        UserError where the folder cannot be written, holds another run, is in use, or holds files that are no run's.
        """
        if resume and not checkpoint.folders(self.out):
            checkpoint.latest(self.out)  # says so
        if not resume:
            check_free(self.out, overwrite)
        try:
            checkpoint.retry(lambda: self.out.mkdir(parents=True, exist_ok=True))
            self._lock = lock.Lock(self.out)
            found: tuple[int, Path | None] = (0, None)
            if resume:
                found = going_on(recipe, self.out, trust)
            else:
                clear(self.out)
            owned.claim(self.out, [*FILES, *(f"bad_samples.rank{rank}.jsonl" for rank in range(1, world))])
            manifest.replace_text(self.out / "recipe.json", json.dumps(to_json(recipe), indent=1))
            return found
        except OSError as error:
            raise UserError(
                f"cannot write to {self.out} ({error.strerror}); choose a folder you may write to with --out"
            ) from error

    def check(self) -> bool:
        """Whether all is as it was; False where the folder was removed and is made anew. UserError: another run has it.

        Ranks that do not hold the folder see nothing.
        """
        return self._lock is None or self._lock.check()

    def release(self) -> None:
        if self._lock is not None:
            self._lock.release()


def clear(out: Path) -> None:
    """Remove what an earlier run and its control wrote here, and only that."""
    beside = out / control.FOLDER
    if owned.is_run(beside):
        owned.remove(beside)
        (beside / owned.NAME).unlink()
        with suppress(OSError):  # something of the user's lies there
            beside.rmdir()
    owned.remove(out)


def going_on(recipe: Recipe, out: Path, trust: bool) -> tuple[int, Path]:
    """The step and folder of the newest sound checkpoint. UserError where it is of another recipe."""
    step, folder = checkpoint.newest_sound(out, trust)
    saved = to_json(read_recipe(folder / "recipe.json"))  # under the names of today
    changed = differences(saved, to_json(recipe))
    if changed:
        raise UserError(
            f"{out} was trained with another recipe ({'; '.join(changed[:3])}); give the same keys or another --out"
        )
    return step, folder


def check_free(out: Path, overwrite: bool) -> None:
    """UserError where a new run may not begin in the folder: nothing that no run of this version wrote is removed."""
    if not owned.is_run(out):
        held = [p.name for p in sorted(out.iterdir())] if out.is_dir() else []
        held = [name for name in held if not name.startswith(".") and name not in (stop_file.NAME, *GIVEN)]
        if "recipe.json" in held and checkpoint.folders(out):
            raise UserError(
                f"{out} holds a run of an earlier version, which has no list of its files; --resume --trust goes on "
                "with it, another --out starts anew (or remove the folder yourself)"
            )
        if held:
            raise UserError(f"{out} is no run's folder and holds files ({', '.join(held[:3])}); choose another --out")
    elif not overwrite and (checkpoint.folders(out) or (out / "metrics.json").exists()):
        raise UserError(
            f"{out} already holds a run; --resume goes on with it, --overwrite or another --out starts anew"
        )


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two JSON trees differ, as "key: old -> new"; the loader's workers may change."""
    if isinstance(a, dict) and isinstance(b, dict):
        free = {"workers", "checkpoint", "engine", "faults", "profile", "trackers", "watches", "cache_gb", "memory_gb"}
        free |= {"baseline", "baseline_seconds"}
        keys = [k for k in {**a, **b} if f"{path}{k}" not in free]
        return [d for k in keys for d in differences(a.get(k), b.get(k), f"{path}{k}.")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{path}{i}.")]
    return [] if a == b else [f"{path.rstrip('.')}: {a!r:.60} -> {b!r:.60}"]
