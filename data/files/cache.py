"""A folder of files by key with a limit on its size: the least recently used are removed first.

Used for shards fetched from afar and for decoded samples by the hash of their content. Several processes may
share one folder: files appear whole (written aside, then renamed) and one file is made once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from generalist.data.base.errors import UserError

KEEP = 0.9  # what an eviction leaves, so that not every new file evicts


def default_folder() -> Path:
    """GENERALIST_CACHE, or "generalist" under the user's cache folder."""
    found = os.environ.get("GENERALIST_CACHE")
    if found:
        return Path(found)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "generalist"


def content_key(*parts: bytes | str) -> str:
    """A file name for some content: 40 hex digits of its hash."""
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()


@dataclass
class SizedCache:
    """limit: bytes that the files may take together, 0 = no limit; small=True for many small files.

    Small files are made without a lock (two processes may then make the same one, and the later one stays) and
    the folder is measured only after every limit / 50 written bytes.
    """

    folder: Path
    limit: int = 0
    small: bool = False

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        self._written = 0
        if self.limit < 0:
            raise UserError(f"cache {self.folder}: the limit of {self.limit} bytes must not be negative")

    def place(self, key: str) -> Path:
        """Where a key's file is or would be."""
        return self.folder / key[:2] / key if self.small else self.folder / key

    def get(self, key: str, make: Callable[[Path], object]) -> Path:
        """The file of `key`; `make(path)` writes it where it is not there. Marks it as used."""
        path = self.place(key)
        if self._touched(path):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.small:
            self._make(path, make)
            return path
        with FileLock(path.with_name(path.name + ".lock")):
            if not self._touched(path):  # another process may have made it while this one waited
                self._make(path, make)
        return path

    @staticmethod
    def _touched(path: Path) -> bool:
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def _make(self, path: Path, make: Callable[[Path], object]) -> None:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".making-")
        os.close(handle)
        partial = Path(name)
        try:
            make(partial)
            size = partial.stat().st_size
            os.replace(partial, path)
        except OSError as error:
            raise UserError(f"cache {self.folder}: cannot write {path.name} ({error.strerror or error})") from error
        finally:
            partial.unlink(missing_ok=True)
        self._written += size
        if self.limit and (not self.small or self._written * 50 >= self.limit):
            self._written = 0
            self.evict(keep=path)

    def files(self) -> list[tuple[float, int, Path]]:
        """(last use, bytes, path) of every whole file, the least recently used first."""
        found = []
        for path in self.folder.rglob("*") if self.folder.is_dir() else ():
            if path.name.startswith(".making-") or path.suffix == ".lock":
                continue
            with contextlib.suppress(OSError):
                state = path.stat()
                if path.is_file():
                    found.append((state.st_mtime, state.st_size, path))
        return sorted(found)

    def size(self) -> int:
        return sum(size for _, size, _ in self.files())

    def evict(self, keep: Path | None = None) -> int:
        """Bring the folder under its limit; the number of files removed. A file in use stays readable to its reader."""
        files, removed = self.files(), 0
        total = sum(size for _, size, _ in files)
        if total <= self.limit:
            return 0
        for _, size, path in files:
            if total <= self.limit * KEEP:
                break
            if path != keep:
                with contextlib.suppress(OSError):
                    path.unlink()
                    total, removed = total - size, removed + 1
        return removed
