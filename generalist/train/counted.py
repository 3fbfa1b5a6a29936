"""What one step of a recipe's tasks costs: parameters, FLOPs and bytes counted on shapes alone, or seconds measured."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from generalist.data.base.errors import UserError
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.stream import Steps
from generalist.model.objective import Objective
from generalist.nn.mixers.table import layers_of, needs_of
from generalist.recipe.recipe import Recipe
from generalist.train.prepare import Prepared, prepare
from generalist.train.start.initial import started_from


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
