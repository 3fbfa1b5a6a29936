"""One tar shard: where each sample's members lie in it, reading them at random, writing one.

A sample is the members with one key; a member is called KEY.FIELD, the key ends at the first dot of the file's name
(webdataset's convention; `split_name` says what of names with more dots). The index beside a shard, SHARD.idx, spares
the walk through its headers.

A shard that is cut off, damaged or no archive at all may be indexed with what is whole in it and one sample more that
cannot be read: whoever meets that sample counts the loss like any other broken sample, and nothing is lost in silence.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError
from generalist.data.base.files import plain_name
from generalist.data.base.limits import MB, limits, over
from generalist.data.media import arrays

BROKEN = "."  # the field of a sample that stands for what is lost of a shard; its key says why. No member is called so
BLOCK = 512  # bytes; an archive ends with blocks of zeros
APART = 16 * BLOCK  # bytes of headers that a sample may have between its members
MANY = 8  # kinds of members with a dot in their name from which they may be names of samples
RULE = "2"  # of how members become samples: an index that was kept under another rule is made anew


@dataclass
class TarIndex:
    """keys: one a sample; fields: the kinds of members. offset, size: int64 [samples, fields], -1 = has none."""

    keys: list[str]
    fields: list[str]
    offset: np.ndarray
    size: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def whole(self) -> int:
        """How many samples can be read."""
        lost = (self.offset[:, self.fields.index(BROKEN)] >= 0).sum() if BROKEN in self.fields else 0
        return len(self) - int(lost)

    def save(self, path: Path) -> None:
        partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
        with partial.open("wb") as file:
            np.savez(
                file,
                keys=np.frombuffer("\n".join(self.keys).encode(), dtype=np.uint8),
                fields=np.frombuffer("\n".join(self.fields).encode(), dtype=np.uint8),
                offset=self.offset,
                size=self.size,
            )
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> TarIndex:
        try:
            found = arrays.load_archive(path, str(path), limit="table_mb")
            keys, fields = (found[n].tobytes().decode().split("\n") for n in ("keys", "fields"))
            index = cls(keys, fields, found["offset"], found["size"])
        except Exception as error:  # bytes that are no text, arrays that are not there
            raise UserError(f"{path}: not an index of a shard ({error}); remove it and it is made anew") from error
        if index.offset.shape != (len(keys), len(fields)) or index.size.shape != index.offset.shape:
            raise UserError(f"{path}: an index of another shape; remove it and it is made anew")
        return index

    def read(self, file: int, number: int) -> dict[str, bytes]:
        """Members of sample `number` of the open file, by field, in one read where they lie together.

        UserError when the file is shorter.
        """
        offset, size = self.offset[number], self.size[number]
        has = np.flatnonzero(offset >= 0).tolist()
        if self.fields[has[0]] == BROKEN:
            raise UserError(self.keys[number])
        start = min(int(offset[i]) for i in has)
        stop = max(int(offset[i] + size[i]) for i in has)
        if stop - start > 2 * int(size[has].sum()) + APART:  # members that lie apart are read one by one
            return {self.fields[i]: self._piece(file, number, int(offset[i]), int(size[i])) for i in has}
        raw = self._piece(file, number, start, stop - start)
        return {self.fields[i]: raw[int(offset[i]) - start : int(offset[i] + size[i]) - start] for i in has}

    def _piece(self, file: int, number: int, start: int, size: int) -> bytes:
        if start < 0 or start + size > os.fstat(file).st_size:
            raise UserError(f"sample {self.keys[number]}: the shard ends within it; fetch or write the shard anew")
        if size > limits().member_mb * MB:
            raise over(f"sample {self.keys[number]}", "member_mb", f"{size / MB:,.0f} MB")
        raw = os.pread(file, size, start)
        if len(raw) < size:
            raise UserError(f"sample {self.keys[number]}: the shard ends within it; fetch or write the shard anew")
        return raw


def split_name(name: str, last: bool = False) -> tuple[str, str]:
    """'a/b.c/img.left.JPG' -> ('a/b.c/img', 'left.jpg').

    The key ends at the first dot that no number follows ('clip_0.5s.jpg' is 'jpg' of 'clip_0.5s'), or, with `last`, at
    the last dot. Endings are in lower case.
    """
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, *parts = base.split(".")
    while len(parts) > 1 and (last or not parts[0] or parts[0][0].isdigit()):
        stem += "." + parts.pop(0)
    if parts:
        parts[-1] = parts[-1].lower()
    return folder + slash + stem, ".".join(parts)


def members(path: Path) -> Iterator[tuple[str, int, int]]:
    """(name, offset of the data, size) of every ordinary file, also behind the end of a first archive.

    `cat one.tar two.tar` and `tar --append` by some tools leave blocks of zeros in the middle. UserError when the
    archive is cut off or none.
    """
    length = path.stat().st_size
    with path.open("rb") as file:
        start = 0
        while True:
            file.seek(start)
            try:
                with tarfile.open(fileobj=file, mode="r:") as archive:
                    for member in archive:
                        if member.isfile() and not member.name.rpartition("/")[2].startswith("."):
                            yield plain_name(member.name), member.offset_data, member.size
                    end = archive.offset
            except (tarfile.TarError, EOFError, ValueError) as error:
                compressed = path.suffix in (".gz", ".tgz")
                hint = "; unpack it first (a compressed tar has no places to jump to)" if compressed else ""
                raise UserError(f"{path}: not a whole tar archive ({error}){hint}") from error
            file.seek(end)
            if file.read(BLOCK) != bytes(BLOCK):  # tarfile takes a broken header in the middle for the end
                raise UserError(f"{path}: not a whole tar archive (it is cut off or damaged at byte {end})")
            start = _behind_zeros(file, length)
            if start == length:
                return


def _behind_zeros(file: Any, length: int) -> int:
    """Where blocks that are not zero begin again, from where the file stands; its length where there are none."""
    while piece := file.read(BLOCK * 2048):
        if rest := len(piece.lstrip(b"\0")):
            return (file.tell() - rest) // BLOCK * BLOCK
    return length


def scan(path: Path, lenient: bool = False) -> TarIndex:
    """The index of a tar, from its headers. UserError where it is not whole; lenient: see above."""
    found: list[tuple[str, int, int]] = []
    length, broken = path.stat().st_size, ""
    try:
        for name, offset, size in members(path):
            if offset + size > length:
                raise UserError(f"{path}: the archive ends within {name}; fetch or write it anew")
            found.append((name, offset, size))
    except UserError as error:
        if not lenient:
            raise
        broken = str(error).replace("\n", " ")
    samples = grouped(found)
    if broken:  # the last sample may lack members that stood behind the break
        samples = [*samples[:-1], (broken, {BROKEN: (0, 0)})]
    if not samples:
        raise UserError(f"{path}: holds no sample (members must be called KEY.FIELD, such as 0001.jpg)")
    fields = sorted({field for _, held in samples for field in held})
    column = {field: at for at, field in enumerate(fields)}
    offset_array = np.full((len(samples), len(fields)), -1, dtype=np.int64)
    size_array = np.zeros_like(offset_array)
    for row, (_, held) in enumerate(samples):
        for field, (offset, size) in held.items():
            offset_array[row, column[field]], size_array[row, column[field]] = offset, size
    return TarIndex([key for key, _ in samples], fields, offset_array, size_array)


def grouped(found: list[tuple[str, int, int]]) -> list[tuple[str, dict[str, tuple[int, int]]]]:
    """Members (name, offset, size) -> samples (key, {field: (offset, size)}) in the order of their first members.

    Members of a key that lie apart are one sample where no field of theirs stands twice. Where one does (two archives
    with the same numbers in one), every run of members is a sample of its own, and nothing is lost.
    """
    last = _names_end_at_the_last_dot([name for name, _, _ in found])
    runs: list[tuple[str, dict[str, tuple[int, int]]]] = []
    for name, offset, size in found:
        key, field = split_name(name, last)
        if not field:
            continue
        if not runs or runs[-1][0] != key or field in runs[-1][1]:
            runs.append((key, {}))
        runs[-1][1][field] = (offset, size)
    by_key: dict[str, list[dict[str, tuple[int, int]]]] = {}
    for key, held in runs:
        by_key.setdefault(key, []).append(held)
    apart = {key for key, parts in by_key.items() if sum(map(len, parts)) == len(set().union(*parts))}
    samples, done = [], set()
    for key, held in runs:
        if key not in apart:
            samples.append((key, held))
        elif key not in done:
            done.add(key)
            samples.append((key, {field: place for part in by_key[key] for field, place in part.items()}))
    return samples


def _names_end_at_the_last_dot(names: list[str]) -> bool:
    """Whether names have dots of their own: by the usual rule nearly every sample would have fields of its own."""
    first = [field for _, field in map(split_name, names) if field]
    dotted = {field for field in first if "." in field}
    return len(dotted) > MANY and len(dotted) > len([f for f in first if "." in f]) / 4


def write_tar(path: Path, samples: Iterable[tuple[str, dict[str, bytes]]]) -> int:
    """Write (key, {field: bytes}) as a tar whose bytes depend on nothing else; the number of samples."""
    count = 0
    with tarfile.open(path, "w:", format=tarfile.USTAR_FORMAT) as archive:
        for key, held in samples:
            count += 1
            for field, raw in held.items():
                info = tarfile.TarInfo(f"{key}.{field}")
                info.size, info.mtime, info.mode = len(raw), 0, 0o644
                archive.addfile(info, io.BytesIO(raw))
    return count
