"""Where training begins: from the package's starter, where that knows more of these data.

Before anything is trained, a linear map is fitted on what each of two beginnings makes of some training samples - the
recipe as decided, with pretrained encoders or random weights, and the starter's encoder with its reading of pictures
and sounds - and judged on the fold that it did not see. The starter is taken where it is ahead by more than two
standard errors.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from generalist.adapt.methods import features
from generalist.data.stream.source import Records
from generalist.evaluate.unread import Unread, readable
from generalist.fitting.decide import copied
from generalist.fitting.defaults import PROBED, PROBED_A_SECOND, STARTER_LR
from generalist.fitting.inputs.encoders import TEXTS
from generalist.fitting.parts import Part
from generalist.recipe.load import read_recipe
from generalist.recipe.recipe import Recipe
from generalist.shipped import path
from generalist.tasks.base.task import Task
from generalist.tokenizers_mod.audio.audio import Audio
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.libraries.zoo import entry
from generalist.tokenizers_mod.pretrained.backbone import Backbone
from generalist.tokenizers_mod.pretrained.heard import Heard
from generalist.tokenizers_mod.pretrained.stages.stages import Stages
from generalist.tokenizers_mod.vision.image import Image
from generalist.train.prepare import prepare
from generalist.train.start.initial import load_initial

STARTER = "starter"
LEAST = 60  # training samples, below which nothing is compared
FOLDS = 5
READ: dict[type[Modality], str] = {Image: "image", Backbone: "image", Audio: "audio", Heard: "audio"}


@dataclass(frozen=True)
class Beginning:
    """What was found: the recipe to go on with, and a line of it, "" where there was nothing to compare."""

    recipe: Recipe
    told: str = ""


def better(recipe: Recipe, parts: Sequence[Part], seconds: float) -> Beginning:
    """The recipe, or the same from the starter. parts: of its data; seconds: given to all of `fit`."""
    other = from_starter(recipe) if [part.one_of for part in parts] == [True] else None
    most = min(PROBED, int(PROBED_A_SECOND * seconds))
    if other is None or most < LEAST:
        return Beginning(recipe)
    own, theirs = right(recipe, most), right(other, most)
    if own is None or theirs is None or len(own) != len(theirs):
        return Beginning(recipe)
    ahead = theirs - own
    error = float(ahead.std()) / len(ahead) ** 0.5
    taken = float(ahead.mean()) > 2 * error
    said = f"a linear map of {'it' if taken else 'the starter'} is right on {theirs.mean():.3f} of {len(own)} training"
    said += f" samples out of fold, of {'the usual beginning' if taken else 'what is taken'} on {own.mean():.3f}"
    if taken:
        return Beginning(other, f"begins from the package's starter: {said}")
    return Beginning(recipe, f"does not begin from the package's starter: {said}")


def from_starter(recipe: Recipe) -> Recipe | None:
    """The recipe of one task on the starter's encoder; None where that reads not all of its inputs."""
    known = read_recipe(path(STARTER) / "recipe.json")
    found = copied(recipe)
    (task,) = found.tasks
    reads = {name: READ.get(type(found.modalities[name])) for name in task.inputs}
    tails = any(isinstance(m, Backbone) and m.tail for m in found.modalities.values())
    if None in reads.values() or tails:  # a network whose last stages learn from a thousand pictures goes further
        return None
    inputs = {str(theirs): task.inputs[name] for name, theirs in reads.items()}  # a sound read twice is read once
    words = ["text"] if entry(TEXTS).installed else []  # names of classes mean what the starter has learnt of them
    kept = {name: m for name, m in found.modalities.items() if name not in task.inputs}
    found.modalities = kept | {name: plain(known.modalities[name]) for name in (*inputs, *words)}
    task.inputs = inputs
    found.model = replace(known.model)
    found.optimizer.lr = STARTER_LR
    found.init = STARTER
    found.engine.threads = recipe.engine.threads and known.engine.threads
    return found


def plain(modality: Modality) -> Modality:
    """As the starter reads, without what only its own training was for: weights come out of its folder."""
    return replace(modality, weights="", invert=0.0) if isinstance(modality, Stages) else modality


def right(recipe: Recipe, most: int) -> Tensor | None:
    """Which of `most` training samples a linear map of the untrained model's features, or of its pretrained encoders'
    vectors, gets right, fitted on the other folds: Float[n] of 0 and 1. None: too few, or of one class."""
    trial = copied(recipe)
    prepared = prepare(trial)
    (task,) = prepared.tasks.values()
    model = prepared.model(trial)
    if trial.init:
        load_initial(model, path(STARTER))
    # what cannot be read is counted and named by the training
    some = readable(task, prepared.records[task.name].spread(most), Unread(rate=1.0))
    with torch.no_grad():
        x, y = features(model.eval(), task, some)
    if len(y) < LEAST or len(y.unique()) < 2:
        return None
    found = [of_map(x, y)]
    if (vectors := encoded(task, some)) is not None:  # which say more by themselves than through random weights
        found.append(of_map(vectors, y))
    return max(found, key=lambda one: float(one.mean()))


def encoded(task: Task, records: Records) -> Tensor | None:
    """What pretrained encoders among a task's inputs make of records, Float[n D]; None without one or with gaps."""
    columns = []
    for name, field in task.inputs.items():
        found = (task.modalities[name].vector(records[i][field]) for i in range(len(records)))
        made = [vector for vector in found if vector is not None]
        if made and len(made) == len(records):
            columns.append(nn.functional.normalize(torch.from_numpy(np.stack(made)).float(), dim=-1))
    return torch.cat(columns, dim=-1) if columns else None


def of_map(x: Tensor, y: Tensor) -> Tensor:
    """Whether a logistic regression says y of x: Float[n D] and Int[n], each row by one of the other folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import KFold, cross_val_predict

    folds = KFold(FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with a sample or two, which are judged like the others
        said = cross_val_predict(LogisticRegression(C=100.0, max_iter=1000), x.numpy(), y.numpy(), cv=folds)
    return torch.from_numpy((said == y.numpy()).astype(np.float64))
