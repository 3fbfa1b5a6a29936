"""Does the stream compute on padding, and does a step wait for it?

    python -m scripts.bench_stream [--samples 960] [--steps 200] [--demo-steps 400] [--later 1500]

Padding: a mixed stream of five modalities, written as shards and read through the loader. `packed` counts the rows
that go through the encoder's linear layers against the real tokens; `padded` and `bucketed` are what the same samples
would cost padded to the longest of their batch, in the stream's order and sorted by length within eight batches.
Balance: the busiest of several ranks against their mean, in tokens a step. Waiting: the share of the demo's training
time that passes before a step has its batch, with no loader process, one and two; without loader processes in processor
time too (`cpu`), which others on the machine change less, and both at the start, where every sample is new, and after
`later` steps, where what fits is kept in memory (`memory_gb`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from generalist.data.batch.types import Batch
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.stream import Steps, loader
from generalist.recipe.recipe import Recipe
from generalist.scripts import mixed_stream
from generalist.scripts.bench_training import HERE, demo, folder, objective
from generalist.scripts.timing import keep, machine
from generalist.train.engines.build import build_engine
from generalist.train.loop import StepResult, train
from generalist.train.prepare import Prepared

POOL = 8  # batches whose samples are sorted by length together, when bucketed


def steps_of(recipe: Recipe, prepared: Prepared, rank: int = 0, world: int = 1) -> Steps:
    tasks = prepared.tasks
    schedule = Schedule(list(tasks), [t.share for t in tasks.values()], recipe.seed)
    return Steps(prepared.feeds(), schedule, recipe.seed, rank, world)


def wasted(lengths: list[list[int]]) -> float:
    """The share of padding when every batch is padded to its longest sequence."""
    return 1 - sum(map(sum, lengths)) / sum(len(batch) * max(batch) for batch in lengths)


def bucketed(lengths: list[list[int]]) -> list[list[int]]:
    """The same samples in batches of like lengths: POOL batches sorted together."""
    found = []
    for at in range(0, len(lengths), POOL):
        pool = lengths[at : at + POOL]
        ordered = sorted(n for batch in pool for n in batch)
        for batch in pool:
            found.append(ordered[: len(batch)])
            del ordered[: len(batch)]
    return found


def padding(recipe: Recipe, prepared: Prepared, steps: int, workers: int) -> list[dict[str, Any]]:
    """One line a modality and one for all."""
    model = prepared.model(recipe).eval()
    rows: list[int] = []
    model.encoder.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
    lengths: dict[str, list[list[int]]] = defaultdict(list)
    computed: dict[str, int] = defaultdict(int)
    start, busy = time.perf_counter(), 0.0
    for batch in loader(steps_of(recipe, prepared), 0, steps, workers):
        began = time.perf_counter()
        with torch.no_grad():
            model.features(batch.inputs)
        busy += time.perf_counter() - began
        lengths[batch.task].append(torch.bincount(batch.inputs.owner).tolist())
        computed[batch.task] += rows.pop()
    seconds = time.perf_counter() - start - busy
    lines = []
    for name, own in lengths.items():
        tokens = sum(map(sum, own))
        shown = {"tokens": tokens, "packed": 1 - tokens / computed[name], "padded": wasted(own)}
        lines.append({"what": name, **shown, "bucketed": wasted(bucketed(own))})
    every = [batch for own in lengths.values() for batch in own]
    sorted_ = [batch for own in lengths.values() for batch in bucketed(own)]
    tokens = sum(map(sum, every))
    total = {"tokens": tokens, "packed": 1 - tokens / sum(computed.values()), "padded": wasted(every)}
    lines.append({"what": "all five", **total, "bucketed": wasted(sorted_), "tokens_per_second_read": tokens / seconds})
    return lines


def balance(recipe: Recipe, prepared: Prepared, steps: int) -> list[dict[str, Any]]:
    """Tokens of the busiest rank over the mean of the ranks, averaged over steps."""
    lines = []
    for world in (2, 4):
        parts = [steps_of(recipe, prepared, rank, world) for rank in range(world)]
        ratios = []
        for step in range(steps):
            tokens = [part[step].inputs.tokens for part in parts]
            ratios.append(max(tokens) * world / sum(tokens))
        lines.append({"what": f"{world} ranks", "busiest_over_mean": sum(ratios) / steps, "worst": max(ratios)})
    return lines


class Clocked:
    """Batches, and the processor time that each took."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self.batches, self.taken = batches, list[float]()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        start = time.process_time()
        batch = next(self.batches)
        self.taken.append(time.process_time() - start)
        return batch


def waiting(steps: int, workers: int, first: int = 0) -> dict[str, Any]:
    """The share of the demo's training time that a step waits for its batch, after 20 steps of warming up.

    first: steps whose batches are read before, without training.
    """
    recipe, prepared = demo()
    tasks, schedule = prepared.tasks, steps_of(recipe, prepared).schedule
    engine = build_engine(recipe, objective(recipe, prepared), HERE)
    seen: list[StepResult] = []
    source, ends = steps_of(recipe, prepared), list[float]()
    for _ in loader(source, 0, first):
        pass
    batches = Clocked(loader(source, first, first + steps, workers))

    def after(result: StepResult) -> None:
        seen.append(result)
        ends.append(time.process_time())

    spec = recipe.optimizer
    train(engine, batches, tasks, schedule, first, first + steps, spec.lr, spec.warmup, after=after)
    seen = seen[20:]
    waited, seconds = sum(r.waited for r in seen), sum(r.seconds for r in seen)
    line = {"what": f"{workers} workers", "waits": waited / seconds, "step_ms": seconds / len(seen) * 1000}
    if not workers:
        busy = ends[-1] - ends[19]
        line |= {"waits_cpu": sum(batches.taken[20:]) / busy, "step_cpu_ms": busy / len(seen) * 1000}
    return line | ({"what": f"{workers} workers, after {first} steps"} if first else {})


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=960, help="of every modality (default 960)")
    parser.add_argument("--steps", type=int, default=200, help="batches that are counted (default 200)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=0, help="loader processes of the padding measure (default 0)")
    parser.add_argument("--demo-steps", type=int, default=400, help="steps of the demo for each number of workers")
    parser.add_argument("--later", type=int, default=1500, help="steps after which waiting is measured again")
    parser.add_argument("--out", type=Path, default=folder(), help="folder of the results")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    results: dict[str, Any] = {"date": time.strftime("%Y-%m-%d %H:%M"), "machine": machine()}
    with tempfile.TemporaryDirectory() as name:
        mixed_stream.write(Path(name), args.samples, per=max(1, args.samples // 8))
        recipe, prepared = mixed_stream.opened(mixed_stream.local(Path(name)), args.batch)
        results["padding"] = padding(recipe, prepared, args.steps, args.workers)
        results["balance"] = balance(recipe, prepared, args.steps // 4)
    print(f"{'stream':<10}{'tokens':>9}{'packed':>9}{'padded':>9}{'bucketed':>10}   share of padding")
    for line in results["padding"]:
        shares = f"{line['packed']:>9.1%}{line['padded']:>9.1%}{line['bucketed']:>10.1%}"
        print(f"{line['what']:<10}{line['tokens']:>9}{shares}")
    print(f"read at {results['padding'][-1]['tokens_per_second_read']:.0f} tokens/s ({args.workers} workers)")
    for line in results["balance"]:
        print(f"{line['what']}: busiest over mean {line['busiest_over_mean']:.3f}, worst step {line['worst']:.3f}")
    results["waiting"] = []
    for workers, first in ((0, 0), (0, args.later), (1, 0), (2, 0)) if args.demo_steps else ():
        results["waiting"].append(waiting(args.demo_steps, workers, first))
        line = results["waiting"][-1]
        text = f"demo, {line['what']}: waits {line['waits']:.1%} of its time, {line['step_ms']:.1f} ms a step"
        if "waits_cpu" in line:
            text += f"; cpu {line['waits_cpu']:.1%}, {line['step_cpu_ms']:.1f} ms"
        print(text, flush=True)
    keep(results, args.out, "stream")
    return 0


if __name__ == "__main__":
    sys.exit(main())
