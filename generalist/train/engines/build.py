"""The engine that a recipe asks for, on the device that it asks for."""

from __future__ import annotations

import torch

from generalist.data.base.errors import UserError
from generalist.machine import ranks
from generalist.model.objective import Objective
from generalist.recipe.recipe import Recipe
from generalist.train.engines.base import Engine, recompute_activations
from generalist.train.engines.compiled import compile_layers
from generalist.train.engines.local import LocalEngine
from generalist.train.optimizer import build_optimizer


def needs_group(recipe: Recipe) -> bool:
    """Whether this run trains with DeepSpeed: asked for, or launched as several processes."""
    kind = recipe.engine.kind
    if kind == "local" and ranks.launched_world() > 1:
        raise UserError(f"engine.kind=local is one process, and {ranks.launched_world()} were launched; use deepspeed")
    return kind == "deepspeed" or (kind == "auto" and ranks.launched_world() > 1)


def build_engine(recipe: Recipe, objective: Objective, device: torch.device) -> Engine:
    spec = recipe.engine
    if spec.compile:
        compile_layers(objective)
    if needs_group(recipe):
        from generalist.train.engines.deepspeed import DeepSpeedEngine

        return DeepSpeedEngine(objective, recipe, device)
    if spec.deepspeed or spec.offload != "none":
        raise UserError("engine.deepspeed and engine.offload need engine.kind=deepspeed (or several processes)")
    if spec.activation_checkpointing:
        recompute_activations(objective)
    optimizer = build_optimizer(recipe, objective, fused=True)
    return LocalEngine(objective, optimizer, device, spec.precision, recipe.optimizer.clip)


def device_of(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"engine.device={name!r} is not a device; use auto, cpu or cuda") from error
    if device.type == "cuda" and device.index is None:  # every rank of a machine has its own
        return torch.device("cuda", ranks.local_rank())
    return device
