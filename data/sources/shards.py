"""Tar shards as a source: read at random on a local disk, fetched whole into a limited cache from afar.

    Shards("shards/birds")                                     what `generalist data shard` wrote
    Shards("https://host/birds", lanes=8)                      the same behind a server or in an object store
    Shards(splits={"train": "s3://bucket/cc-{0000..0331}.tar"}, fields={"image": "jpg;png", "text": "txt"})

A folder of shards holds SPLIT/index.json (webdataset's wids format, with checksums), SPLIT/000000.tar ... and an
index beside each shard. Shards of others have no index: it is made at the first opening and kept in the cache.
What is broken in a shard is met, and counted, as a sample that cannot be read (data/files/tar.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError, nearest, told
from generalist.data.base.limits import limits, over
from generalist.data.base.trust import check_place
from generalist.data.files import remote
from generalist.data.files.cache import SizedCache, content_key, default_folder
from generalist.data.files.tar import RULE
from generalist.data.media import jsons
from generalist.data.sources.folder import refuse_unfinished
from generalist.data.sources.shard_rows import WINDOW, Shard, ShardRows, state_of_file
from generalist.data.stream.order import ShardOrder
from generalist.data.stream.source import Records


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

        marks = [p if remote.is_remote(p) else f"{p}:{state_of_file(p)}" for p in places]
        kept = json.loads(store.get(f"{content_key(RULE, *marks)}.index.json", make).read_text())["shardlist"]
        return {"shardlist": [s | {"url": place} for s, place in zip(kept, places, strict=True)]}


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
