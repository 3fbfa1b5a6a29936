"""Any source -> tar shards with an index and checksums; parallel, and resumable after a kill.

A shard is whole or not there (written aside, then renamed). A run that was cut off goes on with the shards that are
missing; the same records, seed and size of shards give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
from generalist.data.files.remote import checksum
from generalist.data.files.tar import scan, write_tar
from generalist.data.media.codec import encode, plain
from generalist.data.stream.order import permutation
from generalist.data.stream.source import Record, Records, Source


@dataclass(frozen=True)
class Plan:
    """What is written: a split of a source in shards of `per` samples, shuffled by `shuffle` (None = as they come).

    skip: leave out records that cannot be read (they are listed in the index) instead of stopping.
    """

    source: Source
    split: str
    out: Path
    per: int = 1000
    shuffle: int | None = 0
    skip: bool = False

    def __post_init__(self) -> None:
        if self.per < 1:
            raise UserError(f"a shard needs at least 1 sample, got {self.per}")

    @property
    def folder(self) -> Path:
        return self.out / self.split

    def mark(self, count: int) -> str:
        """A hash of what decides the bytes."""
        return hashlib.sha256(f"{self.source!r} {self.split} {self.per} {self.shuffle} {count}".encode()).hexdigest()


def pack_record(number: int, record: Record) -> tuple[str, dict[str, bytes]]:
    """(key, members): arrays, pictures and files as members of their own, the rest in one JSON."""
    small: dict[str, Any] = {}
    held: dict[str, bytes] = {}
    for name, value in record.items():
        if "." in name or "/" in name:
            raise UserError(f"field {name!r}: a field's name in a shard must not hold '.' or '/'; rename it")
        found = encode(value)
        if found is None:
            small[name] = plain(value)
        else:
            held[f"{name}.{found[0]}"] = found[1]
    try:
        text = json.dumps(small, ensure_ascii=False)
    except TypeError as error:
        raise UserError(f"a field holds what JSON cannot ({error})") from error
    return f"{number:09d}", {"json": text.encode(), **held}


def write_shard(plan: Plan, records: Records, at: int) -> dict[str, Any]:
    """Write shard number `at` where it is not there; its line of the index."""
    name = f"{at:06d}.tar"
    path, done = plan.folder / name, plan.folder / f"{name}.done"
    if done.is_file() and path.is_file() and (plan.folder / f"{name}.idx").is_file():
        line = json.loads(done.read_text())
        if path.stat().st_size == line["filesize"]:
            return line
    count = len(records)
    numbers: Any = range(count) if plan.shuffle is None else permutation(plan.shuffle, plan.split, 0, count)
    skipped: list[str] = []

    def samples() -> Iterator[tuple[str, dict[str, bytes]]]:
        for place in range(at * plan.per, min((at + 1) * plan.per, count)):
            number = int(numbers[place])
            try:
                yield pack_record(place, records[number])
            except UserError as error:
                if not plan.skip:
                    raise UserError(f"record {number}: {error} (--skip would leave it out and list it)") from error
                skipped.append(f"record {number}: {error}")

    partial = path.with_name(f"{name}.partial")
    written = write_tar(partial, samples())
    line = {"url": name, "nsamples": written, "filesize": partial.stat().st_size, "sha256": checksum(partial)}
    if written:
        scan(partial).save(plan.folder / f"{name}.idx")
        os.replace(partial, path)
    else:
        partial.unlink()
    line["skipped"] = skipped
    _write(done, line)
    return line


def _write(path: Path, value: Any) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=1, ensure_ascii=False))
    os.replace(partial, path)


_opened: dict[str, Records] = {}  # one a worker process: opening a source may take seconds


def _in_worker(plan: Plan, at: int) -> dict[str, Any]:
    key = plan.mark(0)
    if key not in _opened:
        _opened[key] = plan.source.open(plan.split)
    return write_shard(plan, _opened[key], at)


def write_split(
    plan: Plan, workers: int = 1, overwrite: bool = False, progress: Callable[[int, int], Any] = lambda done, of: None
) -> dict[str, Any]:
    """Write all shards of a split and its index.json; the index. `progress` sees (shards done, shards in all).

    UserError when the folder holds another plan's shards, unless `overwrite`.
    """
    records = plan.source.open(plan.split)
    count = len(records)
    if not count:
        raise UserError(f"split {plan.split!r} is empty; nothing to write")
    plan.folder.mkdir(parents=True, exist_ok=True)
    note, index = plan.folder / "plan.json", plan.folder / "index.json"
    mark = plan.mark(count)
    if note.is_file() and json.loads(note.read_text()).get("mark") != mark:
        if not overwrite:
            raise UserError(
                f"{plan.folder} holds shards of another source, order or size; --overwrite replaces them, "
                "another OUT keeps both"
            )
        for old in plan.folder.glob("*.tar*"):
            old.unlink()
        index.unlink(missing_ok=True)
    _write(
        note, {"mark": mark, "source": repr(plan.source), "samples": count, "per": plan.per, "shuffle": plan.shuffle}
    )
    total = -(-count // plan.per)
    lines: dict[int, dict[str, Any]] = {}
    if workers <= 1:
        for at in range(total):
            lines[at] = write_shard(plan, records, at)
            progress(len(lines), total)
    else:
        with ProcessPoolExecutor(min(workers, total), mp_context=get_context("spawn")) as pool:
            waiting = {pool.submit(_in_worker, plan, at): at for at in range(total)}
            try:
                for future in as_completed(waiting):
                    lines[waiting[future]] = future.result()
                    progress(len(lines), total)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return _finish(plan, records, [lines[at] for at in range(total)])


def _finish(plan: Plan, records: Records, lines: list[dict[str, Any]]) -> dict[str, Any]:
    info = {}
    for name, value in records.info.items():
        try:
            json.dumps(plain(value))
            info[name] = plain(value)
        except TypeError:
            continue  # what a source knows besides JSON values stays with the source
    found: dict[str, Any] = {
        "wids_version": 1,
        "name": plan.split,
        "shardlist": [{k: v for k, v in line.items() if k != "skipped"} for line in lines if line["nsamples"]],
        "info": info,
        "skipped": [text for line in lines for text in line["skipped"]],
    }
    if not found["shardlist"]:
        raise UserError(f"split {plan.split!r}: no record can be read; the first: {found['skipped'][0]}")
    _write(plan.folder / "index.json", found)
    return found
