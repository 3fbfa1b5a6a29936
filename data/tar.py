"""One tar shard: where each sample's members lie in it, reading them at random, writing one.

A sample is a run of members with one key; a member is called KEY.FIELD, the key ends at the first dot of the
file's name (webdataset's convention). The index beside a shard, SHARD.idx, spares the walk through its headers.

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

import numpy as np

from data.errors import UserError

BROKEN = "."  # the field of a sample that stands for what is lost of a shard; its key says why. No member is called so
BLOCK = 512  # bytes; an archive ends with blocks of zeros


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
            with np.load(path, allow_pickle=False) as found:
                keys, fields = (found[n].tobytes().decode().split("\n") for n in ("keys", "fields"))
                index = cls(keys, fields, found["offset"], found["size"])
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise UserError(f"{path}: not an index of a shard ({error}); remove it and it is made anew") from error
        if index.offset.shape != (len(keys), len(fields)) or index.size.shape != index.offset.shape:
            raise UserError(f"{path}: an index of another shape; remove it and it is made anew")
        return index

    def read(self, file: int, number: int) -> dict[str, bytes]:
        """Members of sample `number` of the open file, by field, in one read. UserError when the file is shorter."""
        offset, size = self.offset[number], self.size[number]
        has = np.flatnonzero(offset >= 0).tolist()
        if self.fields[has[0]] == BROKEN:
            raise UserError(self.keys[number])
        start = min(int(offset[i]) for i in has)
        stop = max(int(offset[i] + size[i]) for i in has)
        raw = os.pread(file, stop - start, start)
        if len(raw) < stop - start:
            raise UserError(f"sample {self.keys[number]}: the shard ends within it; fetch or write the shard anew")
        return {self.fields[i]: raw[int(offset[i]) - start : int(offset[i] + size[i]) - start] for i in has}


def split_name(name: str) -> tuple[str, str]:
    """'a/b.c/img.left.jpg' -> ('a/b.c/img', 'left.jpg')."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return folder + slash + stem, ending


def members(path: Path) -> Iterator[tuple[str, int, int]]:
    """(name, offset of the data, size) of every ordinary file. UserError when the archive is cut off or none."""
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.isfile() and not member.name.rpartition("/")[2].startswith("."):
                    yield member.name, member.offset_data, member.size
            end = archive.offset
    except (tarfile.TarError, EOFError, ValueError) as error:
        hint = "; unpack it first (a compressed tar has no places to jump to)" if path.suffix in (".gz", ".tgz") else ""
        raise UserError(f"{path}: not a whole tar archive ({error}){hint}") from error
    with path.open("rb") as file:  # tarfile takes a broken header in the middle for the end
        file.seek(end)
        if file.read(BLOCK) != bytes(BLOCK):
            raise UserError(f"{path}: not a whole tar archive (it is cut off or damaged at byte {end})")


def scan(path: Path, lenient: bool = False) -> TarIndex:
    """The index of a tar, from its headers. UserError where it is not whole; lenient: see above."""
    samples: list[tuple[str, dict[str, tuple[int, int]]]] = []
    length = path.stat().st_size
    try:
        for name, offset, size in members(path):
            if offset + size > length:
                raise UserError(f"{path}: the archive ends within {name}; fetch or write it anew")
            key, field = split_name(name)
            if not field:
                continue
            if not samples or samples[-1][0] != key or field in samples[-1][1]:
                samples.append((key, {}))
            samples[-1][1][field] = (offset, size)
    except UserError as error:
        if not lenient:
            raise
        # the last sample may lack members that stood behind the break
        samples = [*samples[:-1], (str(error).replace("\n", " "), {BROKEN: (0, 0)})]
    if not samples:
        raise UserError(f"{path}: holds no sample (members must be called KEY.FIELD, such as 0001.jpg)")
    fields = sorted({field for _, held in samples for field in held})
    offset_array = np.full((len(samples), len(fields)), -1, dtype=np.int64)
    size_array = np.zeros_like(offset_array)
    for row, (_, held) in enumerate(samples):
        for field, (offset, size) in held.items():
            column = fields.index(field)
            offset_array[row, column], size_array[row, column] = offset, size
    return TarIndex([key for key, _ in samples], fields, offset_array, size_array)


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
