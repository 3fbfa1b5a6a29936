"""What a recipe needs on many GPUs, from counted FLOPs and bytes: memory a GPU at each ZeRO stage, speed, days.

Counted, not guessed: one micro step of every task runs here (on the CPU, with the recipe's own width, once with its
last layer and once with each kind of layer before it) under torch's FLOP counter and under hooks that see every tensor
kept for the backward pass; the difference is a layer, and the recipe's layers follow. Of a large batch a few samples
run, of a large candidate set a few members, and the whole follows (`generalist.train.counting.few`). Assumed, and
printed as such: the share of a GPU's peak that its kernels reach, and the bandwidth between GPUs.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import Any

from generalist.data.base.errors import UserError, nearest
from generalist.data.stream.schedule import Schedule
from generalist.nn.mixers.table import kept_line, kept_while_writing
from generalist.recipe.recipe import Recipe
from generalist.tasks.base.stand_ins import stand_in
from generalist.train.counted import count
from generalist.train.start.initial import started_from

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """memory in bytes; dense peak in FLOP/s for bf16 and fp32 (TF32 where there is one); link: bytes/s to others."""

    memory: float
    bf16: float
    fp32: float
    link: float


# The vendor's data sheets (dense, without sparsity); link: one 400 Gb/s network card a GPU, the narrowest way.
GPUS = {
    "a100": Gpu(80e9, 312e12, 156e12, 25e9),
    "h100": Gpu(80e9, 989e12, 494e12, 50e9),
    "h200": Gpu(141e9, 989e12, 494e12, 50e9),
    "b200": Gpu(180e9, 2250e12, 1100e12, 50e9),
}
EFFICIENCY = 0.4  # assumed share of the peak that the kernels reach


def state_bytes(parameters: int, layer: int, stage: int, world: int) -> dict[str, float]:
    """Bytes a process of parameters, gradients and optimiser (fp32, two moments) at a ZeRO stage (1910.02054).

    Stages 1 to 3 keep the optimiser's own fp32 copy of its part; at stage 3 one layer is whole at a time.
    """
    n = float(parameters)
    if stage == 0:
        return {"parameters": 4 * n, "gradients": 4 * n, "optimizer": 8 * n}
    return {
        "parameters": 4 * n if stage < 3 else 4 * n / world + 4 * layer,
        "gradients": 4 * n if stage < 2 else 4 * n / world,
        "optimizer": 12 * n / world,
    }


def plan(recipe: Recipe, gpus: int, gpu: str, cores: int = 8) -> dict[str, Any]:
    """The whole plan as JSON. gpus: processes; cores: loader cores a GPU."""
    if gpu not in GPUS:
        raise UserError(f"--gpu {gpu!r}; {nearest(gpu, GPUS)} (known: {', '.join(GPUS)})")
    if gpus < 1:
        raise UserError(f"--gpus must be at least 1, got {gpus}")
    kind = GPUS[gpu]
    recipe = copy.deepcopy(recipe)
    missing = stand_in(recipe.tasks, recipe.modalities)
    parameters, layer, counted = count(recipe, gpus)
    shares = Schedule([t.name for t in recipe.tasks], [t.share for t in recipe.tasks])
    half = recipe.engine.precision in ("bf16", "fp16")
    micro = recipe.engine.accumulate

    def mean(field: str) -> float:
        return sum(shares.share(name) * vars(c)[field] for name, c in counted.items())

    # autocast keeps most activations in half the bytes
    activations = max(c.activations for c in counted.values()) * (0.5 if half else 1.0)
    flops = mean("flops") * micro
    compute = flops / (EFFICIENCY * (kind.bf16 if half else kind.fp32))
    decode = mean("decode_seconds") / mean("samples")
    stages = {}
    for stage in range(4):
        held = state_bytes(parameters, layer, stage, gpus) | {"activations": activations}
        # ring: gradients out and in at stages 0 to 2; stage 3 gathers the weights twice more instead
        passes = 0 if gpus == 1 else 2 if stage < 3 else 3
        talk = passes * 4 * parameters * (gpus - 1) / gpus / kind.link
        seconds = max(compute, talk)
        samples = mean("samples") * micro * gpus / seconds
        stages[stage] = {
            "gib": {name: round(value / GIB, 4) for name, value in held.items()},
            "gib_total": round(sum(held.values()) / GIB, 4),
            "fits": sum(held.values()) < 0.9 * kind.memory,
            "step_ms": {"compute": round(compute * 1e3, 4), "communication": round(talk * 1e3, 4)},
            "tokens_per_second": round(mean("tokens") * micro * gpus / seconds),
            "mfu": round(flops / (seconds * (kind.bf16 if half else kind.fp32)), 4),
            "days": round(recipe.steps * seconds / 86400, 5),
            "loader_headroom": round(cores * gpus / decode / samples, 3),
        }
    return {
        "recipe": recipe.name,
        "gpus": gpus,
        "gpu": {"name": gpu, **asdict(kind)},
        "parameters": parameters,
        "parameters_of_a_layer": layer,
        "tasks": {name: asdict(c) for name, c in counted.items()},
        "larger_batches": {
            t.name: counted[t.name].samples * gpus * micro
            for t in recipe.tasks
            if counted[t.name].samples * gpus * micro > t.batch
        },
        "kept_while_writing": kept_while_writing(started_from(recipe)),
        "stages": stages,
        "assumed": {"share_of_peak": EFFICIENCY, "link_bytes_per_second": kind.link, "loader_cores_a_gpu": cores},
        "missing": missing,
    }


def table(result: dict[str, Any]) -> str:
    """The plan as text."""
    name, gpus = result["gpu"]["name"], result["gpus"]
    lines = [
        f"{result['recipe']}: {result['parameters']:,} trainable parameters on {gpus} x {name}",
        kept_line(result["kept_while_writing"]),
        "",
        "task              tokens  samples  GFLOP     activations MiB  (one micro step of one GPU, counted here)",
    ]
    for task, c in result["tasks"].items():
        lines.append(
            f"{task:16s}  {c['tokens']:6d}  {c['samples']:7d}  {c['flops'] / 1e9:8.3f}  {c['activations'] / 2**20:8.2f}"
        )
    lines += [
        "",
        "ZeRO  parameters  gradients  optimizer  activations  total GiB  fits  tokens/s     MFU    days     loader",
    ]
    for stage, s in result["stages"].items():
        parts = "  ".join(f"{s['gib'][k]:9.3f}" for k in ("parameters", "gradients", "optimizer", "activations"))
        lines.append(
            f"{stage:4d}  {parts}  {s['gib_total']:10.3f}  {'yes' if s['fits'] else 'no':4s}  "
            f"{s['tokens_per_second']:<11d}  {s['mfu']:.3f}  {s['days']:<7.3g}  {s['loader_headroom']:.3g}x"
        )
    a = result["assumed"]
    if result["larger_batches"]:
        shown = ", ".join(f"{name} {size}" for name, size in result["larger_batches"].items())
        lines += ["", f"batches that must grow to be shared by all GPUs: {shown}"]
    lines += [
        "",
        f"assumed: kernels reach {a['share_of_peak']:.0%} of the peak; "
        f"{a['link_bytes_per_second'] / 1e9:.0f} GB/s a GPU to the others, hidden behind compute; "
        f"{a['loader_cores_a_gpu']} loader cores a GPU, as fast as this one",
    ]
    if missing := result["missing"]:
        lines += [
            "",
            f"not there yet, so that examples were counted in their place (texts at their full length, classes as the "
            f"recipe names them or three, nothing decoded): {', '.join(missing)}",
        ]
    return "\n".join(lines)


def weak_scaling(recipe: Recipe, gpu: str, counts: list[int]) -> list[dict[str, Any]]:
    """The same work a GPU on more and more of them (stage 1): how much of the ideal speed the network leaves."""
    if gpu not in GPUS:
        raise UserError(f"--gpu {gpu!r}; {nearest(gpu, GPUS)} (known: {', '.join(GPUS)})")
    kind, half = GPUS[gpu], recipe.engine.precision in ("bf16", "fp16")
    parameters, _, counted = count(recipe, 1)
    shares = Schedule([t.name for t in recipe.tasks], [t.share for t in recipe.tasks])
    flops = sum(shares.share(n) * c.flops for n, c in counted.items()) * recipe.engine.accumulate
    compute = flops / (EFFICIENCY * (kind.bf16 if half else kind.fp32))
    out = []
    for gpus in counts:
        low, high = efficiency(compute, parameters, gpus, kind.link)
        out.append({"gpus": gpus, "efficiency": [round(low, 4), round(high, 4)]})
    return out


def efficiency(compute: float, parameters: int, world: int, link: float) -> tuple[float, float]:
    """The share of the ideal speed that is left where nothing of the communication is hidden, and where all is.

    compute: seconds of a step; communication: a ring all-reduce of the fp32 gradients at `link` bytes/s (stage 1).
    """
    talk = 0.0 if world == 1 else 8 * parameters * (world - 1) / world / link
    return compute / (compute + talk), compute / max(compute, talk)
