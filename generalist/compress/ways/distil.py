"""`distil:width=96,layers=2`: a smaller model learns the law's rankings from the one that is compressed.

The teacher is the source as it was read (`generalist.train.methods.distill`, in the law). Without sizes the model under
way is taught itself, so that `slice:0.5 distil` mends what slicing broke.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from generalist.compress.lessons import Pace, teach
from generalist.compress.work import Work, with_settings
from generalist.data.base.errors import UserError
from generalist.hf.model import GeneralistModel
from generalist.recipe.layers import divides

FRESH, MENDED = 2e-3, 5e-4  # peak rates


@dataclass
class Distil:
    """width, layers, heads, hidden: of the student, 0 = as the teacher's (heads and hidden then in the proportion of
    the widths); none of them: the model under way is the student. steps, seconds, lr: how long, and the peak rate.
    weight, temperature: as `distill.*` of a recipe. fresh: a student of other sizes takes over none of the teacher's
    tensors, not even those of its own size, such as a picture's convolutional stem; with weight=0 it learns alone.
    """

    width: int = 0
    layers: int = 0
    heads: int = 0
    hidden: int = 0
    steps: int = 600
    seconds: float = 90.0
    lr: float = 0.0
    weight: float = 1.0
    temperature: float = 2.0
    fresh: bool = False

    def check(self) -> None:
        for name in ("width", "layers", "heads", "hidden"):
            if vars(self)[name] < 0:
                raise UserError(f"distil: {name}={vars(self)[name]}; it must be at least 1, or 0 for the teacher's")
        if self.weight < 0 or not self.temperature > 0:
            raise UserError(f"distil: weight={self.weight:g}, temperature={self.temperature:g}: both are positive")
        self.pace.check("distil")

    @property
    def pace(self) -> Pace:
        return Pace(self.steps, self.seconds, self.lr)

    def run(self, work: Work) -> dict[str, Any]:
        if work.source is None:
            raise UserError("distil needs the folder of the model that teaches")
        lessons, other = work.lessons, bool(self.width or self.layers or self.heads or self.hidden)
        if other:
            work.becomes(self.student(work.model, lessons.recipe.seed))
        rate = FRESH if other else MENDED
        found = teach(work.model, lessons, self.pace, rate, work.source, self.weight, self.temperature)
        work.factors.clear()
        return {"parameters": sum(p.numel() for p in work.model.parameters()), **found}

    def student(self, teacher: Any, seed: int) -> GeneralistModel:
        """A model of these sizes. Unless it is `fresh`, tensors of equal name and size begin as the teacher's, its
        layers evenly spread."""
        config = teacher.config
        if config.steps:
            raise UserError("distil: this model's layers are listed one by one; give distil without sizes")
        layers, width = self.layers or config.layers, self.width or config.width
        chosen = spread(config.layers, layers)
        heads = self.heads or nearest_divisor(width, config.heads * width / config.width)
        hidden = self.hidden or max(1, round(config.hidden * width / config.width))
        if not config.head_dim:
            divides(heads, width)
        given = {"mixers": config.mixers, "channel_mixers": config.channel_mixers}
        lists = {name: [value[i] for i in chosen] for name, value in given.items() if isinstance(value, list)}
        torch.manual_seed(seed)
        made = with_settings(teacher, width=width, layers=layers, heads=heads, hidden=hidden, dropped_paths=[], **lists)
        if not self.fresh:
            made.load_state_dict(inherited(made.state_dict(), teacher.state_dict(), chosen), strict=False)
        return made


def spread(of: int, count: int) -> list[int]:
    """`count` numbers of 0 .. of-1, evenly, the first among them; repeated where there are fewer."""
    return [i * of // count for i in range(count)]


def nearest_divisor(width: int, wanted: float) -> int:
    """The divisor of a width that is nearest to a number."""
    return min((h for h in range(1, width + 1) if width % h == 0), key=lambda h: abs(h - wanted))


def inherited(own: dict[str, Tensor], theirs: dict[str, Tensor], chosen: list[int]) -> dict[str, Tensor]:
    """What a student takes over: tensors of the same name and size, layer i from the teacher's layer chosen[i]."""
    found = {}
    for name, value in own.items():
        source = re.sub(r"(?<=encoder\.layers\.)\d+", lambda number: str(chosen[int(number[0])]), name)
        if source in theirs and theirs[source].shape == value.shape:
            found[name] = theirs[source]
    return found
