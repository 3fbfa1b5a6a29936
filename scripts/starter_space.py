"""The starter's space in one picture: words, pictures, sounds, clouds and rows of a table side by side.

Drawn by `python -m scripts.starter_pictures DATA` into scripts/bench_results/starter_space.png. Points that no training
showed (test splits), two dimensions of t-SNE on cosine distances. What all points of a modality have in common is taken
out first: it is most of the distance between modalities (Liang et al. 2022, 2203.02053) and says nothing of what is
shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generalist.data.sources.embedded import Embedded
from generalist.data.sources.shards import Shards
from generalist.hf.model import GeneralistModel
from scripts.starter_unseen import HEARD, SOLIDS, column, encode

EACH = 8  # points of a thing in a modality


@dataclass(frozen=True)
class Mark:
    """How a modality is drawn; named: each point with its name beside it."""

    label: str
    marker: str
    size: int = 28
    named: bool = False


KINDS = {
    "text": Mark("words", "*", 120, named=True),
    "image": Mark("pictures", "o"),
    "audio": Mark("sounds", "^"),
    "points": Mark("clouds", "s"),
    "table": Mark("rows of a table", "D"),
}


@dataclass
class Points:
    """What of a modality is shown: what each is of, and unit features Float[n D] without the modality's mean."""

    modality: str
    names: list[str]
    features: Tensor


def centred(model: GeneralistModel, modality: str, raws: Sequence[Any], names: Sequence[str]) -> Points:
    found = encode(model, modality, raws)
    return Points(modality, list(names), torch.nn.functional.normalize(found - found.mean(0), dim=-1))


def some(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Places of the first EACH of every wanted name."""
    return [i for name in wanted for i in [j for j, other in enumerate(names) if other == name][:EACH]]


def shown(model: GeneralistModel, sets: Path) -> list[Points]:
    """Things that are heard or stand in space, icons that are called like them, the words, and rows of a table."""
    icons, sounds = (Shards(str(sets / name)).open("test") for name in ("icons", "sounds"))
    solids = Embedded("solids").open("test").spread(200)
    words = {name.lower(): keys for name, keys in HEARD.items()} | SOLIDS
    called = column(icons, "text")
    of = [next((name for name, keys in words.items() if set(text.split()) & set(keys)), "") for text in called]
    at = some(of, list(words))
    found = [centred(model, "image", [icons[i]["image"] for i in at], [of[i] for i in at])]
    heard = [str(name).lower() for name in column(sounds, "class")]
    at = some(heard, [name.lower() for name in HEARD])
    found.append(centred(model, "audio", [sounds[i]["audio"] for i in at], [heard[i] for i in at]))
    kinds = [str(solids.info["classes"][i]) for i in column(solids, "label")]
    at = some(kinds, list(SOLIDS))
    found.append(centred(model, "points", [solids[i]["points"] for i in at], [kinds[i] for i in at]))
    rows = Embedded("breast_cancer").open("test")
    classes = [str(rows.info["classes"][i]) for i in column(rows, "label")]
    at = some(classes, rows.info["classes"])
    found.append(centred(model, "table", [rows[i]["row"] for i in at], [classes[i] for i in at]))
    names = [*words, *dict.fromkeys(classes)]
    return [*found, centred(model, "text", names, names)]


def draw(points: Sequence[Points], out: Path) -> None:
    """A mark a modality, a colour a thing, a word where the word is."""
    import matplotlib.pyplot as plt
    from sklearn.manifold import TSNE

    features = torch.cat([one.features for one in points]).numpy()
    flat = TSNE(2, metric="cosine", init="random", perplexity=12, random_state=0).fit_transform(features)
    names = list(dict.fromkeys(name for one in points for name in one.names))
    colours = dict(zip(names, plt.get_cmap("nipy_spectral")(np.linspace(0.03, 0.97, len(names))), strict=True))
    figure, place = plt.subplots(figsize=(9, 7))
    start = 0
    for one in points:
        x, y = flat[start : start + len(one.names)].T
        start += len(one.names)
        mark = KINDS[one.modality]
        place.scatter(x, y, s=mark.size, marker=mark.marker, c=[colours[name] for name in one.names], linewidths=0)
        if mark.named:
            for name, across, up in zip(one.names, x, y, strict=True):
                place.annotate(name, (across, up), fontsize=8, xytext=(4, 4), textcoords="offset points")
    marks = [plt.Line2D([], [], color="#555555", linestyle="", marker=mark.marker) for mark in KINDS.values()]
    place.legend(marks, [mark.label for mark in KINDS.values()], fontsize=8)
    place.axis("off")
    figure.tight_layout()
    figure.savefig(out, dpi=100)
    plt.close(figure)
