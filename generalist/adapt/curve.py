"""What little data is worth: a method at several fractions of a set, beside its control."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from generalist.adapt.methods import FROZEN, METHODS, Tuned, Tuning, check_method, tune, zero_shot
from generalist.data.stream.source import Records
from generalist.hf.model import GeneralistModel
from generalist.tasks.kinds.classify import Classify
from generalist.tokenizers_mod.base.base import Modality


def with_controls(settings: list[Tuning]) -> list[Tuning]:
    """Every setting, those that hold the encoder fixed followed by their controls."""
    return [
        one for how in settings for one in ([how, replace(how, random_encoder=True)] if how.method in FROZEN else [how])
    ]


def curve(
    model: GeneralistModel,
    modalities: dict[str, Modality],
    task: Classify,
    training: Records,
    test: Records,
    how: list[Tuning],
    draws: int,
    after: Callable[[Tuning, int, Tuned], None] = lambda how, i, tuned: None,
) -> list[dict[str, Any]]:
    """Every setting over `draws` seeds: [{method, shots, fraction, samples, accuracy mean, std, each draw's}]."""
    for one in how:
        check_method(one.method)
    lines = []
    for one in how:
        found = []
        for i in range(1 if METHODS[one.method] is zero_shot else draws):
            tuned = tune(model, modalities, task, training, test, replace(one, seed=one.seed + i))
            after(one, i, tuned)
            found.append(tuned)
        values = torch.tensor([t.metrics["accuracy"] for t in found], dtype=torch.float64)
        lines.append(
            {
                "method": one.title,
                "shots": one.shots,
                "fraction": one.fraction,
                "samples": found[0].samples,
                "trained": sum(found[0].trained.values()),
                "accuracy": float(values.mean()),
                "std": float(values.std()) if len(values) > 1 else 0.0,
                "draws": values.tolist(),
                "seeds": [one.seed + i for i in range(len(found))],
                "n_test": len(test),
            }
        )
    return lines
