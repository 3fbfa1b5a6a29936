"""Steps that a saved model gets between its layers, and where its layers then stand."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from typing import Any

import torch

from generalist.compress.work import Work, with_settings
from generalist.data.base.errors import UserError
from generalist.nn.encoder import Block
from generalist.nn.mixers.table import layers_of


def numbers_of(model: Any) -> list[int]:
    """The numbers of the blocks among the encoder's layers."""
    return [i for i, one in enumerate(model.encoder.layers) if isinstance(one, Block)]


def with_steps(work: Work, stages: dict[int, dict[str, Any]]) -> list[int]:
    """The model gets these steps in front of its blocks, {block: step}; their numbers among the encoder's layers.

    All else stays as it is; the steps begin as they are made.
    """
    model, config = work.model, work.model.config
    if config.dropped_paths:
        raise UserError("paths numbers this model's layers, so that no step can go between them; give paths last")
    stack = layers_of(config)
    stack = [replace(one, stage=stages[i]) if i in stages else one for i, one in enumerate(stack)]
    moe = asdict(config.moe) | {"placement": "none"}  # experts stand in the stack by name
    torch.manual_seed(0)
    made = with_settings(model, steps=[asdict(one) for one in stack], layers=len(stack), moe=moe)
    moved, new, places = {}, 0, []
    of_block = {number: block for block, number in enumerate(numbers_of(model))}
    for old, _ in enumerate(model.encoder.layers):
        if of_block.get(old) in stages:
            places.append(new)
            new += 1
        moved[old] = new
        new += 1
    state = {
        re.sub(r"(?<=^encoder\.layers\.)\d+", lambda number: str(moved[int(number[0])]), name): value
        for name, value in model.state_dict().items()
    }
    missing, unexpected = made.load_state_dict(state, strict=False)
    begins = tuple(f"encoder.layers.{place}." for place in places)
    assert not unexpected and all(name.startswith(begins) for name in missing)
    work.becomes(made)
    return places
