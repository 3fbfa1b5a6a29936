"""What the starter is worth with labelled data: other sets at 1 to 100 %, probed and tuned by every method.

Sets whose modality the starter has: digits, fashion_mnist, cifar10_subset and pneumonia as pictures, lowpoly as clouds,
fsdd as sound, spoken by people who say nothing in training; and drawn as pictures (`scripts.starter_drawn`) landsat,
watch, of persons not in training, and japanese_vowels. None of them is trained on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generalist.adapt import methods
from generalist.adapt.fewshot import draw
from generalist.adapt.methods import Tuning
from generalist.data.sources.embedded import Embedded
from generalist.data.stream.source import Chosen, Records
from generalist.hf.model import GeneralistModel
from generalist.recipes import sensed_sets
from generalist.tasks.kinds.classify import Classify
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.tokenizer import bare
from scripts.starter_drawn import DRAWN, drawn

READ_AS = {"xray": "image"}  # modality of the recipe's sets -> the starter's
SHARES = (0.01, 0.02, 0.05, 0.1, 1.0)
METHODS = ("prompts", "lora", "full")
STEPS, MORE, MANY = 100, 300, 0.1  # of tuning, and with at least so large a share of the labels
DRAWS = 3
MOST = (4000, 1000)  # records of a training and of a test split that are looked at, evenly spread
Line = dict[str, Any]


NAMED = ("digits", "fashion_mnist", "cifar10", "pneumonia", "lowpoly", "fsdd", *DRAWN)


def sets(data: Path, only: Collection[str] = ()) -> Iterator[Classify]:
    """The sets as tasks of the starter's modalities, all or `only` some; those that are not there are left out."""
    parts = (sensed_sets.pictures, sensed_sets.clips_and_clouds, sensed_sets.sounds, sensed_sets.motion)
    found = [task for part in parts for task in part(data)]
    for task in [Classify(name="digits", source=Embedded("digits"), inputs={"image": "image"}), *found]:
        if task.name not in (only or NAMED) or not isinstance(task, Classify):
            continue
        inputs = {READ_AS.get(modality, modality): name for modality, name in task.inputs.items()}
        yield drawn(task) if task.name in DRAWN else replace(task, inputs=inputs)


def opened(task: Classify) -> tuple[Records, Records]:
    return task.open("train").spread(MOST[0]), task.open("test").spread(MOST[1])


def numbers(chosen: Records, of: Records) -> list[int]:
    """Which of the records a draw took."""
    assert isinstance(chosen.rows, Chosen) and chosen.rows.rows is of.rows
    return chosen.rows.numbers


def fitted(x: Tensor, y: Tensor, held: Tensor, labels: Tensor) -> float:
    """Accuracy of a logistic regression, as `generalist.adapt.methods.probe` fits it."""
    from sklearn.linear_model import LogisticRegression

    found = LogisticRegression(C=100.0, max_iter=1000).fit(x.numpy(), y.numpy())
    return float((found.predict(held.numpy()) == labels.numpy()).mean())


def probed(
    model: GeneralistModel, modalities: dict[str, Modality], data: Path, only: Collection[str] = ()
) -> Iterator[Line]:
    """A linear probe on frozen features of every set, at every share; each record is encoded once."""
    for task in sets(data, only):
        training, test = opened(task)
        methods.bind(model, modalities, task, training)
        x, y = methods.features(model, task, training)
        held, labels = methods.features(model, task, test)
        for share in SHARES:
            values = []
            for seed in range(DRAWS if share < 1 else 1):
                rows = draw(training, task.index, None, share, seed) if share < 1 else training
                chosen = numbers(rows, training) if share < 1 else list(range(len(training)))
                values.append(fitted(x[chosen], y[chosen], held, labels))
            yield line(task.name, "probe", share, values, len(labels.unique()))


def tuned(
    model: GeneralistModel,
    modalities: dict[str, Modality],
    data: Path,
    only: Collection[str] = (),
    shares: Sequence[float] = SHARES,
) -> Iterator[Line]:
    """Prompts, LoRA and all weights of every set, at these shares of the labels."""
    for share in shares:
        for task in sets(data, only):
            training, test = opened(task)
            steps = MORE if share >= MANY else STEPS
            for method in METHODS:
                values = []
                for seed in range(DRAWS if share < 1 else 1):
                    how = Tuning(method, fraction=share if share < 1 else None, steps=steps, seed=seed)
                    values.append(methods.tune(model, modalities, task, training, test, how).metrics["accuracy"])
                assert task.candidates is not None
                yield line(task.name, method, share, values, len(task.candidates.offered()))


def line(name: str, method: str, share: float, values: list[float], classes: int) -> Line:
    value = [float(np.mean(values)), float(np.std(values, ddof=1))] if len(values) > 1 else values
    return {"what": name, "measure": f"{method} {share:.0%}", "value": value, "chance": 1 / classes}


def fresh(like: GeneralistModel, seed: int = 0) -> GeneralistModel:
    """The control: the same model with every weight drawn anew, also those that began pretrained."""
    torch.manual_seed(seed)
    with bare():
        return GeneralistModel(like.config).eval()


def begun(like: GeneralistModel, seed: int = 0) -> GeneralistModel:
    """The other control: the same model as its training began, with the pretrained weights that it began from."""
    torch.manual_seed(seed)
    return GeneralistModel(like.config).eval()
