"""DeepSpeed's checkpoint files as tensors and plain values, so that reading one can run nothing.

DeepSpeed puts a few objects of its own beside the tensors. Here each is written as its name and its fields, and made
anew from the classes listed below when it is read; every file is read by torch's restricted unpickler, which takes
tensors, containers, numbers and texts alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.train.engines import portable

MARK = "deepspeed object"  # the key under which an object's name stands


@dataclass(frozen=True)
class Kind:
    """A class of DeepSpeed's: the fields of an object, and an object of such fields."""

    type: type
    fields: Callable[[Any], dict[str, Any]]
    made: Callable[..., Any]


@cache
def _kinds() -> dict[str, Kind]:
    """{name: what DeepSpeed 0.19 keeps under it at any stage and precision}."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    stages = Kind(ZeroStageEnum, lambda stage: {"value": int(stage)}, ZeroStageEnum)
    return {"ZeroStageEnum": stages} | {
        kind.__name__: Kind(kind, vars, partial(_with_fields, kind))
        for kind in (LossScaler, DynamicLossScaler, fragment_address)
    }


def _with_fields(kind: type, **fields: Any) -> Any:
    made: Any = object.__new__(kind)
    vars(made).update(fields)
    return made


def plain(value: Any) -> Any:
    """The value without objects. UserError for a kind that is not listed: a file that cannot be read is not written."""
    for name, kind in _kinds().items():
        if type(value) is kind.type:
            return {MARK: name} | {key: plain(part) for key, part in kind.fields(value).items()}
    if value is None or isinstance(value, Tensor | bool | torch.Size | torch.dtype):
        return value
    for number in (int, float, str):  # numpy's floats and whole enumerations are their subclasses
        if isinstance(value, number):
            return number(value)
    if isinstance(value, dict):
        return {plain(key): plain(part) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(part) for part in value)
    raise UserError(f"a checkpoint cannot hold DeepSpeed's {type(value).__name__}; use another optimiser or stage")


def restored(value: Any) -> Any:
    """The inverse of `plain`."""
    if isinstance(value, dict):
        parts = {key: restored(part) for key, part in value.items() if key != MARK}
        return _kinds()[value[MARK]].made(**parts) if MARK in value else parts
    if type(value) in (list, tuple):
        return type(value)(restored(part) for part in value)
    return value


def engine(write: portable.Write | None = None, trust: bool = False) -> Any:
    """DeepSpeed's checkpoint engine over `write`. trust: read files of an earlier version, which hold objects."""
    from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine

    class Files(TorchCheckpointEngine):
        def __init__(self) -> None:
            self.name = "files"

        def save(self, state_dict: Any, path: str) -> None:
            assert write is not None
            write(plain(state_dict), Path(path))

        def load(self, path: str, map_location: Any = None) -> Any:
            return restored(portable.load(Path(path), trust))

    return Files()


def readable_copy(folder: Path, target: Path, trust: bool = False) -> None:
    """A folder's files with DeepSpeed's own objects in them, for its converter, which unpickles whatever it finds.

    It finds only what is written here, from values that were read safely.
    """
    target.mkdir(parents=True)
    for path in sorted(folder.glob("*.pt")):
        torch.save(restored(portable.load(path, trust)), target / path.name)
