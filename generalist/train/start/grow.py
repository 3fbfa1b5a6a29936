"""A run that grows two towers (`generalist.convert.pairs`): `generalist train RECIPE init=DIR model.layers=6`.

The start's modalities take the place of the recipe's of the same name, and those that the recipe lacks are added. Its
width and what it reads stay. The layers that are added begin as the identity: every residual branch has a gain that
starts at zero, so that before the first step all answers are the towers'.

    generalist train RECIPE init=DIR model.layers=2 model.freeze=towers     a new modality learns against both towers
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from generalist.data.base.errors import UserError
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.nn.encoder import Block
from generalist.recipe.encoder import HOW
from generalist.recipe.recipe import Recipe
from generalist.recipe.specs import ModelSpec
from generalist.tokenizers_mod.base.modalities import build_modalities
from generalist.tokenizers_mod.towers.tower import Tower

# what the start says of the features that are compared, whatever the recipe says
KEPT = ("embedding_norm", "final_norm", "readout", "output_head", "output_size", "output_bias", "output_norm")
SIZES = ("width", "heads", "hidden")
GAIN = 1e-4  # of the description: that the gains are there; they start at zero


def grows(saved: GeneralistConfig) -> bool:
    """Whether a model has no layers of its own, so that a run that starts from it adds its own."""
    return saved.layers == 0


def adopt_towers(recipe: Recipe, folder: Path) -> None:
    """Put the towers of a start, and what it has beside them, into the recipe, in place."""
    found = build_modalities(GeneralistConfig.from_pretrained(folder).modalities)
    if not any(isinstance(modality, Tower) for modality in found.values()):
        return
    for name, modality in found.items():
        if isinstance(modality, Tower) or name not in recipe.modalities:
            recipe.modalities[name] = modality


def has_grown(saved: GeneralistConfig) -> bool:
    """Whether a model with layers stands on towers: a run that starts from it goes on with its sizes."""
    return saved.layers > 0 and any(isinstance(m, Tower) for m in build_modalities(saved.modalities).values())


def going_on(own: ModelSpec, saved: GeneralistConfig) -> ModelSpec:
    """The recipe's model with the description of a start that has grown."""
    names = (*KEPT, *SIZES, "layers", "layer_scale", *HOW)
    known = saved.described()
    return replace(own, **{name: known[name] for name in names})


def grown_spec(own: ModelSpec, saved: GeneralistConfig) -> ModelSpec:
    """The recipe's layers on a start without any. UserError for layers that cannot begin as the identity."""
    known = saved.described()
    taken = {name: known[name] for name in KEPT}
    if own.width != saved.width:
        taken |= {name: known[name] for name in SIZES}
    found = replace(own, **taken)
    if not found.layers:
        return found
    if any(layer.stage for layer in found.stack()):
        raise UserError("model.steps: layers that merge tokens cannot begin as the identity; leave their stages out")
    if any(layer.norm == "post" for layer in found.stack()):
        raise UserError("model.norm=post: such layers cannot begin as the identity; set model.norm=pre")
    return replace(found, layer_scale=found.layer_scale or GAIN)


@torch.no_grad()
def begin_as_identity(encoder: nn.Module) -> int:
    """Every residual branch's gain at zero; the number of gains."""
    gains = [
        gain
        for block in encoder.modules()
        if isinstance(block, Block)
        for gain in (block.gamma1, block.gamma2)
        if gain is not None
    ]
    for gain in gains:
        gain.zero_()
    return len(gains)
