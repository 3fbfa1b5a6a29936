"""Tar shards as a source: read at random on a local disk, fetched whole into a limited cache from afar.

    Shards("shards/birds")                                     what `generalist data shard` wrote
    Shards("https://host/birds", lanes=8)                      the same behind a server or in an object store
    Shards(splits={"train": "s3://bucket/cc-{0000..0331}.tar"}, fields={"image": "jpg;png", "text": "txt"})

A folder of shards holds SPLIT/index.json (webdataset's wids format, with checksums), SPLIT/000000.tar ... and an
index beside each shard. Shards of others have no index: it is made at the first opening and kept in the cache.
What is broken in a shard is met, and counted, as a sample that cannot be read (data/files/tar.py).
"""

from __future__ import annotations

import contextlib
import json
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError, nearest, told
from generalist.data.base.limits import limits, over
from generalist.data.base.trust import check_place
from generalist.data.files import remote
from generalist.data.files.cache import SizedCache, content_key, default_folder
from generalist.data.files.tar import RULE, TarIndex, scan
from generalist.data.media import jsons
from generalist.data.media.codec import decode
from generalist.data.sources.folder import refuse_unfinished
from generalist.data.stream.order import ShardOrder
from generalist.data.stream.source import Record, Records

OPEN = 128  # shards that a process keeps open
WINDOW = 16  # shards from afar whose samples are mixed


@dataclass(frozen=True)
class Shard:
    """One shard: its address, its samples, and its bytes and SHA-256 where they are known (0 and "" otherwise)."""

    place: str
    samples: int
    bytes: int = 0
    sha256: str = ""


@dataclass
class Shards:
    """path: a folder or address that holds SPLIT/index.json; or splits: {split: address or addresses of tars}, with
    {0000..0331} for a row of numbers and pipe:COMMAND for the output of a command.

    fields: {name in the record: name of the member}, several as "jpg;png"; empty: the members' own names.
    window: shards whose samples are mixed, 0 = all on a local disk and 16 from afar. lanes: see `ShardOrder`; a
    multiple of the number of processes, so that each reads its own shards. cache: folder for fetched shards
    (default: GENERALIST_CACHE or the user's cache folder), cache_gb: its limit. retries: further tries of a fetch.
    """

    path: str = ""
    splits: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    classes: list[str] | None = None
    window: int = 0
    lanes: int = 1
    cache: str = ""
    cache_gb: float = 50.0
    retries: int = 4

    def __post_init__(self) -> None:
        self.path = str(self.path)
        if bool(self.path) == bool(self.splits):
            raise UserError("shards: give either the path of a folder of shards or splits={'train': addresses}")
        for place in [self.path, *(p for given in self.splits.values() for p in written_out(given))]:
            check_place(place)

    def store(self) -> SizedCache:
        folder = Path(self.cache) if self.cache else default_folder() / "shards"
        return SizedCache(folder, int(self.cache_gb * 1e9))

    def open(self, split: str) -> Records:
        index = self._written(split) if self.path else self._foreign(split)
        shards = [
            Shard(remote.join(self._folder(split), s["url"]), s["nsamples"], s.get("filesize", 0), s.get("sha256", ""))
            for s in index["shardlist"]
            if s["nsamples"]
        ]
        if not shards:
            raise UserError(f"shards {self.path or self.splits}: split {split!r} holds no samples")
        rows = ShardRows(shards, self.store(), dict(self.fields), self.retries)
        info = dict(index.get("info", {})) | ({"classes": self.classes} if self.classes else {})
        window = self.window or (WINDOW if rows.remote else len(shards))
        return Records(rows, info, ShardOrder(tuple(s.samples for s in shards), window, self.lanes))

    def _folder(self, split: str) -> str:
        return remote.join(self.path, split) if self.path else ""

    def _written(self, split: str) -> dict[str, Any]:
        """The index that stands beside the shards."""
        place = remote.join(self._folder(split), "index.json")
        if remote.is_remote(place):
            # not from the cache: the index says which shards there are now
            target = self.store().folder / f"{content_key(place)}.index.json"
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f"{target.name}.{os.getpid()}")
            try:
                remote.fetch(place, partial, self.retries)
                os.replace(partial, target)
            finally:
                partial.unlink(missing_ok=True)
        else:
            target = Path(place)
            if not target.is_file():
                refuse_unfinished(target.parent)
                have = sorted(p.parent.name for p in Path(self.path).glob("*/index.json"))
                hint = nearest(split, have) if have else "write it with generalist data shard SRC OUT"
                raise UserError(f"shards {self.path}: no split {split!r} (no {split}/index.json); {hint}")
        try:
            found = jsons.load(target, "index")
            assert all(isinstance(s["url"], str) and s["nsamples"] >= 0 for s in found["shardlist"])
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            raise UserError(f"{place}: not an index of shards; write it anew with generalist data shard") from error
        for shard in found["shardlist"]:
            check_place(shard["url"], str(place))
            if remote.is_remote(place) and (shard["url"].startswith(("file:", "/"))):
                raise UserError(
                    f"{place} names the file {shard['url'][:80]!r} of this machine; an index from afar may not"
                )
        return found

    def _foreign(self, split: str) -> dict[str, Any]:
        """The index of shards that came without one, made at the first opening."""
        if split not in self.splits:
            raise UserError(f"shards: no split {split!r}; {nearest(split, self.splits)}")
        places = expand(self.splits[split])
        store = self.store()

        def make(path: Path) -> None:
            rows = ShardRows([Shard(p, 0) for p in places], store, {}, self.retries)
            found = [{"url": p, "nsamples": len(rows.shard(i)[1])} for i, p in enumerate(places)]
            if not any(rows.shard(i)[1].whole for i in range(len(places))):  # say of the first why
                file, index = rows.shard(0)
                index.read(file, 0)
            path.write_text(json.dumps({"wids_version": 1, "shardlist": found}))

        marks = [p if remote.is_remote(p) else f"{p}:{_state(p)}" for p in places]
        kept = json.loads(store.get(f"{content_key(RULE, *marks)}.index.json", make).read_text())["shardlist"]
        return {"shardlist": [s | {"url": place} for s, place in zip(kept, places, strict=True)]}


def _state(path: str) -> str:
    try:
        state = os.stat(path)
    except OSError as error:
        raise UserError(f"no shard {path} ({error.strerror})") from error
    return f"{state.st_size}:{state.st_mtime_ns}"


def written_out(places: str | list[str]) -> Iterator[str]:
    """Addresses with their {0000..0331} and {a,b} written out. UserError where there are too many of them."""
    from braceexpand import braceexpand

    count = 0
    for place in [places] if isinstance(places, str) else places:
        for one in braceexpand(place):
            count += 1
            if count > limits().shards:
                raise over(f"shards {told(place)}", "shards", "more addresses")
            yield one


def expand(places: str | list[str]) -> list[str]:
    """The same as a list; those of a local pattern with * in order."""
    from glob import glob

    found: list[str] = []
    for one in written_out(places):
        found += sorted(glob(one)) if "*" in one and not remote.is_remote(one) else [one]
    if not found:
        raise UserError(f"shards: no file matches {places}")
    return found


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
        key = f"{content_key(str(path.resolve()), _state(str(path)), shard.sha256)}.whole"
        try:
            self.store.get(key, lambda target: check_bytes(shard, path))
        except UserError as error:
            self._wrong[at] = str(error)
            raise

    def _index(self, at: int, path: Path) -> TarIndex:
        beside = path.with_name(path.name + ".idx")
        if beside.is_file():
            return TarIndex.load(beside)
        key = f"{content_key(RULE, self.shards[at].place, _state(str(path)))}.idx"
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
