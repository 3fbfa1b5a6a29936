"""Speed as ratios, measured in one process with the candidates in turn; `make bench`.

    python -m scripts.bench                       all but ViT-B/32 in bf16 on a CPU: about ten minutes on one core
    python -m scripts.bench --only encoder packed --rounds 30
    python -m scripts.bench --full                ViT-B/32 at 224 px in bf16 too
    UNI_PERCEIVER=FOLDER python -m scripts.bench --only published      beside the published code, where it was fetched

Writes scripts/bench_results/DATE-MACHINE.json and says what takes a twentieth longer than in the newest kept file of
the same machine type. On a GPU it adds tokens/s, MFU and memory. Nothing here can fail a test: timings depend on the
machine and on what runs beside.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from generalist.scripts import (
    bench_candidates,
    bench_data,
    bench_demo,
    bench_encoder,
    bench_gpu,
    bench_packing,
    bench_precision,
    bench_published,
    bench_training,
    bench_waiting,
)
from generalist.scripts.bench_kept import slower
from generalist.scripts.timing import keep, machine


def sections(rounds: int, full: bool) -> dict[str, Callable[[], list[dict[str, Any]]]]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    heavy = ["fp32", "bf16"] if full or device == "cuda" else ["fp32"]
    few = max(3, rounds // 4)
    found: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "encoder": lambda: bench_encoder.measure([bench_encoder.SMALL], ["fp32", "bf16"], rounds, device),
        "base": lambda: bench_encoder.measure([bench_encoder.BASE], heavy, few, device),
        "packed": lambda: bench_packing.packed_against_padded(rounds),
        "engines": lambda: bench_training.engines(2 * rounds),
        "tasks": lambda: bench_training.tasks_mixed(rounds),
        "demo": lambda: bench_demo.measure(few),
        "compile": lambda: bench_training.compiled(rounds),
        "saves": lambda: bench_training.saves(max(3, rounds // 3)),
        "startup": bench_training.start_up,
        "commands": bench_waiting.commands,
        "candidates": lambda: bench_candidates.steps(few),
        "many": lambda: bench_candidates.evaluation(3),
        "loader": lambda: bench_data.raw_samples(rounds),
        "lengths": lambda: bench_waiting.lengths(few),
        "causal": lambda: bench_waiting.causal(few),
        "names": lambda: bench_waiting.names(rounds),
        "precision": lambda: bench_precision.measure(rounds),
        "published": lambda: bench_published.measure(rounds),
    }
    if device == "cuda":
        found["gpu"] = bench_gpu.measure
    return found


def show(line: dict[str, Any]) -> str:
    if "failed" in line:
        return f"{line['what']}: failed: {line['failed']}"
    if "least" in line:
        return f"{line['least']:.3f}  target <= {line['target']}  {line['what']}"
    if "ratio" not in line:
        extra = ", ".join(f"{k} {v:.4g}" for k, v in line.items() if isinstance(v, float))
        return f"{line['what']}: {extra}"
    low, high = line["quartiles"]
    text = f"{line['ratio']:.3f} ({low:.3f}..{high:.3f})  cpu {line['cpu_ratio']:.3f}  {line['target']:>8}  "
    text += f"{line['what']}  / {line['against']}"
    for name in ("largest_difference", "largest_gradient_difference"):
        if name in line:
            text += f"  {name.replace('_', ' ')} {line[name]:.1e}"
    return text


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="SECTION", help=f"some of {', '.join(sections(4, False))}")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of alternating timings (default 15)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    parser.add_argument("--full", action="store_true", help="slow cases too")
    parser.add_argument("--out", type=Path, default=bench_training.folder(), help="folder of the results")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    every = sections(args.rounds, args.full)
    unknown = [name for name in args.only or [] if name not in every]
    if unknown:
        print(f"bench: no section {unknown[0]!r}; there are {', '.join(every)}", file=sys.stderr)
        return 2
    about = machine()
    results: dict[str, Any] = {"date": time.strftime("%Y-%m-%d %H:%M"), "machine": about, "sections": {}}
    print(f"{about['cpu']}, {about['threads']} thread(s), load {about['load'][0]:.1f}; ratio (quartiles)  target")
    for name in args.only or list(every):
        start = time.perf_counter()
        try:
            lines = every[name]()
        except Exception as error:  # one section that fails must not lose the others' numbers
            lines = [{"what": name, "failed": f"{type(error).__name__}: {error}"}]
        results["sections"][name] = lines
        for line in lines:
            print(show(line), flush=True)
        results["sections"][name + " seconds"] = round(time.perf_counter() - start, 1)
    label = re.sub(r"[^A-Za-z0-9]+", "-", about.get("gpu", about["cpu"])).strip("-").lower()[:40]
    for told in slower(results, args.out, label):
        print(told, flush=True)
    keep(results, args.out, label)
    return 0


if __name__ == "__main__":
    sys.exit(main())
