"""Data sets that need no download: they are inside installed libraries, or generated from a seed.

`Embedded("digits")` is one line in a recipe. Splits are disjoint by id and by content, and depend only
on the name, the seed and the options. To add a set: one builder, one line in `SETS`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from generalist.data.base.errors import UserError, nearest
from generalist.data.sources.embedded import images, series, synthetic, tables, text
from generalist.data.stream.source import Records

# name -> (builder, the packages to install for it). A builder takes `seed` and keyword options and
# returns {"train", "val", "test"} -> Records; it imports its libraries only when called.
SETS: dict[str, tuple[Callable[..., dict[str, Records]], str]] = {
    "digits": (images.digits, "scikit-learn"),
    "glyphs": (images.glyphs, "matplotlib pillow fonttools"),
    "docstrings": (text.docstrings, "numpy scipy scikit-learn statsmodels"),
    "wine": (tables.wine, "scikit-learn pandas"),
    "breast_cancer": (tables.breast_cancer, "scikit-learn pandas"),
    "diabetes": (tables.diabetes, "scikit-learn pandas"),
    "anes96": (tables.anes96, "statsmodels"),
    "fair": (tables.fair, "statsmodels"),
    "series": (series.series, "statsmodels"),
    "tones": (synthetic.tones, "numpy"),
    "solids": (synthetic.solids, "numpy"),
}


@dataclass
class Embedded:
    """An embedded data set as a source.

    name: one of `SETS`; seed: fixes the split, and the samples of the generated sets (`series` is split
    by time and ignores it); options: keyword arguments of the set's builder, such as {"lookback": 48}
    for "series" or {"size": 32} for "glyphs".
    """

    name: str
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    def open(self, split: str) -> Records:
        """The records of "train", "val" or "test"; built once a process. UserError on unknown names."""
        if self.name not in SETS:
            raise UserError(f"no embedded data set {self.name!r}: {nearest(self.name, SETS)}")
        builder, packages = SETS[self.name]
        known = [p for p in inspect.signature(builder).parameters if p != "seed"]
        for option in self.options:
            if option not in known:
                raise UserError(f"embedded set {self.name!r} has no option {option!r}: {nearest(option, known)}")
        if self.seed < 0:
            raise UserError(f"embedded set {self.name!r}: seed={self.seed} must not be negative")
        options = tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in sorted(self.options.items()))
        try:
            splits = _build(self.name, self.seed, options)
        except ModuleNotFoundError as missing:
            raise UserError(f"embedded set {self.name!r} needs {missing.name}: pip install {packages}") from missing
        if split not in splits:
            raise UserError(f"embedded set {self.name!r} has no split {split!r}: {nearest(split, splits)}")
        return splits[split]


@cache
def _build(name: str, seed: int, options: tuple) -> dict[str, Records]:
    return SETS[name][0](seed=seed, **dict(options))
