"""What each mixer costs beside our attention, forward alone and in training, at several lengths, in one process.

    python -m scripts.bench_mixers [--width 96 --heads 4 --batch 2 --repeats 5 --out FILE]

Seconds of the processor, one thread; candidates take turns, and of each the quickest turn counts. A turn is as many
calls in a row as make 4,096 cells, as a model calls its layers: single calls of a tenth of a millisecond would measure
what the others left in the caches (`--calls 1` does). Printed is how many times attention's time a mixer takes less:
2.0 is twice as fast. The bounds that are held are at the end of each line.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.nn.mixers.base import Mixer
from generalist.nn.mixers.table import layers_of, token_mixer
from generalist.recipe.encoder import EncoderSpec

# mixer: {cells: at least so many times as fast as attention, forward}
BOUNDS: dict[str, dict[int, float]] = {
    "retention": {4096: 5.0},
    "hyena": {4096: 2.0},
    "decay_axes": {3136: 1.7},
    "pool": {196: 7.0},
    "decay_attention": {},
    "convolution": {},
    "window": {},
}
CELLS = (196, 784, 3136, 4096)


def mixer(name: str, width: int, heads: int) -> Mixer:
    spec = EncoderSpec(width=width, layers=1, heads=heads, mixers=name)
    return token_mixer(spec, layers_of(spec)[0])


def placed(cells: int, batch: int) -> At:
    """Square maps, one a sequence."""
    side = math.isqrt(cells)
    row = Span("x", {"x": torch.zeros(cells, 1)}, cells, grid=(side, side))
    return At(pack([[row]] * batch).layout)


def measured(run: dict[str, Callable[[], Tensor]], repeats: int, calls: int = 1) -> dict[str, float]:
    """The quickest of the turns of each, a turn being so many calls; in seconds a call."""
    best = dict.fromkeys(run, math.inf)
    for _ in range(repeats + 1):  # the first turn warms up
        for name, call in run.items():
            began = time.process_time()
            for _ in range(calls):
                call()
            best[name] = min(best[name], (time.process_time() - began) / calls)
    return best


def ratios(
    cells: int, width: int, heads: int, batch: int, repeats: int, calls: int, training: bool
) -> dict[str, float]:
    """How many times faster than attention each mixer is on maps of so many cells. calls: of a turn, 0: 4,096 cells."""
    at, x = placed(cells, batch), torch.randn(batch * cells, width, requires_grad=training)
    made = {name: mixer(name, width, heads) for name in ("attention", *BOUNDS)}
    run: dict[str, Callable[[], Tensor]] = {}
    for name, own in made.items():

        def step(own: Mixer = own) -> Tensor:
            with torch.set_grad_enabled(training):
                out = own(x, at)
            if training:
                out.sum().backward()
            return out

        run[name] = step
    seconds = measured(run, repeats, calls or CELLS[-1] // cells)
    return {name: seconds["attention"] / taken for name, taken in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default in (("width", 96), ("heads", 4), ("batch", 2), ("repeats", 5), ("calls", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path, help="keep the numbers as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    how = (args.width, args.heads, args.batch, args.repeats, args.calls)
    found = {
        kind: {cells: ratios(cells, *how, training=kind == "training") for cells in CELLS}
        for kind in ("forward", "training")
    }
    for kind, table in found.items():
        print(f"{kind:<18}" + "".join(f"{cells:>9}" for cells in CELLS))
        for name, bounds in BOUNDS.items():
            held = ", ".join(f">= {bound:g} at {cells}" for cells, bound in bounds.items())
            shown = held if kind == "forward" else ""
            print(f"{name:<18}" + "".join(f"{table[cells][name]:>9.2f}" for cells in CELLS) + f"   {shown}".rstrip())
    if args.out:
        args.out.write_text(
            json.dumps({"width": args.width, "heads": args.heads, "batch": args.batch} | found, indent=1)
        )


if __name__ == "__main__":
    main()
