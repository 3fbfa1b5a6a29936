"""The files that a run has written, by its own list: nothing else in its folder is ever removed or replaced.

    files.json = every file, as a path in the run's folder; a path that ends with "/" is a folder of half-written files

A path is listed before it is written, so that a kill leaves no file that nobody owns.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from generalist.train.checkpoints import manifest

NAME = "files.json"


def is_run(out: Path) -> bool:
    """Whether the folder says of itself which files in it a run has written."""
    return (out / NAME).is_file()


def listed(out: Path) -> list[str]:
    """The run's files; none where there is no list or where it cannot be read."""
    try:
        found = json.loads((out / NAME).read_bytes())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def claim(out: Path, names: Iterable[str]) -> None:
    """These files are about to be written by the run."""
    held = listed(out)
    if fresh := sorted(set(names) - set(held)):
        _write(out, [*held, *fresh])


def remove(out: Path, under: str = "") -> None:
    """Remove the listed files at or below a path of the run ("" for all), and folders that are empty then."""
    root = out.resolve()
    kept: list[str] = []
    folders: set[Path] = set()
    for name in listed(out):
        if under and name.rstrip("/") != under and not name.startswith(f"{under}/"):
            kept.append(name)
            continue
        path = out / name
        if not path.parent.resolve().is_relative_to(root) or path.name in ("", "..") or path.resolve() == root:
            continue  # what lies elsewhere is nothing of this run's
        if name.endswith("/"):
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
        folders |= {folder for folder in path.relative_to(out).parents if folder.parts}
    for folder in sorted(folders, key=lambda f: -len(f.parts)):
        with suppress(OSError):  # something of the user's lies there
            (out / folder).rmdir()
    if folders or len(kept) < len(listed(out)):
        _write(out, kept)


def install(out: Path, partial: Path, name: str) -> None:
    """Give a folder that is written whole its name in the run, in place of the run's own files there."""
    found = [path.relative_to(partial) for path in sorted(partial.rglob("*")) if not path.is_dir()]
    found.sort(key=lambda path: path.name == manifest.NAME)  # the last to come makes the folder whole
    final, scratch = out / name, f"{partial.relative_to(out).as_posix()}/"
    remove(out, name)
    claim(out, [f"{name}/{path.as_posix()}" for path in found])
    try:
        partial.rename(final)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        for path in found:  # beside files of the user's
            (final / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial / path, final / path)
    remove(out, scratch.rstrip("/"))  # what is left of it, and its line in the list


def _write(out: Path, names: list[str]) -> None:
    manifest.replace_text(out / NAME, json.dumps({"files": names}, indent=0))
