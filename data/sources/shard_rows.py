"""The samples of tar shards by number: index and checksums looked at, members read where they lie or fetched whole."""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
from generalist.data.files import remote
from generalist.data.files.cache import SizedCache, content_key
from generalist.data.files.tar import RULE, TarIndex, scan
from generalist.data.media.codec import decode
from generalist.data.stream.source import Record

OPEN = 128  # shards that a process keeps open
WINDOW = 16  # shards from afar whose samples are mixed


@dataclass(frozen=True)
class Shard:
    """One shard: its address, its samples, and its bytes and SHA-256 where they are known (0 and "" otherwise)."""

    place: str
    samples: int
    bytes: int = 0
    sha256: str = ""


def check_bytes(shard: Shard, path: Path) -> None:
    """UserError where a shard's file is not the one that its index tells of."""
    size = path.stat().st_size
    if shard.bytes and size != shard.bytes:
        raise UserError(f"{shard.place}: {size} bytes came, the index says {shard.bytes}")
    if shard.sha256 and remote.checksum(path) != shard.sha256:
        raise UserError(f"{shard.place}: its checksum is not that of the index; write or upload it anew")


class ShardRows(Sequence[Record]):
    """Records of shards by number, numbered through the shards. Pickles without its open files."""

    def __init__(self, shards: Sequence[Shard], store: SizedCache, fields: dict[str, str], retries: int = 4) -> None:
        self.shards, self.store, self.fields, self.retries = list(shards), store, fields, retries
        self.remote = any(remote.is_remote(s.place) for s in shards)
        self.ends: list[int] = []
        for shard in shards:
            self.ends.append((self.ends[-1] if self.ends else 0) + shard.samples)
        self._open: OrderedDict[int, tuple[int, TarIndex]] = OrderedDict()
        self._ahead: tuple[ThreadPoolExecutor, set[int]] | None = None
        self._wrong: dict[int, str] = {}  # local shards that are not what their index says, and why

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict(), "_ahead": None}

    def __del__(self) -> None:
        for handle, _ in self.__dict__.get("_open", {}).values():
            with contextlib.suppress(OSError):
                os.close(handle)

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        key, held = self.raw(number)
        record: Record = {"id": key}
        if "json" in held:
            found = decode("json", held.pop("json"))
            record |= found if isinstance(found, dict) else {"json": found}
        for name, member in self.fields.items():
            # "jpg", or "image.jpg" as `generalist data shard` calls the field image
            endings = member.split(";")
            chosen = next((m for m in [*endings, *(f"{name}.{e}" for e in endings)] if m in held), None)
            if chosen is not None:
                record[name] = decode(chosen, held[chosen])
            elif member in record:
                record[name] = record[member]
        if not self.fields:
            # "image.jpg" is the field image; a bare "jpg" goes by its ending
            record |= {name.rpartition(".")[0] or name: decode(name, raw) for name, raw in held.items()}
        return record

    def raw(self, number: int) -> tuple[str, dict[str, bytes]]:
        """(key, {member: bytes}) of a sample."""
        if number < 0:
            number += len(self)
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        at = bisect_right(self.ends, number)
        file, index = self.shard(at)
        row = number - (self.ends[at] - self.shards[at].samples)
        return index.keys[row], index.read(file, row)

    def shard(self, at: int) -> tuple[int, TarIndex]:
        """The open file and the index of a shard."""
        if at in self._open:
            self._open.move_to_end(at)
            return self._open[at]
        for last in (False, False, True):
            path = self.local(at)
            try:
                file = os.open(path, os.O_RDONLY)
                break
            except FileNotFoundError as error:  # evicted by another process since it was fetched
                if last or not remote.is_remote(self.shards[at].place):
                    raise UserError(f"no shard {path}; is the folder complete?") from error
        if not remote.is_remote(self.shards[at].place):
            self._check(at, path)
        index = self._index(at, path)
        if self.shards[at].samples and len(index) != self.shards[at].samples:
            raise UserError(
                f"{self.shards[at].place}: {len(index)} samples, its index says {self.shards[at].samples}; "
                "write it anew"
            )
        while len(self._open) >= OPEN:
            os.close(self._open.popitem(last=False)[1][0])
        self._open[at] = (file, index)
        return file, index

    def local(self, at: int) -> Path:
        """The shard on this machine's disk, fetched and checked where it is not there."""
        shard = self.shards[at]
        if not remote.is_remote(shard.place):
            return Path(shard.place)
        return self.store.get(f"{content_key(shard.place, shard.sha256)}.tar", lambda path: self._fetch(shard, path))

    def _fetch(self, shard: Shard, path: Path) -> None:
        sure = remote.fetch(shard.place, path, self.retries)
        check_bytes(shard, path)
        if not sure and not shard.sha256:  # a tar ends with zeros: it can be told whether this one does
            scan(path)

    def _check(self, at: int, path: Path) -> None:
        """UserError where a local shard is not what its index says; read whole once, as long as it stays unchanged."""
        shard = self.shards[at]
        if at in self._wrong:
            raise UserError(self._wrong[at])
        if not shard.sha256:
            return
        key = f"{content_key(str(path.resolve()), state_of_file(str(path)), shard.sha256)}.whole"
        try:
            self.store.get(key, lambda target: check_bytes(shard, path))
        except UserError as error:
            self._wrong[at] = str(error)
            raise

    def _index(self, at: int, path: Path) -> TarIndex:
        beside = path.with_name(path.name + ".idx")
        if beside.is_file():
            return TarIndex.load(beside)
        key = f"{content_key(RULE, self.shards[at].place, state_of_file(str(path)))}.idx"
        return TarIndex.load(self.store.get(key, lambda target: scan(path, lenient=True).save(target)))

    def prefetch(self, numbers: Iterable[int]) -> None:
        """Begin to fetch the shards of these samples, where they are far away."""
        if not self.remote:
            return
        if self._ahead is None:
            self._ahead = (ThreadPoolExecutor(2), set())
        pool, asked = self._ahead
        for at in {bisect_right(self.ends, n) for n in numbers} - asked - self._open.keys():
            asked.add(at)

            def fetch(at: int = at) -> None:
                with contextlib.suppress(UserError):  # whoever needs the shard meets the error again
                    self.local(at)
                asked.discard(at)

            pool.submit(fetch)


def state_of_file(path: str) -> str:
    try:
        state = os.stat(path)
    except OSError as error:
        raise UserError(f"no shard {path} ({error.strerror})") from error
    return f"{state.st_size}:{state.st_mtime_ns}"
