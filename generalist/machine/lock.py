"""One run a folder: the process that writes in it says so in a file, and a second one is refused.

    .lock = {"host", "boot", "processes", "process", "began", "mark"}      touched every BEAT seconds

A process that is gone leaves its file behind. On the same machine (host, boot and process namespace alike) the
process's number and start tell; for another machine on a shared disk the file's age does, measured by the disk's own
clock: a holder that was not heard of for STALE seconds is dead. One that was only asleep finds another's mark in the
file and stops before it writes.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import tempfile
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from generalist.data.base.errors import UserError

NAME = ".lock"
BEAT = 5.0
STALE = 60.0
WATCH = 1.0  # seconds between looks at another machine's lock


class Lock:
    """Holds a folder until `release`. UserError in one line where another run holds it."""

    def __init__(self, out: Path) -> None:
        self.path, self.own = out / NAME, _identity()
        self._take()
        self._end = threading.Event()
        threading.Thread(target=self._beat, name="lock", daemon=True).start()

    def check(self) -> bool:
        """Whether the folder is still this run's; False where it was removed and had to be taken again.

        UserError where another run has it.
        """
        found = read(self.path)
        if found is not None and found.get("mark") == self.own["mark"]:
            return True
        if found is not None:
            raise UserError(f"{self.path.parent} was taken over by another run ({_shown(found)}); this one stops")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._take()
        return False

    def release(self) -> None:
        self._end.set()
        found = read(self.path)
        if found is not None and found.get("mark") == self.own["mark"]:
            self.path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._end.wait(BEAT):
            with suppress(OSError):  # a disk that does not answer, a folder that is gone: `check` tells the run
                if (read(self.path) or {}).get("mark") == self.own["mark"]:
                    os.utime(self.path)

    def _take(self) -> None:
        """Create the file, or take it over from a holder that is dead; one at a time on a machine."""
        own = f"{psutil.Process().username()} {self.path.resolve()}".encode()
        # outside the folder, where nothing of it is left
        with FileLock(Path(tempfile.gettempdir()) / f"generalist-{hashlib.sha256(own).hexdigest()[:24]}.lock"):
            self._take_in_turn()

    def _take_in_turn(self) -> None:
        while not self._create():
            held = read(self.path)
            if held is None and not self.path.exists():
                continue
            if not is_dead(self.path, held):
                raise UserError(
                    f"{self.path.parent} is in use by another run ({_shown(held)}); wait for it or choose another --out"
                )
            self._bury(held)

    def _create(self) -> bool:
        """Whether the file is now this run's: written aside and linked, so that it is never seen half written."""
        fresh = self.path.with_name(f"{NAME}.{self.own['mark']}")
        fresh.write_text(json.dumps(self.own))
        try:
            os.link(fresh, self.path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            try:
                with self.path.open("x") as file:
                    file.write(json.dumps(self.own))
            except FileExistsError:
                return False
        finally:
            fresh.unlink(missing_ok=True)
        return True

    def _bury(self, dead: dict[str, Any] | None) -> None:
        """Move a dead holder's file out of the way; where it was another's by now, put that back."""
        aside = self.path.with_name(f"{NAME}.{self.own['mark']}.old")
        with suppress(FileNotFoundError):
            os.rename(self.path, aside)
            if read(aside) != dead:
                with suppress(OSError):
                    os.link(aside, self.path)
            aside.unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any] | None:
    """What a lock says; None where there is none, {} where it says nothing that can be read."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_dead(path: Path, held: dict[str, Any] | None) -> bool:
    """Whether a lock's holder is gone. Of another machine's this may take STALE seconds; a sign of life ends it."""
    own = _identity()
    if held and all(held.get(key) == own[key] for key in ("host", "boot", "processes")):
        return _began(held.get("process")) != held.get("began")
    heard = _modified(path)
    while heard is not None and _now(path) - heard < STALE:
        time.sleep(WATCH)
        if _modified(path) != heard:
            return False
    return True


def _identity() -> dict[str, Any]:
    """This process, so that no other on any machine says the same."""
    processes = Path("/proc/self/ns/pid")
    return {
        "host": socket.gethostname(),
        "boot": _text("/proc/sys/kernel/random/boot_id"),
        "processes": os.readlink(processes) if processes.exists() else "",
        "process": os.getpid(),
        "began": _began(os.getpid()),
        "mark": uuid.uuid4().hex,
    }


def _began(process: object) -> str:
    """When a process of this machine began (in ticks since the boot); "" where it is gone, also as a zombie."""
    fields = _text(f"/proc/{process}/stat").rpartition(")")[2].split()
    if fields:
        return "" if fields[0] in "ZX" else fields[19]
    if Path("/proc/self/stat").exists():
        return ""
    try:  # no /proc: not by os.kill(number, 0), which on Windows ends the process
        return str(psutil.Process(int(str(process))).create_time())
    except (psutil.Error, ValueError):
        return ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _modified(path: Path) -> float | None:
    """When a file was last touched; opening it first makes a network file system ask its server."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return None


def _now(path: Path) -> float:
    """The time by the clock that stamps files in this folder."""
    probe = path.with_name(f"{NAME}.{uuid.uuid4().hex}.now")
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _shown(held: dict[str, Any] | None) -> str:
    return f"process {held.get('process', '?')} on {held.get('host', '?')}" if held else "its lock says not which"
