"""Samples a second of the loaders, in one run on the same pictures: ours, webdataset, litdata (where installed).

    python -m scripts.bench_data [--samples 3000] [--workers 2] [--passes 3]

Raw: the bytes of picture and caption reach the training process. Decoded: pictures as arrays of 224 x 224. Every
loader shuffles (webdataset in a window of 500, litdata by its chunks, ours over all), batches of 50, and runs
`passes` times in turn; the table gives the median and the range. litdata: pip install litdata.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from generalist.data.batch.shipping import ship, unpacked
from generalist.data.sources.shards import Shards
from generalist.data.stream.raw import Raw, raw_batches
from generalist.data.stream.source import Record, Records
from generalist.data.tools.shard_writer import Plan, write_split
from generalist.scripts.bench_training import folder
from generalist.scripts.timing import keep, machine

BATCH = 50


class Pictures:
    """`count` noisy JPEGs of 256 px (about 20 kB) with a caption, the same for all loaders."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __repr__(self) -> str:
        return f"Pictures({self.count})"

    def open(self, split: str) -> Records:
        return Records(Made(self.count))


class Made(Sequence[Record]):
    def __init__(self, count: int) -> None:
        self.total = count

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, number: Any) -> Any:
        from PIL import Image

        rng = np.random.default_rng(number)
        small = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(small).resize((256, 256), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = (picture + rng.integers(-12, 12, picture.shape)).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noisy).save(buffer, format="JPEG", quality=80)
        return {"id": str(number), "jpg": buffer.getvalue(), "txt": f"picture number {number}"}


def pixels(raw: bytes) -> torch.Tensor:
    from PIL import Image

    picture: Any = Image.open(io.BytesIO(raw))
    picture.draft("RGB", (224, 224))
    return torch.from_numpy(np.array(picture.convert("RGB").resize((224, 224))))


def unpack(raw: bytes, text: str, decode: bool) -> tuple[Any, str]:
    return (pixels(raw) if decode else raw), text


def opened(batch: list[Raw], decode: bool) -> list[tuple[Any, str]]:
    return [unpack(held["jpg.jpg"], json.loads(held["json"])["txt"], decode) for _, held in batch]


class Decoded(Dataset):
    """Batches by number: the stream's own order and random access, without tokenizers."""

    def __init__(self, records: Records) -> None:
        self.records = records

    def __getitem__(self, step: int) -> list[tuple[Any, str]]:
        return opened(next(raw_batches(self.records, BATCH, step, step + 1, threads=0)), True)


def ours(root: Path, workers: int, decode: bool, count: int) -> Callable[[], Iterable]:
    records = Shards(str(root)).open("train")
    steps = range(count // BATCH)

    def start() -> Iterable:
        if not decode:  # by threads of this process
            return (opened(batch, False) for batch in raw_batches(records, BATCH, 0, len(steps), threads=workers))
        made = DataLoader(
            Decoded(records),
            batch_size=None,
            sampler=steps,  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=ship if workers else None,
        )
        return map(unpacked, made) if workers else made

    return start


def as_list(batch: list) -> list:
    return batch


def webdataset(root: Path, workers: int, decode: bool, count: int) -> Callable[[], Iterable]:
    import webdataset as wds

    urls = sorted(str(p) for p in (root / "train").glob("*.tar"))

    def take(sample: dict) -> tuple[Any, str]:
        return unpack(sample["jpg.jpg"], json.loads(sample["json"])["txt"], decode)

    def start() -> Iterable:
        made = wds.WebDataset(urls, shardshuffle=len(urls)).shuffle(500).map(take).batched(BATCH, collation_fn=as_list)
        return DataLoader(made, batch_size=None, num_workers=workers)

    return start


def optimise(item: tuple[bytes, str]) -> dict[str, Any]:
    return {"jpg": item[0], "txt": item[1]}


def litdata(root: Path, workers: int, decode: bool, count: int) -> Callable[[], Iterable]:
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming.cache import Cache

    place = root / "litdata"
    if not (place / "index.json").is_file():
        cache = Cache(str(place), chunk_bytes="8MB")
        for number, record in enumerate(Made(count)[i] for i in range(count)):
            cache[number] = optimise((record["jpg"], record["txt"]))
        cache.done()
        cache.merge()

    class Streamed(StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            held = super().__getitem__(index)
            return unpack(held["jpg"], held["txt"], decode)

    def start() -> Iterable:
        made = Streamed(str(place), shuffle=True)
        return StreamingDataLoader(made, batch_size=BATCH, num_workers=workers, collate_fn=as_list)

    return start


LOADERS = {"generalist": ours, "webdataset": webdataset, "litdata": litdata}


def speed(start: Callable[[], Iterable], count: int) -> float:
    """Samples a second of one pass, the start of the workers not counted (from the first batch to the last)."""
    batches: Iterator = iter(start())
    first, seen = next(batches), 0
    began = time.perf_counter()
    for batch in batches:
        seen += len(batch)
    del first
    return seen / (time.perf_counter() - began)


def raw_samples(rounds: int, samples: int = 3000, workers: int = 2) -> list[dict[str, Any]]:
    """Raw samples by as many threads of ours as litdata has workers: the ratio of times, in turn."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_split(Plan(Pictures(samples), "train", root, per=250))
        own = ours(root, workers, False, samples)
        try:
            other = litdata(root, workers, False, samples)
        except ImportError as error:
            return [{"what": "raw samples", "failed": f"{error}; pip install litdata"}]
        pairs = [(speed(own, samples), speed(other, samples)) for _ in range(rounds)]
    low, middle, high = statistics.quantiles([theirs / found for found, theirs in pairs], n=4)
    seconds = dict(zip(("ours", "litdata"), (1 / statistics.median(s) for s in zip(*pairs, strict=True)), strict=True))
    found = {"what": "raw samples, two threads", "against": "litdata, two workers", "ratio": middle}
    return [found | {"quartiles": [low, high], "cpu_ratio": middle, "target": "<= .91", "seconds": seconds}]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--out", type=Path, default=folder(), help="folder of the results")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    results: dict[str, Any] = {"date": time.strftime("%Y-%m-%d %H:%M"), "machine": machine(), "lines": []}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_split(Plan(Pictures(args.samples), "train", root, per=250))
        for decode in (False, True):
            starts = {}
            for loader, make in LOADERS.items():
                try:
                    starts[loader] = make(root, args.workers, decode, args.samples)
                except ImportError as error:
                    print(f"{loader}: left out ({error})", file=sys.stderr)
            taken: dict[str, list[float]] = {loader: [] for loader in starts}
            for _ in range(args.passes):
                for loader, start in starts.items():
                    taken[loader].append(speed(start, args.samples))
            for loader, found in taken.items():
                line = {"loader": loader, "what": "decoded" if decode else "raw", "samples_per_second": sorted(found)}
                results["lines"].append(line)
                median = statistics.median(found)
                print(
                    f"{loader:<12} {line['what']:<8} {median:>8.0f} samples/s ({min(found):.0f}..{max(found):.0f})",
                    flush=True,
                )
    keep(results, args.out, "data")
    return 0


if __name__ == "__main__":
    sys.exit(main())
