"""Checkpoints: a folder a step, written aside and renamed, so that a kill leaves the last good one."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from data.errors import UserError
from generalist.engine import Engine

NAME = re.compile(r"step-(\d{8})$")


def checkpoints(run: Path) -> list[tuple[int, Path]]:
    """Complete checkpoints of a run, oldest first."""
    folder = run / "checkpoints"
    found = [(int(m.group(1)), p) for p in folder.glob("step-*") if (m := NAME.search(p.name)) and (p / "done").exists()]
    return sorted(found)


def save(run: Path, step: int, engine: Engine, recipe: dict, keep: int) -> Path:
    """Write the state after `step` steps; keep the newest `keep` checkpoints."""
    final = run / "checkpoints" / f"step-{step:08d}"
    partial = final.with_suffix(".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        engine.save(partial)
        (partial / "recipe.json").write_text(json.dumps(recipe, indent=1))
        (partial / "done").write_text(str(step))
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(f"cannot write the checkpoint {final} ({error.strerror}); free disk space or choose another --out") from error
    for _, old in checkpoints(run)[:-keep] if keep > 0 else []:
        shutil.rmtree(old, ignore_errors=True)
    return final


def latest(run: Path) -> tuple[int, Path]:
    """The newest complete checkpoint. UserError when the run has none."""
    found = checkpoints(run)
    if not found:
        raise UserError(f"{run} holds no checkpoint to resume from; start it without --resume")
    return found[-1]
