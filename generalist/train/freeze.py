"""Frozen and tuned encoders: where the shared encoder's weights come from, and what of a model trains.

    generalist train my.py model.encoder_from=DIR model.freeze=encoder                          frozen
    generalist train my.py model.encoder_from=DIR model.freeze=encoder model.random_encoder=true   its control
    generalist train my.py model.encoder_from=DIR model.freeze=encoder model.control=true          both, side by side

    generalist train my.py init=DIR model.freeze=all_but_prompts model.prompts=10       prompt tuning (deep prompts)
    generalist train my.py init=DIR model.layers=2 model.freeze=towers                  beside two towers (`grow`)

Prompt tuning has two more keys: modalities.text.spe_bias=true and model.linear_heads=true.

A frozen result means little without the same run on a frozen random encoder (`spec/meta-transformer.md` 2.3 shows a
published one that was never anything else), so the control is one key (`generalist.run.control`). Counts are of
everything that trains: tokenizers, tables, heads and scales as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from generalist.data.base.errors import UserError
from generalist.recipe.specs import check_freeze
from generalist.shipped import model_folder
from generalist.tokenizers_mod.base.tokenizer import Tokenizer

if TYPE_CHECKING:  # it brings transformers, which a recipe need not wait for
    from generalist.model.model import PackedModel


def load_encoder(model: PackedModel, folder: Path) -> int:
    """Copy the shared encoder of a model folder into `model`; the number of tensors.

    UserError: no model folder, or an encoder of another size, naming the first tensor.
    """
    from generalist.convert.files import load_folder

    home = model_folder(folder) or folder
    if not home.is_dir():
        raise UserError(
            f"model.encoder_from={str(folder)!r} is not a model folder; give one that holds model.safetensors"
        )
    prefix = "encoder."
    tensors = {k[len(prefix) :]: v for k, v in load_folder(home).items() if k.startswith(prefix)}
    own = model.encoder.state_dict()
    for name, value in own.items():
        if name not in tensors:
            raise UserError(f"{folder}: its encoder lacks {name}; set the model's sizes to those in its config.json")
        if tensors[name].shape != value.shape:
            raise UserError(
                f"{folder}: encoder tensor {name} is {tuple(tensors[name].shape)}, the model's {tuple(value.shape)}; "
                "set model.width, layers, heads and hidden to those in its config.json"
            )
    if extra := sorted(set(tensors) - set(own)):
        raise UserError(f"{folder}: its encoder has {extra[0]} and the model does not; raise model.layers")
    model.encoder.load_state_dict(tensors)
    return len(own)


def freeze(model: PackedModel, part: str) -> None:
    """Nothing of `part` trains from here on; the rest is left as it is. "all_but_prompts" is `prompt_tuning`."""
    check_freeze(part)
    if part == "all_but_prompts":
        from generalist.nn.prompts import prompt_tuning  # brings transformers, which a recipe need not wait for

        prompt_tuning(model)
    if part == "encoder":
        model.encoder.requires_grad_(False)
    if part == "towers":
        held = [m.hold() for m in model.tokenizers.values() if isinstance(m, Tokenizer)]
        if not any(held):
            raise UserError("model.freeze=towers: no modality of this model has a pretrained network; leave it out")


def trainable(model: nn.Module) -> int:
    """Parameters that train, all of them."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
