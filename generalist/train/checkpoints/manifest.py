"""What a checkpoint holds, to the byte: its manifest is written last, and nothing is read that it does not vouch for.

    manifest.json = {"step", "files": {path in the folder: {"bytes", "sha256"}}, "sha256" of all of that}

A folder of an earlier version has a file `done` instead and no checksums; its tensors may be pickled with objects,
which can run code when they are read: it is read only where the user says so (`--trust`).
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError

NAME = "manifest.json"
OLD = "done"
THREADS = 4  # files that are checked at once: hashing gives the interpreter's lock away


def digest(path: Path) -> dict[str, Any]:
    """{"bytes", "sha256"} of a file as it stands on the disk (1.8 GB/s a thread, measured)."""
    with path.open("rb") as file:
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def files(folder: Path) -> list[str]:
    """Every file below a folder but its manifest, as a path within it."""
    found = [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if not p.is_dir()]
    return [name for name in found if name != NAME]


def write(folder: Path, step: int, known: dict[str, dict[str, Any]]) -> list[str]:
    """The manifest of a folder whose files are all written; what of them. known: digests that were taken already."""
    held = {name: known.get(name) or digest(folder / name) for name in files(folder)}
    body = {"step": step, "files": held}
    replace_text(folder / NAME, json.dumps(body | {"sha256": _sum(body)}, indent=1))
    return [*held, NAME]


def read(folder: Path) -> dict[str, Any]:
    """The manifest. UserError where it is missing or not what was written."""
    try:
        if not stat.S_ISREG((folder / NAME).stat().st_mode):
            raise ValueError("it is no file any more")
        found = json.loads((folder / NAME).read_bytes())
        body = {"step": found["step"], "files": found["files"]}
        if found["sha256"] != _sum(body):
            raise ValueError("its checksum differs")
    except FileNotFoundError:
        raise UserError(f"{folder / NAME} is missing") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / NAME} is broken ({str(error)[:80]})") from error
    return body


def check(folder: Path, step: int) -> None:
    """Read every byte that the manifest lists. UserError names the first file that is not what was written."""
    body = read(folder)
    if body["step"] != step:
        raise UserError(f"{folder / NAME} is broken (it is of step {body['step']})")
    with ThreadPoolExecutor(THREADS) as pool:
        wrong = list(pool.map(lambda item: _wrong(folder, *item), body["files"].items()))
    for name, what in zip(body["files"], wrong, strict=True):
        if what:
            raise UserError(f"{folder / name} {what}")
    if unknown := [name for name in files(folder) if name.endswith(".pt") and name not in body["files"]]:
        raise UserError(f"{folder / unknown[0]} is no file of this checkpoint (its manifest does not list it)")


def is_old(folder: Path) -> bool:
    """Whether an earlier version wrote the folder, without a manifest."""
    return not (folder / NAME).exists() and (folder / OLD).exists()


def replace_text(path: Path, text: str) -> None:
    """The whole text or the file as it was: written aside, brought to the disk, renamed."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def _wrong(folder: Path, name: str, written: dict[str, Any]) -> str:
    """What is wrong with a file; "" for nothing."""
    path = folder / name
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return "is broken (it is no file any more)"
        if found.st_size != written["bytes"]:
            return f"is broken ({found.st_size} bytes, {written['bytes']} were written)"
        return "" if digest(path) == written else "is broken (its checksum differs)"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _sum(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
