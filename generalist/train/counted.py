"""What one step of a recipe's tasks costs: parameters, FLOPs and bytes, counted.

Batches and candidate sets that would take a machine's memory are counted on a few of each
(`generalist.train.counting.few`).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Batch, Example
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.stream import Steps
from generalist.model.objective import Larger, Objective
from generalist.nn.mixers.table import layers_of, needs_of
from generalist.recipe.recipe import Recipe
from generalist.train.counting.few import SAMPLES, Drawn, Fewer, at_whole, fewer_of, small
from generalist.train.counting.unsummed import Unsummed
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
    batches = drawn(recipe, prepared, world)
    sets = fewer_of(prepared.sets, prepared.modalities, started_from(recipe).width)
    spec = started_from(recipe)
    stack = layers_of(spec)
    recipe.init = recipe.model.encoder_from = spec.encoder_from = ""  # what it starts from stands in the description
    if not stack or any(layer.stage for layer in stack):
        return staged(prepared, replace(recipe, model=spec), batches, sets)
    kinds = [layer for i, layer in enumerate(stack) if layer not in stack[:i]]
    number = [stack.count(layer) for layer in kinds]
    # behind every kind the same last layer, one that lets an asked token see the others
    last = next((layer for layer in reversed(stack) if needs_of(layer).reach == "all"), stack[-1])
    alone, *more = (
        measured(prepared, replace(recipe, model=spec.with_stack([*layers, last])), batches, sets)
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
        tokens = round(batch.tokens) + alone.candidates[name]
        if recipe.engine.activation_checkpointing:
            # every layer keeps its input alone, and one layer at a time is computed again
            flops += sum(n * f for n, f in zip(number, each, strict=True)) / 3
            held = alone.kept[name] - kept[at_last] + max(kept) + len(stack) * tokens * spec.width * 4
        out[name] = Counted(flops, held, tokens, batch.samples, batch.seconds)
    return int(parameters), int(max(layers)), out


def staged(
    prepared: Prepared, recipe: Recipe, batches: dict[str, Drawn], sets: dict[str, Fewer]
) -> tuple[int, int, dict[str, Counted]]:
    """The same of a model whose layers merge tokens, or that has none: one layer tells nothing of the others."""
    if recipe.model.layers and recipe.engine.activation_checkpointing:
        raise UserError("plan: layers that merge tokens are counted without engine.activation_checkpointing only")
    seen, out = measured(prepared, recipe, batches, sets), {}
    for name, batch in batches.items():
        tokens = round(batch.tokens) + seen.candidates[name]
        out[name] = Counted(seen.flops[name], seen.kept[name], tokens, batch.samples, batch.seconds)
    layers = prepared.model(recipe).encoder.layers
    return int(seen.parameters), max((sum(p.numel() for p in layer.parameters()) for layer in layers), default=0), out


def drawn(recipe: Recipe, prepared: Prepared, world: int) -> dict[str, Drawn]:
    """One micro batch of every task, or a few samples of a large one."""
    parts, width = world * recipe.engine.accumulate, started_from(recipe).width
    sizes = {name: task.batch // parts for name, task in prepared.tasks.items()}
    few = {name: min(SAMPLES, size) for name, size in sizes.items()}
    found = read(recipe, prepared, world, few)
    for name, one in found.items():
        one.seconds *= sizes[name] / few[name]
        one.samples = sizes[name]
    whole = {name: sizes[name] for name, one in found.items() if one.times > 1 and small(one.tokens, width)}
    return found | (read(recipe, prepared, world, whole) if whole else {})


def read(recipe: Recipe, prepared: Prepared, world: int, sizes: dict[str, int]) -> dict[str, Drawn]:
    """A first micro batch of so many samples of these tasks."""
    tasks, parts = prepared.tasks, world * recipe.engine.accumulate
    schedule = Schedule(list(tasks), [t.share for t in tasks.values()], recipe.seed)
    held: dict[str, list[Example]] = {}
    feeds = prepared.feeds()

    def collate(name: str, examples: list[Example]) -> Batch:
        held[name] = examples
        return feeds[name].collate(examples)

    several = {
        name: replace(feed, collate=partial(collate, name), batch=sizes.get(name, 1) * parts)
        for name, feed in feeds.items()
    }
    reader = Steps(several, schedule, recipe.seed, 0, world, recipe.engine.accumulate, "skip")
    found: dict[str, Drawn] = {}
    for step in range(100_000):
        name = schedule.task_at(step)
        if name in sizes and name not in found:
            began = time.perf_counter()
            batch = reader[step * recipe.engine.accumulate]
            found[name] = Drawn(batch, held[name], feeds[name].collate, sizes[name], time.perf_counter() - began)
        if len(found) == len(sizes):
            break
    return found


def measured(prepared: Prepared, recipe: Recipe, batches: dict[str, Drawn], sets: dict[str, Fewer]) -> Measured:
    model = prepared.model(recipe)
    at_most = max((len(own.sets) for own in sets.values()), default=1)
    chosen = [{name: own.sets[min(i, len(own.sets) - 1)] for name, own in sets.items()} for i in range(at_most)]
    objectives = [Objective(model, own, prepared.modalities) for own in chosen]
    trained = sum(p.numel() for p in objectives[0].parameters() if p.requires_grad)
    flops, kept = {}, {}
    known: dict[Hashable, tuple[float, float]] = {}
    for name, batch in batches.items():
        members = sets.get(batch.batch.candidates or "")
        alike = (type(prepared.tasks[name]), None if members is None else id(members.worded), batch.shape)
        if batch.times == 1 or alike not in known:
            known[alike] = whole_cost(objectives, batch, members)
        flops[name], kept[name] = known[alike]
    candidates = {
        name: 0 if batch.batch.candidates is None else sets[batch.batch.candidates].tokens
        for name, batch in batches.items()
    }
    return Measured(trained, flops, kept, candidates)


def whole_cost(objectives: list[Objective], drawn: Drawn, members: Fewer | None) -> tuple[float, float]:
    """`cost` of a whole batch, with as many members as there are. objectives: with the few members once, and twice."""
    several = objectives[: 1 if members is None else len(members.sets)]
    flops, kept = {}, {}
    shortened = drawn.times > 1 or len(several) > 1
    for m, objective in enumerate(several, 1):
        draws = dict(objective.named_buffers()).get("draws")
        first = None if draws is None else draws.clone()
        for r in drawn.repeats:
            if draws is not None and first is not None:
                draws.copy_(first)  # what is drawn for a batch is drawn alike at every point
            objective.larger = Larger(drawn.times / r, 1.0 if members is None else members.times / m)
            with Unsummed() if shortened else nullcontext():
                flops[r, m], kept[r, m] = cost(objective, drawn.repeated(r))
    return at_whole(flops, drawn, members), at_whole(kept, drawn, members)


def cost(objective: Objective, batch: Batch) -> tuple[float, float]:
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
