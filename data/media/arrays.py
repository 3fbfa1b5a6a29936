"""Arrays in .npy and .npz: what their headers claim is compared with what is there before it is made."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from generalist.data.base.errors import UserError, one_line
from generalist.data.base.files import check_regular
from generalist.data.base.limits import MB, limits, over

PIECE = 2**20  # bytes read at once


def load(source: bytes | str | Path, what: str) -> np.ndarray:
    """The array of a .npy. UserError: no ordinary file, not what its header says, Python objects, too large."""
    return _reading(source, what, lambda file: _array(file, _left(file), what))


def load_archive(
    source: bytes | str | Path,
    what: str,
    choose: Callable[[list[str]], list[str]] = lambda names: names,
    limit: str = "array_mb",
) -> dict[str, np.ndarray]:
    """{name: array} of those arrays of a .npz that `choose` picks among their names. UserError as above.

    limit: which of `generalist.data.base.limits` all of them together are held to.
    """
    return _reading(source, what, lambda file: _arrays(file, what, choose, limit))


def _reading(source: bytes | str | Path, what: str, read: Callable[[BinaryIO], Any]) -> Any:
    try:
        if isinstance(source, bytes):
            return read(io.BytesIO(source))
        check_regular(source, what)
        with open(source, "rb") as file:
            return read(file)
    except UserError:
        raise
    except Exception as error:  # headers are Python expressions, archives are zip files: many kinds of errors
        raise UserError(
            f"{what}: not a .npy or .npz that is readable ({type(error).__name__}: {one_line(error)})"
        ) from error


def _left(file: BinaryIO) -> int:
    here = file.tell()
    end = file.seek(0, io.SEEK_END)
    file.seek(here)
    return end - here


def _arrays(file: BinaryIO, what: str, choose: Callable[[list[str]], list[str]], limit: str) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        members = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
        chosen = choose(list(members))
        total = sum(members[name].file_size for name in chosen)
        if total > vars(limits())[limit] * MB:
            raise over(what, limit, f"arrays of {total / MB:,.0f} MB unpacked")
        found = {}
        for name in chosen:
            with archive.open(members[name]) as one:
                found[name] = _array(one, members[name].file_size, f"{what}, array {name!r}", limit)
                one.read(1)  # at the end the checksum is compared
    return found


def _array(file: IO[bytes], size: int, what: str, limit: str = "array_mb") -> np.ndarray:
    """The array of an open .npy of `size` bytes."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise UserError(f"{what}: version {version} of the format; save it again with numpy.save")
    shape, fortran, kind = read(file)
    if kind.hasobject:
        raise UserError(f"{what}: an array of Python objects, which can run code and is not read; use numbers or text")
    claimed = math.prod(shape) * kind.itemsize
    if claimed > vars(limits())[limit] * MB:
        raise over(what, limit, f"its header says {told_shape(shape)} of {kind}, {claimed / MB:,.0f} MB")
    if claimed > size:
        raise UserError(
            f"{what}: its header says {claimed:,} bytes, {size:,} are there; not readable, cut off or damaged"
        )
    raw = bytearray(claimed)
    have = 0
    while have < claimed and (more := file.read(min(PIECE, claimed - have))):
        raw[have : have + len(more)] = more
        have += len(more)
    if have < claimed:
        raise UserError(f"{what}: {have:,} of {claimed:,} bytes are there; not readable, cut off")
    flat = np.frombuffer(raw, dtype=kind) if kind.itemsize else np.zeros(math.prod(shape), kind)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def check_claims(shapes: Iterable[tuple[int, ...]], what: str) -> None:
    """UserError where arrays of these shapes would be too large as float64, before they are read."""
    for shape in shapes:
        if math.prod(shape) * 8 > limits().array_mb * MB:
            raise over(what, "array_mb", f"an array of {told_shape(shape)}")


def told_shape(shape: tuple[int, ...]) -> str:
    """A shape in an error, the long ones by their number of axes."""
    return str(shape) if len(shape) <= 6 else f"{len(shape)} axes"


__all__ = ["check_claims", "load", "load_archive"]
