"""A run that starts from the weights of an earlier model: `generalist train RECIPE init=FOLDER`.

Stage 2 of a pre-training, fine-tuning and prompt tuning are the same recipe with another start. Every tensor is
accounted for: what is taken, what the new model has besides (its prompts, heads, scales and modalities), what of the
old model is left behind. A weight of another size, or one missing that the recipe did not ask for, is an error.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from generalist.convert.files import load_folder
from generalist.convert.report import Report
from generalist.data.base.errors import UserError
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.model.folder.referred import referred_tensors
from generalist.model.model import PackedModel
from generalist.recipe.encoder import HOW, EncoderSpec
from generalist.recipe.recipe import Recipe
from generalist.recipe.specs import ModelSpec
from generalist.shipped import model_folder
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.modalities import modality_class
from generalist.train.start.grow import begin_as_identity, going_on, grown_spec, grows, has_grown

# beginnings of names that a recipe adds to a model on purpose; modalities are judged by the folder's own list
NEW = ("prompts.", "linear_heads.", "log_scales.", "logit_biases.")
LAYERS = "encoder."
LAW = ("log_scales.", "logit_biases.")
SILENT = ("heads", "readout", *HOW)


def started_from(recipe: Recipe) -> ModelSpec:
    """The recipe's model; it computes as the encoder that it starts from (`init`, or else `model.encoder_from`).

    UserError: init holds no model; the recipe asks for another way to compute.
    """
    own = recipe.model
    home = initial_folder(Path(recipe.init)) if recipe.init else model_folder(Path(own.encoder_from))
    if not (recipe.init or own.encoder_from) or home is None:
        return own
    saved, usual, taken = GeneralistConfig.from_pretrained(home), EncoderSpec(), dict[str, Any]()
    if grows(saved):
        return grown_spec(own, saved)
    if has_grown(saved):
        return going_on(own, saved)
    ours, known, unset = own.described(), saved.described(), usual.described()
    for name in HOW:
        asked, theirs = ours[name], known[name]
        if asked not in (unset[name], theirs):
            raise _otherwise(home, name, theirs, asked)
        taken[name] = theirs
    return replace(own, **taken)


def law_of_start(recipe: Recipe) -> dict[str, Any]:
    """What a start's law has besides scales, as fields of the configuration: a bias or none, a clamp of its own."""
    if not recipe.init:
        return {}
    saved = GeneralistConfig.from_pretrained(initial_folder(Path(recipe.init)))
    return {"biases": saved.biases, "largest_scale": saved.largest_scale, "pairwise": saved.pairwise}


def initial_folder(folder: Path, key: str = "init") -> Path:
    """The model folder of a run's folder, a model's or a shipped name. UserError names the key where there is none."""
    home = model_folder(folder)
    if home is None:
        raise UserError(f"{key}={str(folder)!r} holds no model (no config.json); give a run's folder or a model's")
    return home


@torch.no_grad()
def load_initial(model: PackedModel, folder: Path) -> Report:
    """Take the weights of a saved model; the report of what was done with every tensor.

    Tables that are computed and not learnt (fixed positions at another picture size) stay the model's own.
    UserError: no model, one that computes otherwise (heads, activation), a learnt tensor of another size, a tensor
    missing that is not new, another text tokenizer.
    """
    home = initial_folder(folder)
    saved = GeneralistConfig.from_pretrained(home)
    theirs = load_folder(home) | referred_tensors(saved)
    settings = known(model.modalities, folder)
    _same_function(model, saved, folder)
    _same_words(model, settings, folder)
    own, learnt = model.state_dict(), {name for name, _ in model.named_parameters()}
    report = Report(f"init {folder}", unexpected=sorted(set(theirs) - set(own)))
    new = tuple(f"tokenizers.{name}." for name in model.modalities if name not in settings)
    if grows(saved):
        new = (*new, LAYERS)
        gains = begin_as_identity(model.encoder)
        report.notes.append(f"new layers that begin as the identity: {gains} gains of residual branches at zero")
    taken = {}
    for name, value in own.items():
        found = theirs.get(name)
        if found is None and grows(saved) and name.startswith(LAW):  # every task begins with the towers' own law
            kind = name.partition(".")[0]
            found = theirs.get(f"{kind}.{saved.zero_shot_scale}")
        if found is not None and found.shape == value.shape:
            taken[name] = found
        elif found is None and (name.startswith(NEW + new) or name.endswith("spe_bias")):
            if not (grows(saved) and name.startswith(LAYERS)):
                report.notes.append(f"new, as initialised: {name} {tuple(value.shape)}")
        elif name not in learnt:
            report.reshaped.append(f"{name}: computed, not learnt; {tuple(value.shape)} instead of the folder's")
        elif found is None:
            raise UserError(f"init={str(folder)!r} lacks {name}; give the recipe the sizes and modalities of its model")
        else:
            shapes = f"{tuple(found.shape)}, the model's {tuple(value.shape)}"
            raise UserError(f"init={str(folder)!r}: {name} is {shapes}; give the recipe the sizes of its model")
    if not learnt & set(taken):
        raise UserError(f"init={str(folder)!r}: no weight of it is in this model; give the recipe the same modalities")
    model.load_state_dict(taken, strict=False)
    report.loaded, report.parameters = len(taken), sum(value.numel() for value in taken.values())
    return report


def known(modalities: dict[str, Modality], folder: Path, key: str = "init") -> dict[str, Any]:
    """A saved model's settings of the modalities that are of the same class in both; another class under a name is
    another modality, whose weights begin anew."""
    theirs = GeneralistConfig.from_pretrained(initial_folder(folder, key)).modalities or {}
    shared = {name: theirs[name] for name in modalities if name in theirs}
    # the class itself and not its path, which may be a name of the table or where the class was in an earlier version
    return {n: s for n, s in shared.items() if modality_class(n, s.get("class")) is type(modalities[n])}


def _same_function(model: Any, saved: GeneralistConfig, folder: Path) -> None:
    """UserError where equal weights would compute something else: settings that no tensor's size shows."""
    known, own = saved.described(), model.config.described()
    for name in ("readout",) if grows(saved) else SILENT:
        theirs, ours = known[name], own[name]
        if theirs != ours:
            raise _otherwise(folder, name, theirs, ours)


def _otherwise(folder: Path, name: str, theirs: Any, ours: Any) -> UserError:
    return UserError(
        f"init={str(folder)!r}: its model has {name}={theirs!r}, the recipe's {ours!r}; equal weights would not be an "
        "equal model"
    )


def _same_words(model: Any, settings: dict[str, Any], folder: Path) -> None:
    """UserError where a modality has a learnt tokenizer and the saved model another: rows would mean other words."""
    for name, modality in model.modalities.items():
        if not modality.same_words(settings.get(name, {})):
            raise UserError(
                f"init={str(folder)!r}: its {name} has another tokenizer; set modalities.{name}.tokenizer to it, or to "
                "'' to take the one of init"
            )


def adopt_tokenizers(modalities: dict[str, Modality], folder: Path, key: str = "init") -> None:
    """Modalities that were to learn a tokenizer take the one of the saved model instead."""
    settings = known(modalities, folder, key)
    for name, modality in modalities.items():
        modality.adopt_words(settings.get(name, {}))
