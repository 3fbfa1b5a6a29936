"""What a recipe needs on many GPUs, from counted FLOPs and bytes: memory a GPU at each ZeRO stage, speed, days.

Counted, not guessed: one micro step of every task runs here (on the CPU, with the recipe's own width, once with its
last layer and once with each kind of layer before it) under torch's FLOP counter and under hooks that see every tensor
kept for the backward pass; the difference is a layer, and the recipe's layers follow. Assumed, and printed as such: the
share of a GPU's peak that its kernels reach, and the bandwidth between GPUs.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from generalist.data.base.errors import UserError, nearest
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.stream import Steps
from generalist.model.objective import Objective
from generalist.nn.mixers.table import layers_of, needs_of
from generalist.recipe.recipe import Recipe
from generalist.train.prepare import Prepared, prepare
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


@dataclass
class Counted:
    """One micro step of one rank. flops: forward and backward; activations: bytes kept for the backward pass."""

    flops: float
    activations: float
    tokens: int
    samples: int
    decode_seconds: float


@dataclass
class Measured:
    """A model's trainable parameters, and of every task's batch: FLOPs, kept bytes and the candidates' tokens."""

    parameters: int
    flops: dict[str, float]
    kept: dict[str, float]
    candidates: dict[str, int]


def count(recipe: Recipe, world: int) -> tuple[int, int, dict[str, Counted]]:
    """Trainable parameters, those of the largest layer, and for every task what one micro step of one rank costs."""
    recipe = copy.deepcopy(recipe)
    parts = world * recipe.engine.accumulate
    for task in recipe.tasks:  # every rank gets as many samples; `plan` says where that makes a batch larger
        task.batch = -(-task.batch // parts) * parts
    prepared = prepare(recipe)
    batches, seconds = drawn(recipe, prepared, world)
    spec = started_from(recipe)
    stack = layers_of(spec)
    recipe.init = recipe.model.encoder_from = spec.encoder_from = ""  # what it starts from stands in the description
    if not stack or any(layer.stage for layer in stack):
        return staged(prepared, replace(recipe, model=spec), batches, seconds)
    kinds = [layer for i, layer in enumerate(stack) if layer not in stack[:i]]
    number = [stack.count(layer) for layer in kinds]
    # behind every kind the same last layer, one that lets an asked token see the others
    last = next((layer for layer in reversed(stack) if needs_of(layer).reach == "all"), stack[-1])
    alone, *more = (
        measured(prepared, replace(recipe, model=spec.with_stack([*layers, last])), batches)
        for layers in ([], *([layer] for layer in kinds))
    )
    at_last = kinds.index(last)

    def whole(of: Callable[[Measured], float], times: Sequence[float]) -> tuple[float, list[float]]:
        """What the model takes with so many layers of each kind, and one layer of each kind."""
        each = [of(two) - of(alone) for two in more]
        return of(alone) - each[at_last] + sum(n * one for n, one in zip(times, each, strict=True)), each

    parameters, layers = whole(lambda m: m.parameters, number)
    out = {}
    for name, batch in batches.items():
        flops, each = whole(lambda m: m.flops[name], number)  # noqa: B023  # called before the next name
        held, kept = whole(lambda m: m.kept[name], number)  # noqa: B023
        tokens = batch.inputs.tokens + (batch.partners.tokens if batch.partners is not None else 0)
        tokens += alone.candidates[name]
        if recipe.engine.activation_checkpointing:
            # every layer keeps its input alone, and one layer at a time is computed again
            flops += sum(n * f for n, f in zip(number, each, strict=True)) / 3
            held = alone.kept[name] - kept[at_last] + max(kept) + len(stack) * tokens * spec.width * 4
        out[name] = Counted(flops, held, tokens, batch.inputs.sequences, seconds[name])
    return int(parameters), int(max(layers)), out


def staged(
    prepared: Prepared, recipe: Recipe, batches: dict[str, Any], seconds: dict[str, float]
) -> tuple[int, int, dict[str, Counted]]:
    """The same of a model whose layers merge tokens, or that has none: one layer tells nothing of the others."""
    if recipe.model.layers and recipe.engine.activation_checkpointing:
        raise UserError("plan: layers that merge tokens are counted without engine.activation_checkpointing only")
    seen, out = measured(prepared, recipe, batches), {}
    for name, batch in batches.items():
        tokens = batch.inputs.tokens + (batch.partners.tokens if batch.partners is not None else 0)
        tokens += seen.candidates[name]
        out[name] = Counted(seen.flops[name], seen.kept[name], tokens, batch.inputs.sequences, seconds[name])
    layers = prepared.model(recipe).encoder.layers
    return int(seen.parameters), max((sum(p.numel() for p in layer.parameters()) for layer in layers), default=0), out


def drawn(recipe: Recipe, prepared: Prepared, world: int) -> tuple[dict[str, Any], dict[str, float]]:
    """One micro batch of every task, and the seconds that reading it took."""
    tasks = prepared.tasks
    schedule = Schedule(list(tasks), [t.share for t in tasks.values()], recipe.seed)
    reader = Steps(prepared.feeds(), schedule, recipe.seed, 0, world, recipe.engine.accumulate, "skip")
    batches: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for step in range(100_000):
        name = schedule.task_at(step)
        if name not in batches:
            began = time.perf_counter()
            batches[name] = reader[step * recipe.engine.accumulate]
            seconds[name] = time.perf_counter() - began
        if len(batches) == len(tasks):
            break
    return batches, seconds


def measured(prepared: Prepared, recipe: Recipe, batches: dict[str, Any]) -> Measured:
    objective = Objective(prepared.model(recipe), prepared.sets, prepared.modalities)
    trained = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    costs = {name: cost(objective, batch) for name, batch in batches.items()}
    candidates = {
        name: 0 if batch.candidates is None else objective.packed(batch.candidates).tokens
        for name, batch in batches.items()
    }
    return Measured(trained, {n: c[0] for n, c in costs.items()}, {n: c[1] for n, c in costs.items()}, candidates)


def cost(objective: Objective, batch: Any) -> tuple[float, float]:
    """FLOPs of forward and backward, and bytes of the tensors kept for the backward pass (parameters left out)."""
    own = {p.untyped_storage().data_ptr() for p in objective.parameters()}
    kept: dict[int, int] = {}

    def see(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    objective.train()
    if batch.candidates is not None:
        objective.packed(batch.candidates)  # made once, no part of a step
    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
            loss = objective(batch).sum()
        loss.backward()
    objective.zero_grad(set_to_none=True)
    return float(counter.get_total_flops()), float(sum(kept.values()))


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
    parameters, layer, counted = count(recipe, gpus)
    shares = Schedule([t.name for t in recipe.tasks], [t.share for t in recipe.tasks])
    half = recipe.engine.precision != "fp32"
    micro = recipe.engine.accumulate

    def mean(field: str) -> float:
        return sum(shares.share(name) * getattr(c, field) for name, c in counted.items())

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
        "stages": stages,
        "assumed": {"share_of_peak": EFFICIENCY, "link_bytes_per_second": kind.link, "loader_cores_a_gpu": cores},
    }


def table(result: dict[str, Any]) -> str:
    """The plan as text."""
    name, gpus = result["gpu"]["name"], result["gpus"]
    lines = [
        f"{result['recipe']}: {result['parameters']:,} trainable parameters on {gpus} x {name}",
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
    return "\n".join(lines)


def weak_scaling(recipe: Recipe, gpu: str, counts: list[int]) -> list[dict[str, Any]]:
    """The same work a GPU on more and more of them (stage 1): how much of the ideal speed the network leaves."""
    if gpu not in GPUS:
        raise UserError(f"--gpu {gpu!r}; {nearest(gpu, GPUS)} (known: {', '.join(GPUS)})")
    kind, half = GPUS[gpu], recipe.engine.precision != "fp32"
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
