"""Inputs for the public processor that nobody would give on purpose, drawn from a seed: the kinds by modality.

`cases(name, count, folder)` yields them; files lie in `folder`. Half of them are what the modality takes, bent;
the others are anything at all.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image as Pictures

NAN, INF = float("nan"), float("inf")
DTYPES = (
    "f2",
    "f4",
    "f8",
    ">f4",
    ">f8",
    "<i2",
    ">i2",
    ">u2",
    "u1",
    "i1",
    "u2",
    "u4",
    "u8",
    "i8",
    "?",
    "c8",
    "g",
    "S3",
    "U2",
)
SCALARS = (
    None, NAN, INF, -INF, 0, 1, -1, True, 10**400, -(10**400), 10**5000, 2**63, 748732828, 1e308, 1e-320, -0.0, 1j,
    "", " ", "\0", "\n", "a", "NaN", "1e999", b"", b"\x89PNG", Decimal("1e9999"), Fraction(1, 3), datetime(1, 1, 1),
    object(), int, len, ..., NotImplemented, np.float16("nan"), np.datetime64("NaT"), np.timedelta64(1), np.str_("x"),
)  # fmt: skip
WORDS = (
    "a",
    "cat",
    "CCO",
    "c1ccccc1",
    "é",
    "\ud800",
    "\U0001f600",
    "&amp;amp;",
    "<|spe|>",
    "<|endoftext|>",
    "\u202e",
    "ﷺ",
    "\x00",
    "[",
    "{",
)


def scalar(r: Random) -> Any:
    return r.choice(SCALARS)


def array(r: Random, shape: tuple[int, ...] | None = None) -> Any:
    """An array or tensor of any kind, size and memory order."""
    shape = shape or tuple(r.choice((0, 1, 1, 2, 3, 4, 5, 9, 17, 40)) for _ in range(r.randrange(6)))
    values = np.random.default_rng(r.randrange(2**32)).normal(size=shape) * r.choice((1, 1, 100, 1e-30, 1e30))
    with np.errstate(all="ignore"):
        if values.size and r.random() < 0.2:
            values.flat[r.randrange(values.size)] = r.choice((NAN, INF, -INF, 1e308))
        kind = r.choice(DTYPES)
        found = values.astype(kind) if kind not in ("S3", "U2") else np.full(shape, "x1").astype(kind)
    if r.random() < 0.15:
        found = found.T
    if r.random() < 0.1 and found.ndim:
        found = found[::-1]
    if r.random() < 0.05:
        found = np.ma.masked_array(found, mask=np.ones(found.shape, bool))
    if r.random() < 0.05:
        return found.astype(object)
    return tensor(r, values) if r.random() < 0.3 else found


def tensor(r: Random, values: np.ndarray) -> Any:
    found = torch.from_numpy(np.ascontiguousarray(values)).float()
    how = r.choice(
        ("plain", "bf16", "f16", "grad", "sparse", "csr", "huge", "meta", "complex", "bool", "int8", "quantised")
    )
    if how == "grad":
        return found.requires_grad_()
    if how == "sparse":
        return found.to_sparse()
    if how == "csr":
        return found.to_sparse_csr() if found.ndim == 2 and found.numel() else found
    if how == "huge":
        return torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.long), torch.ones(1), (10**6, 10**6))
    if how == "quantised":
        return torch.quantize_per_tensor(found, 0.1, 0, torch.qint8)
    kinds = {"bf16": torch.bfloat16, "f16": torch.float16, "complex": torch.complex64, "bool": torch.bool}
    if how == "meta":
        return found.to("meta")
    return found.to(kinds.get(how, torch.int8 if how == "int8" else torch.float32))


def anything(r: Random, depth: int = 0) -> Any:
    """A value of any type at all."""
    kind = r.randrange(9 if depth < 3 else 5)
    if kind <= 1:
        return scalar(r)
    if kind <= 3:
        return array(r)
    if kind == 4:
        return "".join(r.choice(WORDS) for _ in range(r.choice((0, 1, 3, 30)))) * r.choice((1, 1, 1, 200))
    if kind == 5:
        return {
            r.choice(("array", "signal", "rate", "nodes", "edges", "bytes", "path", 1, None)): anything(r, depth + 1)
        }
    if kind == 6:
        return tuple(anything(r, depth + 1) for _ in range(r.randrange(4)))
    if kind == 7:
        return [anything(r, depth + 1) for _ in range(r.randrange(4))]
    return Path(r.choice(("/dev/zero", "/dev/null", "/", ".", "nowhere.png", "a" * 5000, "/proc/self/mem", "x\0y.npy")))


# --- files ---


def damaged(r: Random, raw: bytes) -> bytes:
    """Cut, flipped, emptied, doubled or replaced."""
    how = r.randrange(6)
    if how == 0:
        return raw[: r.randrange(len(raw) + 1)]
    if how == 1 and raw:
        spot = r.randrange(min(len(raw), 200))
        return raw[:spot] + bytes([raw[spot] ^ (1 << r.randrange(8))]) + raw[spot + 1 :]
    if how == 2:
        return raw[:16] + r.randbytes(r.randrange(200))
    if how == 3:
        return raw + raw
    return raw if how == 4 else b""


def picture_bytes(r: Random) -> bytes:
    mode = r.choice(("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"))
    picture = Pictures.new(mode, (r.choice((1, 2, 9, 30, 300)), r.choice((1, 2, 9, 30, 300))))
    whole = io.BytesIO()
    for ending in r.sample(("PNG", "TIFF", "JPEG", "GIF", "BMP", "WEBP"), 6):
        try:
            picture.save(whole, format=ending)
            break
        except (OSError, ValueError, KeyError):
            whole = io.BytesIO()
    return whole.getvalue()


def array_bytes(r: Random) -> bytes:
    whole = io.BytesIO()
    values = np.random.default_rng(r.randrange(2**32)).normal(size=r.choice(((5, 3), (20,), (40, 3), (3, 3, 5))))
    if r.random() < 0.5:
        np.save(whole, values)
        raw = whole.getvalue()
        shapes = (
            b"(745000000000,)",
            b"(-1,)",
            b"(2,2",
            b"None",
            b"((((((((((((((((1,))))))))))))))))",
            b"'a'",
            b"(1e9,)",
        )
        return raw.replace(str(values.shape).encode(), r.choice(shapes)) if r.random() < 0.3 else raw
    np.savez(whole, **{r.choice(("points", "xyz", "a")): values, "b": values})
    return whole.getvalue()


def sound_bytes(r: Random) -> bytes:
    import soundfile

    whole = io.BytesIO()
    rate = r.choice((1, 8, 500, 8000, 16000, 11025, 44100, 999983, 2_000_000_000))
    channels = r.choice((1, 1, 2, 7))
    wave = np.random.default_rng(r.randrange(2**32)).normal(size=(r.choice((0, 1, 50, 4000)), channels)) / 4
    soundfile.write(whole, wave, rate, format="WAV", subtype=r.choice(("PCM_16", "FLOAT", "PCM_U8")))
    return whole.getvalue()


def table_bytes(r: Random) -> bytes:
    rows = [",".join(str(r.choice((1, 2.5, "", "x", "1e999", '"', "2020-01-01"))) for _ in range(3)) for _ in range(5)]
    return ("\n".join(["a,b,c", *rows]) if r.random() < 0.7 else '{"a":' * r.choice((1, 300, 20000))).encode()


def zip_bytes(r: Random) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(r.choice(("points.npy", "a", "../b")), bytes(r.choice((0, 10, 1000))))
    return whole.getvalue()


ENDINGS = {
    ".png": picture_bytes, ".jpg": picture_bytes, ".tif": picture_bytes, ".npy": array_bytes, ".npz": array_bytes,
    ".wav": sound_bytes, ".flac": sound_bytes, ".csv": table_bytes, ".txt": table_bytes, ".xyz": table_bytes,
    ".parquet": table_bytes, ".mat": array_bytes, ".csv.gz": table_bytes, ".gif": picture_bytes, ".json": table_bytes,
    ".zip.npz": zip_bytes, ".dcm": array_bytes,
}  # fmt: skip


def a_file(r: Random, folder: Path, endings: tuple[str, ...] = tuple(ENDINGS)) -> Any:
    ending = r.choice(endings)
    path = folder / f"given{ending}"
    raw = ENDINGS[ending](r) if r.random() < 0.85 else r.choice(list(ENDINGS.values()))(r)
    path.write_bytes(damaged(r, raw) if r.random() < 0.6 else raw)
    return path if r.random() < 0.5 else str(path)


# --- what each modality takes, bent ---


def a_picture(r: Random, folder: Path) -> Any:
    kind = r.randrange(4)
    if kind == 0:
        return a_file(r, folder, (".png", ".jpg", ".tif", ".gif"))
    if kind == 1:
        return Pictures.new(
            r.choice(("1", "L", "P", "RGB", "RGBA", "I;16", "F", "LAB", "HSV")),
            (r.choice((0, 1, 7)), r.choice((0, 1, 9))),
        )
    return array(r, r.choice(((9, 9), (9, 9, 3), (3, 9, 9), (1, 40), (40, 1, 4), (2, 9, 9), (5, 9, 9, 3), (9, 9, 0))))


def a_sound(r: Random, folder: Path) -> Any:
    wave = array(r, r.choice(((4000,), (4000, 2), (2, 4000), (), (1,), (0,), (3, 3, 3))))
    rate = (
        scalar(r)
        if r.random() < 0.5
        else r.choice((8000, 16000, 8000.5, 1, 999983, 10**9, np.int64(8000), torch.tensor(8000)))
    )
    made = (
        lambda: (wave, rate), lambda: {"array": wave, "sampling_rate": rate}, lambda: {"bytes": sound_bytes(r)},
        lambda: damaged(r, sound_bytes(r)), lambda: a_file(r, folder, (".wav", ".flac")), lambda: {"path": None},
    )  # fmt: skip
    return r.choice(made)()


def numbers(r: Random, folder: Path) -> Any:
    shapes = ((20,), (20, 3), (40, 3), (3, 20), (1, 3), (0, 3), (5, 5, 5), (5, 5), (), (70, 6))
    made = (
        lambda: array(r, r.choice(shapes)), lambda: (array(r, (20, 3)), scalar(r)), lambda: a_file(r, folder),
        lambda: {"signal": array(r, (20, 3)), "rate": r.choice((scalar(r), 50, 1e-9, 25))},
        lambda: (array(r, (5, 5, 5)), scalar(r), 2), lambda: [[scalar(r)] * 3] * 4,
    )  # fmt: skip
    value = r.choice(made)()
    return value.tolist() if isinstance(value, np.ndarray) and r.random() < 0.1 else value


def a_text(r: Random, folder: Path) -> Any:
    text = "".join(r.choice(WORDS) + r.choice(("", " ", "\n")) for _ in range(r.choice((1, 5, 50, 2000))))
    return text.encode("utf-8", "replace") if r.random() < 0.1 else text


def a_graph(r: Random, folder: Path) -> Any:
    if r.random() < 0.4:
        return "".join(r.choice("CNOcn1234()[]=#+-@/\\.Hl%") for _ in range(r.choice((1, 5, 30, 300, 20000))))
    keys = ("nodes", "node_values", "edges", "edge_codes", "edge_values", "center", "node_count", "odd")
    found: dict[Any, Any] = {"nodes": [0, 1, 2], "edges": [[0, 1], [1, 2]]}
    for key in r.sample(keys, r.randrange(3)):
        found[key] = r.choice((scalar(r), array(r), [[0, 10**9]], [[0, -1]], array(r, (2, 2)), 10**9, []))
    return found


def a_row(r: Random, folder: Path) -> Any:
    row = {"age": 3, "city": "x"}
    for key in r.sample(("age", "city", "odd", 5), r.randrange(4)):
        row[key] = r.choice((scalar(r), array(r), array(r, ())))
    if r.random() < 0.2:
        row.pop("age", None)
    return row


def a_horizon(r: Random, folder: Path) -> Any:
    return r.choice(
        (scalar(r), r.randrange(100), float(r.randrange(100)), array(r, (5,)), array(r, ()), 748732828, 10**30)
    )


def some_numbers(r: Random, folder: Path) -> Any:
    return r.choice((scalar(r), array(r, (3,)), array(r), r.random()))


OWN: dict[str, Callable[[Random, Path], Any]] = {
    **dict.fromkeys(("image", "xray", "thermal", "depth", "region", "video"), a_picture),
    "audio": a_sound,
    **dict.fromkeys(("points", "series", "imu", "spectral"), numbers),
    "text": a_text,
    "graph": a_graph,
    "table": a_row,
    "slot": a_horizon,
    "number": some_numbers,
}


def cases(name: str, count: int, folder: Path, seed: int = 0) -> Iterator[Any]:
    """`count` values for the modality `name`, always the same for a seed."""
    r = Random(f"{name}/{seed}")
    for _ in range(count):
        value = OWN[name](r, folder) if r.random() < 0.6 else anything(r)
        if r.random() < 0.1:
            value = a_file(r, folder)
        yield value
