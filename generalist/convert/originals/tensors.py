"""Where the authors' code is no package: the file's tensors, converted again, against those of the model."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import nn

from generalist.convert import meta_transformer
from generalist.convert.files import load_tensors
from generalist.convert.parity import Compared, difference
from generalist.convert.uni_perceiver import checkpoint as official
from generalist.hf.model import GeneralistModel
from generalist.hf.processor import GeneralistProcessor


def of_meta_transformer(
    checkpoint: Path, options: dict[str, Any], model: GeneralistModel, processor: GeneralistProcessor
) -> list[Compared]:
    again, _, report = meta_transformer.build(checkpoint, **options)
    return _compared(model, again, [f"encoder.{name}" for name in report.missing])


def of_uni_perceiver(
    checkpoint: Path, options: dict[str, Any], model: GeneralistModel, processor: GeneralistProcessor
) -> list[Compared]:
    tensors, container = load_tensors(checkpoint)
    again, _, report, _ = official.build(tensors, container=container, **options)
    return _compared(model, again, report.missing)


def _compared(model: nn.Module, again: nn.Module, fresh: Collection[str]) -> list[Compared]:
    """Every tensor but those that a lenient conversion left fresh."""
    state = again.state_dict()
    found = [difference(name, value, state[name]) for name, value in model.state_dict().items() if name not in fresh]
    largest, of = max(one.largest for one in found), max(one.of for one in found)
    return [Compared(f"{len(found)} tensors of the file, converted again", largest, of)]
