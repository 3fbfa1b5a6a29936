"""What a folder of reference tensors of the official Uni-Perceiver code holds: weights, inputs, outputs, sizes, ids.

Nothing is known beforehand: a file with `w.*` tensors is a model, one with `w_extra.*` adds to the model that has the
inputs, `x.*` are inputs and `y.CASE.*` outputs, and a `*meta.json` says the order of the parameters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from generalist.data.base.errors import UserError

# case -> logit scale, loss weight, label smoothing, name of the loss entry (the reference README's table)
CASES: dict[str, tuple[str, float, float, str]] = {
    "img_cls": ("img_cls", 1.0, 0.1, "LabelSmoothing"),
    "img_cls_soft": ("img_cls", 1.0, 0.0, "SoftTargetCrossEntropy_Loss"),
    "vid_cls": ("video_cls", 0.1, 0.1, "LabelSmoothing"),
    "mlm": ("text_mlm", 0.5, 0.0, "CrossEntropy_Loss"),
    "caption": ("caption", 1.0, 0.0, "CrossEntropy_Loss"),
    "retrieve": ("retrieve", 0.5, 0.1, "LabelSmoothing"),
    "vqa": ("downstream", 0.1, 0.0, "CrossEntropy_Loss"),
}
WORDS = "token_embed.embeddings.weight"


@dataclass(frozen=True)
class Entry:
    """One compared model: its file of weights, a file of more weights ("" = none), the file of inputs, the cases."""

    weights: str
    extra: str
    inputs: str
    cases: tuple[str, ...]

    @property
    def outputs(self) -> str:
        """The file that holds the outputs."""
        return self.extra or self.weights


@lru_cache(maxsize=8)
def entries(folder: Path) -> dict[str, Entry]:
    """Every model of a folder by its file's name. UserError where there is none."""
    keys = {path.stem: _keys(path) for path in sorted(folder.glob("*.safetensors"))}
    models = [stem for stem, found in keys.items() if _has(found, "w.")]
    inputs = [stem for stem, found in keys.items() if _has(found, "x.")]
    if not models or not inputs:
        raise UserError(f"{folder} holds no reference tensors: no file with w.* and x.*; give the folder of the files")
    base = inputs[0] if inputs[0] in models else models[0]
    found = {}
    for stem, names in keys.items():
        own = stem if stem in inputs else inputs[0]
        if stem in models:
            found[stem] = Entry(stem, "", own, _cases(names))
        elif _has(names, "w_extra."):
            found[stem] = Entry(base, stem, own, _cases(names))
    return found


def _keys(path: Path) -> list[str]:
    with safe_open(path, "pt") as file:
        return list(file.keys())


def _has(names: Iterable[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


def _cases(names: list[str]) -> tuple[str, ...]:
    """The cases of a file that are compared, in the table's order."""
    return tuple(case for case in CASES if _has(names, f"y.{case}.logits"))


@dataclass
class Tensors:
    """w: weights by official names; x: inputs; y: outputs by CASE.NAME; meta: the folder's facts, {} without."""

    w: dict[str, Tensor]
    x: dict[str, Tensor]
    y: dict[str, Tensor]
    meta: dict[str, Any]

    @staticmethod
    def read(folder: Path, entry: Entry) -> Tensors:
        """All tensors of one model."""
        own, given = (load_file(folder / f"{stem}.safetensors") for stem in (entry.weights, entry.inputs))
        added = load_file(folder / f"{entry.extra}.safetensors") if entry.extra else {}
        weights = {k[2:]: v for k, v in own.items() if k.startswith("w.")}
        weights |= {k[len("w_extra.") :]: v for k, v in added.items() if k.startswith("w_extra.")}
        meta = next(iter(sorted(folder.glob("*meta.json"))), None)
        return Tensors(
            weights,
            {k[2:]: v for k, v in given.items() if k.startswith("x.")},
            {k[2:]: v for k, v in (added or own).items() if k.startswith("y.")},
            {} if meta is None else json.loads(meta.read_text(encoding="utf-8")),
        )

    @property
    def specials(self) -> tuple[int, int]:
        """Ids of the end and of SPE as the inputs use them; else the fourth last and the last of the vocabulary."""
        end, spe = len(self.w[WORDS]) - 4, len(self.w[WORDS]) - 1
        if "names_ids" in self.x:
            ids, invalid = self.x["names_ids"][0], self.x["names_invalid"][0]
            end = int(ids[invalid == 0][-1])
        if "caption_ids" in self.x:
            spe = int(self.x["caption_ids"][0, self.x["caption_ids"].shape[1] // 2])
        elif "vqa_ids" in self.x:
            spe = int(self.x["vqa_ids"][0, int(self.x["vqa_spe_index"][0])])
        return end, spe
