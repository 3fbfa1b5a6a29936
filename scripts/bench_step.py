"""The demo's training step of two checkouts, in turn: a process each, one thread, processor time.

    python -m scripts.bench_step EARLIER [--rounds 15]       # a folder of an earlier commit (git worktree add)

A round is one batch of every task of the demo through the local engine. Ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent.parent
ITSELF = "import sys, runpy; sys.argv[1:] = ['--serve']; runpy.run_path({!r}, run_name='__main__')"


def serve() -> None:
    """Steps once with every task for each line that comes; answers the seconds of processor time by task."""
    torch.set_num_threads(1)
    try:
        made = import_module("generalist.scripts.bench_training")
    except ImportError:  # checkouts in which every folder was a package of its own
        made = import_module("scripts.bench_training")
    recipe, prepared = made.demo()
    batches, step = made.batches(recipe, prepared, 1), made.through(recipe, prepared, "local")
    for _ in sys.stdin:
        taken = {}
        for name, own in batches.items():
            start = time.process_time()
            step(own[0])
            taken[name] = time.process_time() - start
        print(json.dumps(taken), flush=True)


def started(tree: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", ITSELF.format(__file__)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=tree, env=environment, text=True, stdin=pipe, stdout=pipe)


def stepped(process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return dict(json.loads(process.stdout.readline()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("earlier", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    both = [started(args.earlier.resolve()), started(HERE)]
    for _ in range(3):  # until nothing is made for the first time
        for process in both:
            stepped(process)
    rounds = []
    for number in range(args.rounds):
        way = -1 if number % 2 else 1
        rounds.append([stepped(process) for process in both[::way]][::way])
    for process in both:
        process.communicate()
    whole = [sum(now.values()) / sum(before.values()) for before, now in rounds]
    low, middle, high = statistics.quantiles(whole, n=4)
    print(f"{middle:.3f} ({low:.3f}..{high:.3f})  all tasks")
    for name in rounds[0][0]:
        print(f"{statistics.median(now[name] / before[name] for before, now in rounds):.3f}  {name}")
    return 0


if __name__ == "__main__":
    serve() if "--serve" in sys.argv else sys.exit(main())
