"""A converted folder's passport, parity.json: what of it was compared with the original, and how far apart they are.

    generalist parity DIR                       compares again, with the weights and packages that are here

    open-clip, hf       features or logits of the library's own model for the same pictures, sounds, clips and texts
    uni-perceiver, meta-transformer             the authors' code is no package: every tensor, converted again

Inputs are drawn with one seed. Both models are in float32 and in evaluation mode.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generalist.convert import KINDS
from generalist.data.base.errors import UserError, one_line
from generalist.data.base.named import named as by_name
from generalist.hf.model import GeneralistModel
from generalist.hf.processor import GeneralistProcessor

FILE = "parity.json"
SEED = 0
TOLERANCE = 1e-5  # of the largest value compared, or of 1 where that is larger
PACKAGES = ("generalist-encoder", "torch", "transformers", "open_clip_torch", "timm")


@dataclass
class Compared:
    """what: in words; largest: difference; of: the largest value of the original."""

    what: str
    largest: float
    of: float

    @property
    def within(self) -> bool:
        return self.largest <= TOLERANCE * max(1.0, self.of)


@dataclass
class Passport:
    """kind, checkpoint, options: of the conversion. reason: why nothing was compared, "" where something was."""

    kind: str
    checkpoint: str
    options: dict[str, Any] = field(default_factory=dict)
    compared: list[Compared] = field(default_factory=list)
    reason: str = ""
    seed: int = SEED
    tolerance: float = TOLERANCE
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        return bool(self.compared) and all(one.within for one in self.compared)

    def told(self) -> str:
        """In one line."""
        if not self.compared:
            return f"parity: {self.reason}"
        worst = max(self.compared, key=lambda one: one.largest / max(1.0, one.of))
        word = "equal to the original" if self.equal else "DIFFERENT from the original"
        return f"parity: {word}, {worst.what}: largest difference {worst.largest:.2g} of {worst.of:.3g}"

    def __str__(self) -> str:
        lines = [f"{one.what}: largest difference {one.largest:.2g} of {one.of:.3g}" for one in self.compared]
        verdict = "equal within the tolerance" if self.equal else "DIFFERENT" if self.compared else "not compared"
        return "\n".join([f"{self.kind} {self.checkpoint}: {verdict}", *lines, *([self.reason] if self.reason else [])])


def difference(what: str, ours: Tensor, theirs: Tensor) -> Compared:
    """UserError where the two have different shapes."""
    if ours.shape != theirs.shape:
        raise UserError(f"{what}: {tuple(ours.shape)} instead of the original's {tuple(theirs.shape)}")
    return Compared(what, float((ours.float() - theirs.float()).abs().max()), float(theirs.abs().max()))


Compare = Callable[[Path, dict[str, Any], GeneralistModel, GeneralistProcessor], list[Compared]]


@torch.no_grad()
def measured(
    kind: str, checkpoint: Path, options: dict[str, Any], model: Any, processor: GeneralistProcessor
) -> Passport:
    """The passport of a model in evaluation mode; an original that cannot be run is the reason in it."""
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
    made = Passport(kind, str(checkpoint), plain, versions=_versions())
    compare: Compare = by_name(ORIGINALS[kind])
    try:
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            made.compared = compare(checkpoint, options, model, processor)
    except Exception as error:  # whatever an original's library raises: the conversion itself stands
        made.reason = f"not compared: {one_line(error)}"
    return made


# kind -> the function that runs its original
ORIGINALS = {
    "open-clip": "generalist.convert.originals.open_clip:compare",
    "hf": "generalist.convert.originals.transformers:compare",
    "uni-perceiver": "generalist.convert.originals.tensors:of_uni_perceiver",
    "meta-transformer": "generalist.convert.originals.tensors:of_meta_transformer",
}


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write(passport: Passport, folder: Path) -> None:
    (folder / FILE).write_text(json.dumps(asdict(passport), indent=1), encoding="utf-8")


def read(folder: Path) -> Passport:
    """The passport of a folder. UserError: it has none, or none that can be read."""
    try:
        values = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return Passport(**values | {"compared": [Compared(**one) for one in values["compared"]]})
    except FileNotFoundError as error:
        raise UserError(
            f"{folder} has no {FILE}; it was not written by generalist convert, or by an earlier one"
        ) from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{folder / FILE} cannot be read ({one_line(error)}); convert the model again") from error


def repeat(folder: Path) -> Passport:
    """The comparison made again. UserError: the folder has no passport, or the original is not here."""
    from generalist.hf.saved import read_model

    before = read(folder)
    if before.kind not in KINDS:
        raise UserError(f"{folder / FILE} names the kind {before.kind!r}, which is none; convert the model again")
    model, processor = read_model(folder)
    options = {key: Path(value) if key == "tokenizer" else value for key, value in before.options.items()}
    place = before.checkpoint.partition(":")[2] if before.kind == "open-clip" else before.checkpoint
    if ("/" in place or "\\" in place) and not Path(place).exists():
        raise UserError(f"the original {place} is not here any more; put it back to compare {folder} with it")
    found = measured(before.kind, Path(before.checkpoint), options, model, processor)
    if not found.compared:
        raise UserError(f"{folder}: {found.reason}")
    return found
