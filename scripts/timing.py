"""Ratios measured in one process: candidates take turns, so that what the machine does beside them hits all alike."""

from __future__ import annotations

import gc
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass
class Timing:
    """seconds: the median of each candidate; ratios: of each to the base, the median over rounds and its quartiles.

    cpu: the same ratios of processor time instead of time on the clock: with cores that others use too they are
    steadier, and the same as on the clock where the cores are free.
    """

    seconds: dict[str, float]
    ratios: dict[str, tuple[float, float, float]]
    cpu: dict[str, float]


def alternate(
    candidates: Mapping[str, Callable[[], Any]], base: str, rounds: int, warm: int = 2, repeat: int = 1
) -> Timing:
    """Time every candidate once a round (each `repeat` times in a row), in turning order; ratios are taken within a
    round. CUDA work is waited for."""
    names = list(candidates)
    for _ in range(warm):
        for call in candidates.values():
            call()
    taken: dict[str, list[float]] = {name: [] for name in names}
    used: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                wait()
                start, spent = time.perf_counter(), time.process_time()
                for _ in range(repeat):
                    candidates[name]()
                wait()
                taken[name].append((time.perf_counter() - start) / repeat)
                used[name].append(time.process_time() - spent)
    finally:
        gc.enable()
    ratios, cpu = {}, {}
    for name in names:
        if name != base:
            found = [a / b for a, b in zip(taken[name], taken[base], strict=True)]
            cpu[name] = statistics.median(a / b for a, b in zip(used[name], used[base], strict=True))
            low, middle, high = statistics.quantiles(found, n=4) if len(found) > 1 else found * 3
            ratios[name] = (low, middle, high)
    return Timing({n: statistics.median(t) for n, t in taken.items()}, ratios, cpu)


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def worst() -> float:
    """MB of this process at its worst (on Linux); not getrusage's, which begins with those of who started it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def keep(results: dict[str, Any], out: Path, what: str) -> None:
    """Write results into folder `out`, under the date and what was measured, and say where."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{time.strftime('%Y-%m-%d-%H%M')}-{what}.json"
    path.write_text(json.dumps(results, indent=1))
    print(f"written: {path}")


def machine() -> dict[str, Any]:
    """What the numbers depend on besides the code."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            name = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    import os

    found: dict[str, Any] = {
        "cpu": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": list(os.getloadavg()),
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found
