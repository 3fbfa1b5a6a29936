"""What the starter knows untrained: names of unseen sets, emoji, glyphs, a sound never heard, pairs never met."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generalist.data.batch.pack import pack
from generalist.data.files.cache import SizedCache, default_folder
from generalist.data.sources.embedded import Embedded
from generalist.data.sources.shards import Shards
from generalist.data.stream.source import Records
from generalist.hf.model import GeneralistModel
from generalist.tokenizers_mod.base.cached import CachedRead, cache_reads
from scripts.starter_data import APART, SILENT

NAMES = 1000  # of an unseen set, drawn three times
DRAWS = 3
BATCH = 256
CACHE = int(2e9)  # bytes of embedded texts on disk, those of training among them
HIGH_CONTRAST = "fluent-emoji-high-contrast"  # whose draughtsman is also that of two sets of training
# sounds and solids -> words, of which one in an icon's name makes it a picture of the same thing
HEARD = {
    "Baby cry": ("baby",),
    "Chainsaw": ("chainsaw", "saw"),
    "Clock tick": ("clock", "alarm"),
    "Dog bark": ("dog",),
    "Fire crackling": ("fire", "flame"),
    "Helicopter": ("helicopter",),
    "Person sneeze": ("sneezing",),
    "Rain": ("rain",),
    "Rooster": ("rooster", "chicken"),
    "Sea waves": ("wave", "waves", "ocean"),
}
SOLIDS = {
    "sphere": ("sphere", "ball"),
    "cube": ("cube",),
    "cylinder": ("cylinder",),
    "cone": ("cone",),
    "torus": ("ring",),
}
CATEGORIES = {"Food & Drink": "food or drink", "Animals & Nature": "animal or plant", "Activities": "sport or game"}
Line = dict[str, Any]


@torch.no_grad()
def encode(model: GeneralistModel, modality: str, raws: Sequence[Any]) -> Tensor:
    """Unit features Float[n D] of raw values of one modality, read at the summary token."""
    summary, own = model.modalities["summary"], model.modalities[modality]
    found = []
    for start in range(0, len(raws), BATCH):
        spans = [own.span(own.read(raw)) for raw in raws[start : start + BATCH]]
        packed = pack([[summary.span(None).ask([0]), span] for span in spans])
        found.append(torch.nn.functional.normalize(model.features(packed).float(), dim=-1))
    return torch.cat(found)


def column(records: Records, name: str) -> list[Any]:
    return [records[i][name] for i in range(len(records))]


def recall(pictures: Tensor, names: Tensor, right: Sequence[int], k: int) -> float:
    """Share of pictures whose right name is among the k nearest."""
    scores = pictures @ names.T
    own = scores[torch.arange(len(right)), torch.as_tensor(right)]
    return float(((scores > own[:, None]).sum(1) < k).float().mean())


def spread(values: Sequence[float]) -> list[float]:
    """[mean, spread] over draws."""
    return [float(np.mean(values)), float(np.std(values, ddof=1))]


def drawn(names: Sequence[str], seed: int, count: int = NAMES) -> list[int]:
    """Places of pictures with `count` different names."""
    order = np.random.default_rng(seed).permutation(len(names))
    first: dict[str, int] = {}
    for place in order.tolist():
        first.setdefault(names[place], place)
    return list(first.values())[:count]


def icons(model: GeneralistModel, sets: Path) -> list[Line]:
    """Names of whole sets that training never saw: all of them, and those of draughtsmen that it never saw."""
    held = Shards(str(sets / "icons")).open("test")
    names, made_by = column(held, "text"), column(held, "set")
    pictures = encode(model, "image", column(held, "image"))
    words = {name: i for i, name in enumerate(dict.fromkeys(names))}
    texts = encode(model, "text", list(words))
    others = [i for i, name in enumerate(made_by) if name != HIGH_CONTRAST]
    lines = []
    for what, among in (("icons of unseen sets", list(range(len(names)))), ("the same without Fluent's", others)):
        for k in (1, 5):
            values = []
            for seed in range(DRAWS):
                chosen = [among[i] for i in drawn([names[i] for i in among], seed)]
                asked = texts[[words[names[i]] for i in chosen]]
                values.append(recall(pictures[chosen], asked, range(len(chosen)), k))
            lines.append({"what": what, "measure": f"R@{k} of {NAMES}", "value": spread(values), "chance": k / NAMES})
    return lines


def emoji(model: GeneralistModel, sets: Path) -> list[Line]:
    """The descriptions of emoji that no training picture shows, and whole categories by one name."""
    held = Shards(str(sets / "emoji")).open("test")
    names = column(held, "text")
    places = {name: i for i, name in enumerate(dict.fromkeys(names))}
    pictures, texts = encode(model, "image", column(held, "image")), encode(model, "text", list(places))
    right = [places[name] for name in names]
    lines: list[Line] = [
        {
            "what": "unseen emoji",
            "measure": f"R@{k} of {len(places)}",
            "value": [recall(pictures, texts, right, k)],
            "chance": k / len(places),
        }
        for k in (1, 5)
    ]
    kinds = column(held, "category")
    apart = [i for i, kind in enumerate(kinds) if kind in APART]
    asked = encode(model, "text", [CATEGORIES[kind] for kind in APART])
    value = recall(pictures[apart], asked, [APART.index(kinds[i]) for i in apart], 1)
    lines.append({"what": "unseen categories of emoji", "measure": "accuracy of 3", "value": [value], "chance": 1 / 3})
    return lines


def glyphs(model: GeneralistModel) -> list[Line]:
    """Unicode names of characters that training never showed."""
    held = Embedded("glyphs", options={"size": 32}).open("test")
    pictures, texts = encode(model, "image", column(held, "image")), encode(model, "text", column(held, "text"))
    n = len(held)
    return [
        {
            "what": "unseen glyphs",
            "measure": f"R@{k} of {n}",
            "value": [recall(pictures, texts, range(n), k)],
            "chance": k / n,
        }
        for k in (1, 5)
    ]


def digits(model: GeneralistModel) -> list[Line]:
    """Handwritten digits by their names, of which training saw none."""
    held = Embedded("digits").open("test")
    words = encode(model, "text", [f"number {name}" for name in held.info["classes"]])
    value = recall(encode(model, "image", column(held, "image")), words, column(held, "label"), 1)
    return [{"what": "handwritten digits, zero-shot", "measure": "accuracy of 10", "value": [value], "chance": 0.1}]


def sounds(model: GeneralistModel, sets: Path) -> list[Line]:
    """Sounds of the test fold by sentences, and those of the class that no training sample is of."""
    held = Shards(str(sets / "sounds")).open("test")
    classes = column(held, "class")
    names = dict(zip(classes, column(held, "text"), strict=True))
    order = sorted(names)
    texts, heard = encode(model, "text", [names[name] for name in order]), encode(model, "audio", column(held, "audio"))
    right = [order.index(name) for name in classes]
    lines = []
    for what, chosen in (
        ("sounds of the test fold", [i for i, name in enumerate(classes) if name != SILENT]),
        (f"sounds of a class never heard ({SILENT.lower()})", [i for i, name in enumerate(classes) if name == SILENT]),
    ):
        value = recall(heard[chosen], texts, [right[i] for i in chosen], 1)
        lines.append({"what": what, "measure": f"accuracy of {len(order)}", "value": [value], "chance": 1 / len(order)})
    return lines


def never_paired(model: GeneralistModel, sets: Path) -> list[Line]:
    """Sounds and solids that find icons of the same thing, which they met through words only."""
    held = Shards(str(sets / "icons")).open("test")
    names, pictures = column(held, "text"), None
    heard = Shards(str(sets / "sounds")).open("test")
    solids = Embedded("solids").open("test")
    kinds = solids.info["classes"]
    askers: list[tuple[str, str, list[Any], list[str], dict[str, tuple[str, ...]]]] = [
        ("sound finds icon", "audio", column(heard, "audio"), column(heard, "class"), HEARD),
        (
            "solid finds icon",
            "points",
            column(solids, "points")[:200],
            [kinds[i] for i in column(solids, "label")][:200],
            SOLIDS,
        ),
    ]
    lines = []
    for what, modality, raws, labels, words in askers:
        shown = {label: {i for i, name in enumerate(names) if set(name.split()) & set(words[label])} for label in words}
        some = sorted(set().union(*shown.values()))
        rest = [i for i in np.random.default_rng(0).permutation(len(names)).tolist() if i not in set(some)]
        gallery = [*some, *rest[: NAMES - len(some)]]
        pictures = encode(model, "image", [held[i]["image"] for i in gallery])
        asked = [i for i, label in enumerate(labels) if shown.get(label)]
        near = (encode(model, modality, [raws[i] for i in asked]) @ pictures.T).topk(5).indices.tolist()
        found = [any(gallery[j] in shown[labels[i]] for j in five) for i, five in zip(asked, near, strict=True)]
        chance = [1 - comb(NAMES - len(shown[labels[i]]), 5) / comb(NAMES, 5) for i in asked]
        lines.append(
            {
                "what": what,
                "measure": f"R@5 of {NAMES}",
                "value": [float(np.mean(found))],
                "chance": float(np.mean(chance)),
            }
        )
    return lines


def unseen(model: GeneralistModel, sets: Path) -> list[Line]:
    """Every line; `sets` is what scripts.starter_data wrote."""
    if not isinstance(vars(model.modalities["text"]).get("read"), CachedRead):
        cache_reads(model.modalities["text"], SizedCache(default_folder() / "decoded", CACHE, small=True))
    parts: list[Callable[[], list[Line]]] = [
        lambda: icons(model, sets),
        lambda: emoji(model, sets),
        lambda: glyphs(model),
        lambda: digits(model),
        lambda: sounds(model, sets),
        lambda: never_paired(model, sets),
    ]
    return [line for part in parts for line in part()]
