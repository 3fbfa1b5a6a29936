"""How fast frozen pretrained encoders encode inside a model of this project, against the library's own loop.

    python -m scripts.bench_frozen                    # a line a tower; kept in scripts/bench_results/frozen.json

Random weights, batches as their library takes them, both ways taking turns in one process, medians (`scripts.timing`).
ratio: samples a second, ours over the library's, of processor time. memory: the most that one batch adds to a forked
process's resident memory, medians of as many readings, ours over the library's.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from generalist.convert.pairs.build import build
from generalist.convert.pairs.open_clip import pair_of, source_of
from generalist.convert.report import Report
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from scripts.timing import alternate, machine

RESULTS = Path(__file__).parent / "bench_results" / "frozen.json"
Ways = dict[str, Callable[[], Any]]


def alone(settings: dict[str, Any], width: int) -> GeneralistModel:
    """A model without layers, whose one modality is this."""
    made = {"summary": {}, "image": settings}
    sizes = {"hidden_size": width, "num_hidden_layers": 0, "num_attention_heads": 1}
    return GeneralistModel(GeneralistConfig(**sizes, readout="mean", modalities=made)).eval()


def network(name: str, size: int, batch: int, width: int) -> Ways:
    """A network of timm as `backbone`, one vector a picture."""
    settings = {"class": "backbone", "backbone": name, "size": size, "maps": "embedding", "frozen": True}
    model = alone(settings, width)
    tokenizer: Any = model.tokenizers["image"]
    net = tokenizer.encoder.net
    pixels = torch.randn(batch, 3, size, size)
    return {"ours": lambda: model.get_image_features(pixel_values=pixels), "library": lambda: net(pixels)}


def pair(name: str, side: str, batch: int) -> Ways:
    """One side of an architecture of open_clip, converted whole."""
    found, original = pair_of(source_of(name, None), Report(name))
    net: Any = original.eval()
    model, _, _ = build(found, Report(name))
    model.eval()
    if side == "text":
        ids = torch.randint(1, 49406, (batch, 77))
        ids[:, 20], ids[:, 21:] = 49407, 0
        return {"ours": lambda: model.get_text_features(input_ids=ids), "library": lambda: net.encode_text(ids)}
    pixels = torch.randn(batch, 3, 224, 224)
    return {"ours": lambda: model.get_image_features(pixel_values=pixels), "library": lambda: net.encode_image(pixels)}


TOWERS: dict[str, Callable[[], Ways]] = {
    "efficientnet_lite0, 8 pictures of 224": partial(network, "tf_efficientnet_lite0", 224, 8, 64),
    "resnet18, 8 pictures of 224": partial(network, "resnet18", 224, 8, 64),
    "ViT-B-32's picture tower, 8 of 224": partial(pair, "ViT-B-32", "image", 8),
    "ViT-B-32's text tower, 8 texts": partial(pair, "ViT-B-32", "text", 8),
}


# mallopt's: pieces from here on are given back when they are free. By itself glibc moves it, and a peak then tells what
# the heap happened to hold: the same call took 63 or 70 MB.
MMAP_THRESHOLD = -3


def grown(call: Callable[[], Any]) -> int:
    """Bytes that a call adds at most to the resident memory of a process that has made one already."""
    ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, 1 << 16)
    call()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        Path("/proc/self/clear_refs").write_text("5")  # the high water mark begins anew
        before = _resident("VmRSS")
        call()
        os.write(write, str(_resident("VmHWM") - before).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as found:
        return int(found.read())


def _resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(key)))


@torch.inference_mode()
def measured(ways: Ways, rounds: int) -> dict[str, float]:
    found = alternate(ways, "library", rounds)
    low, middle, high = found.ratios["ours"]
    taken: dict[str, list[int]] = {name: [] for name in ways}
    for _ in range(rounds):  # one reading depends on what the allocator holds: both take turns
        for name, call in ways.items():
            taken[name].append(grown(call))
    memory = {name: median(found) for name, found in taken.items()}
    return {
        "ratio": 1 / found.cpu["ours"],
        "ratio_on_the_clock": 1 / middle,
        "quartiles_on_the_clock": [1 / high, 1 / low],
        "memory": memory["ours"] / max(1, memory["library"]),
        "megabytes": {name: [round(one / 1e6, 1) for one in found] for name, found in taken.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("names", nargs="*", help="towers whose line begins so; all by default")
    args = parser.parse_args()
    torch.set_num_threads(1)
    kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    towers = kept.get("towers", {})
    for name, make in TOWERS.items():
        if not args.names or name.startswith(tuple(args.names)):
            towers[name] = measured(make(), args.rounds)
            print(name, json.dumps(towers[name]), flush=True)
            results = {"machine": machine(), "rounds": args.rounds, "towers": towers}
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
