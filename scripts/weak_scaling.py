"""Weak scaling measured on this machine's cores, beside what the simulation of `generalist plan` says for them.

    python -m scripts.weak_scaling demo --processes 1 2 3 4 --steps 24 --out scripts/bench_results

Every process gets the recipe's own batch, so N processes do N times the work in the same number of steps (DeepSpeed,
ZeRO stage 1, gloo). Measured: seconds on the clock and of the processor a step, of the slowest process, after a
warm-up. Ideal: N processes on C cores take max(1, N / C) times as long as one. Simulated: the one process's step, a
ring all-reduce of the fp32 gradients, nothing of it hidden (as on a CPU), over the bandwidth that an all-reduce of
the same bytes reaches here. Processor time says what a process itself has to do, also where cores are shared with
others; waiting for the slowest shows on the clock alone. One process runs stage 0, which has nobody to share with, so
the step to two also pays for DeepSpeed's copies into its partitions, which the simulation leaves out.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from generalist.data.stream.schedule import Schedule
from generalist.data.stream.stream import Steps, loader
from generalist.machine import ranks
from generalist.model.objective import Objective
from generalist.recipe.keys import override
from generalist.recipe.load import load_recipe
from generalist.recipe.recipe import Recipe
from generalist.scripts.timing import keep, machine
from generalist.train.engines.build import build_engine
from generalist.train.loop import StepResult, train
from generalist.train.plan import efficiency, weak_scaling
from generalist.train.prepare import Prepared, prepare

WARM = 4  # steps that are not counted
CPU = torch.device("cpu")


def worker(number: int, world: int, port: int, recipe: Recipe, prepared: Prepared, steps: int, box: Any) -> None:
    """One rank: train `steps` steps and say what they took."""
    torch.set_num_threads(1)
    names = {"RANK": number, "WORLD_SIZE": world, "LOCAL_RANK": number, "MASTER_PORT": port}
    os.environ |= {k: str(v) for k, v in names.items()} | {"MASTER_ADDR": "127.0.0.1"}
    ranks.join(CPU, 10.0)
    objective = Objective(prepared.model(recipe), prepared.sets, prepared.modalities)
    engine = build_engine(recipe, objective, CPU)
    tasks = prepared.tasks
    schedule = Schedule(list(tasks), [t.share for t in tasks.values()], recipe.seed)
    feeds = prepared.feeds()
    for feed in feeds.values():
        feed.batch *= world  # weak scaling: the work grows with the processes
    marks: list[tuple[float, float, int]] = []

    def after(result: StepResult) -> None:
        marks.append((time.perf_counter(), time.process_time(), result.samples))

    stream = loader(Steps(feeds, schedule, recipe.seed, engine.rank, world), 0, steps)
    train(engine, stream, tasks, schedule, 0, steps, recipe.optimizer.lr, recipe.optimizer.warmup, 1, after)
    (wall, cpu, _), (wall_end, cpu_end, _) = marks[WARM - 1], marks[-1]
    count = steps - WARM
    parameters = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    found = {"wall": (wall_end - wall) / count, "cpu": (cpu_end - cpu) / count, "parameters": parameters}
    found["samples"] = sum(samples for *_, samples in marks[WARM:])
    found["ring"] = ring(parameters) if world > 1 else 0.0
    box.put(found)
    ranks.leave()


def ring(parameters: int, times: int = 5) -> float:
    """Seconds of the processor for one all-reduce of as many fp32 numbers: the median."""
    value, taken = torch.ones(parameters), []
    for _ in range(times):
        dist.barrier()
        start = time.process_time()
        dist.all_reduce(value)
        taken.append(time.process_time() - start)
        value.fill_(1.0)
    return sorted(taken)[times // 2]


def measure(recipe: Recipe, prepared: Prepared, world: int, steps: int) -> dict[str, float]:
    """The slowest process of `world`; forks, so that nothing is imported again."""
    context = mp.get_context("fork")
    box = context.SimpleQueue()
    mp.start_processes(
        worker, (world, ranks.free_port(), recipe, prepared, steps, box), nprocs=world, start_method="fork"
    )
    found = [box.get() for _ in range(world)]
    return {key: max(one[key] for one in found) for key in found[0]}


def table(lines: list[dict[str, Any]], cores: int) -> str:
    shown = [
        f"processes  samples/s  s/step   efficiency  of the ideal on {cores} cores   CPU s/step  efficiency  simulated"
    ]
    for one in lines:
        shown.append(
            f"{one['processes']:9d}  {one['samples_per_second']:9.1f}  {one['wall']:7.4f}  {one['efficiency']:10.2f}  "
            f"{one['of_ideal']:24.2f}   {one['cpu']:10.4f}  {one['cpu_efficiency']:10.2f}  {one['simulated']:9.2f}"
        )
    return "\n".join(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recipe", nargs="?", default="demo")
    parser.add_argument("keys", nargs="*", metavar="key=value")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--gpu", default="h100", help="what the simulation for GPUs assumes")
    parser.add_argument("--out", type=Path, help="folder for the result as JSON")
    args = parser.parse_args()
    recipe = load_recipe(args.recipe)
    override(recipe, *args.keys, "engine.kind=deepspeed", "engine.zero_stage=1")
    prepared, cores = prepare(recipe), os.cpu_count() or 1
    lines: list[dict[str, Any]] = []
    for world in sorted({1, *args.processes}):
        found: dict[str, Any] = {"processes": world, **measure(recipe, prepared, world, args.steps)}
        one = lines[0] if lines else found
        found["samples_per_second"] = found["samples"] / (found["wall"] * (args.steps - WARM))
        found["efficiency"] = one["wall"] / found["wall"]
        found["of_ideal"] = found["efficiency"] * max(1.0, world / cores)
        found["cpu_efficiency"] = one["cpu"] / found["cpu"]
        lines.append(found)
    # one bandwidth for all, from two processes: what an all-reduce of the gradients costs a process
    two = next((line for line in lines if line["processes"] == 2), None)
    parameters = int(lines[0]["parameters"])
    # as the simulation counts it: 8 bytes a parameter times (N - 1) / N, which is a half for two processes
    link = 4 * parameters / two["ring"] if two and two["ring"] else float("inf")
    for line in lines:
        line["simulated"] = efficiency(lines[0]["cpu"], parameters, line["processes"], link)[0]
    print(__doc__)
    print(
        f"{recipe.name}: {parameters:,} parameters, {args.steps - WARM} steps counted, {cores} cores, one thread a "
        f"process, load {os.getloadavg()[0]:.1f}; an all-reduce of the gradients at {link / 1e6:.0f} MB/s of CPU time\n"
    )
    print(table(lines, cores))
    gpus = weak_scaling(recipe, args.gpu, [line["processes"] for line in lines])
    shown = ", ".join(f"{g['gpus']}: {g['efficiency'][0]:.1%} to {g['efficiency'][1]:.1%}" for g in gpus)
    print(f"\nsimulated on {args.gpu} (nothing or all of the communication hidden): {shown}")
    if args.out:
        about = {"date": time.strftime("%Y-%m-%d %H:%M"), "machine": machine(), "recipe": recipe.name}
        found = {"lines": lines, "link": link, "gpu": {"kind": args.gpu, "simulated": gpus}}
        keep(about | found, args.out, "weak-scaling")


if __name__ == "__main__":
    main()
