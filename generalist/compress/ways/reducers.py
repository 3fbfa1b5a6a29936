"""`spatial` and `kmeans`: a finished model gets a step that leaves it fewer tokens of maps, and learns to do with them.

`spatial` puts ViT-Res' reduction (a quarter of a map's tokens), `kmeans` kMaX-DeepLab's clusters (so many tokens a map)
in front of a layer. The reduction begins as the mean of four tokens, the clusters as they are drawn. Then the whole
model is taught by the law and the source's ranking.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from generalist.compress.lessons import Lessons, Pace, teach
from generalist.compress.ways.steps import with_steps
from generalist.compress.work import Work
from generalist.data.base.errors import UserError
from generalist.nn.steps.base import may_change
from generalist.nn.steps.cluster import Cluster
from generalist.nn.steps.spatial import Spatial

RATE = 1e-3


@dataclass
class Reduced:
    """before: the layer that it stands in front of, 0 = the one in the middle. steps, seconds, lr: of the teaching."""

    before: int = 0
    steps: int = 400
    seconds: float = 90.0
    lr: float = 0.0

    def check(self) -> None:
        check_before("spatial", self.before)
        Pace(self.steps, self.seconds, self.lr).check("spatial")

    def run(self, work: Work) -> dict[str, Any]:
        number = inserted(work, {"kind": "spatial"}, self.before, "spatial")
        step = work.model.encoder.layers[number]
        assert isinstance(step, Spatial)
        for linear in (step.cells, step.other):
            torch.nn.init.zeros_(linear.weight)
            torch.nn.init.zeros_(linear.bias)
        return teach(work.model, work.lessons, Pace(self.steps, self.seconds, self.lr), RATE, work.source)


@dataclass
class KMeans:
    """tokens: that a map has from then on. before, steps, seconds, lr: as of `spatial`."""

    tokens: int = 16
    before: int = 0
    steps: int = 400
    seconds: float = 90.0
    lr: float = 0.0

    def check(self) -> None:
        check_before("kmeans", self.before)
        if self.tokens < 1:
            raise UserError(f"kmeans: tokens={self.tokens}; it must be at least 1, such as 16")
        Pace(self.steps, self.seconds, self.lr).check("kmeans")

    def run(self, work: Work) -> dict[str, Any]:
        number = inserted(work, {"kind": "cluster", "tokens": self.tokens}, self.before, "kmeans")
        step = work.model.encoder.layers[number]
        assert isinstance(step, Cluster)
        return teach(work.model, work.lessons, Pace(self.steps, self.seconds, self.lr), RATE, work.source)


def check_before(name: str, before: int) -> None:
    if before < 0:
        raise UserError(f"{name}: before={before}; it is the number of a layer, 0 = the one in the middle")


def inserted(work: Work, stage: dict[str, Any], before: int, name: str) -> int:
    """The number of the new step among the encoder's layers. UserError: no such layer, or nothing to reduce."""
    layers = work.model.config.layers
    place = before or layers // 2
    if not 0 <= place < layers:
        raise UserError(f"{name}: before={place}; this model has the layers 0 to {layers - 1}")
    if work.model.config.stack()[place].stage:
        raise UserError(f"{name}: a step stands in front of layer {place} already; give another with before=")
    if not has_maps(work.lessons):
        raise UserError(
            f"{name} leaves fewer tokens of pictures and other maps of two axes that no question stands at, and this "
            "model's tasks have none; leave it out"
        )
    (number,) = with_steps(work, {place: stage})
    return number


def has_maps(lessons: Lessons) -> bool:
    """Whether a batch of any task has tokens that a step may take out."""
    batches = islice(lessons.batches(), 20 * len(lessons.prepared.tasks))
    return any(may_change(p) for batch in batches for p in batch.inputs.layout.pieces or ())
