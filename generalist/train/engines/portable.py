"""A training state that fits any engine: {parameter name: {"fp32", "exp_avg", "exp_avg_sq", "step"}}, whole tensors.

Checkpoints are written in the engine's own format, which is quickest. A resume on another number of
processes, at another ZeRO stage or with the other engine reads that format into this form: DeepSpeed's
sharded files through its universal checkpoint (2406.18820), everything else directly.
"""

from __future__ import annotations

import argparse
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from generalist.data.base.errors import UserError
from generalist.machine.ranks import first_line

Write = Callable[[Any, Path], None]
Portable = dict[str, dict[str, Any]]
MOMENTS = ("exp_avg", "exp_avg_sq")
TAG = "deepspeed"
STAGE_0 = "mp_rank_00_model_states.pt"


def read(folder: Path, meta: dict[str, Any], trust: bool = False) -> Portable:
    """A checkpoint folder of any engine -> the portable state (on the CPU). trust: as in `load`."""
    if meta["engine"] == "local":
        state = load(folder / "state.pt", trust)
        return from_torch(state["model"], state["optimizer"], meta["groups"])
    if meta["stage"] == 0:
        state = load(folder / TAG / STAGE_0, trust)
        return from_torch(state["module"], state["optimizer"], meta["groups"])
    return read_universal(folder, meta, trust)


def load(path: Path, trust: bool = False) -> Any:
    """A file of tensors and plain values, on the CPU; with `trust` also of objects, which can run code.

    UserError for a file that is missing, broken or holds what it may not.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} is broken or holds more than tensors and plain values; it is not read") from error
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{path} is broken ({first_line(error)})") from error


def from_torch(model: dict[str, Any], optimizer: dict[str, Any], groups: list[list[str]]) -> Portable:
    """torch's own state dicts -> the portable state; the optimiser counts parameters through its groups."""
    out: Portable = {name: {"fp32": value} for name, value in model.items()}
    for number, name in enumerate(name for group in groups for name in group):
        kept = optimizer["state"].get(number, {})
        out[name] |= {key: kept[key] for key in (*MOMENTS, "step") if key in kept}
    return out


def to_torch(state: Portable, groups: list[list[str]], optimizer: Optimizer) -> dict[str, Any]:
    """The portable state -> {"model", "optimizer"} as `load_state_dict` takes them."""
    kept = optimizer.state_dict()
    whole_steps = not isinstance(optimizer, torch.optim.AdamW)  # torch's own optimiser counts in a tensor
    moments = {}
    for number, name in enumerate(name for group in groups for name in group):
        if "step" not in state[name]:
            continue
        step = int(state[name]["step"])
        moments[number] = {key: state[name][key] for key in MOMENTS}
        moments[number]["step"] = step if whole_steps else torch.tensor(float(step))
    return {
        "model": {name: values["fp32"] for name, values in state.items()},
        "optimizer": {"state": moments, "param_groups": kept["param_groups"]},
    }


def read_universal(folder: Path, meta: dict[str, Any], trust: bool = False) -> Portable:
    """DeepSpeed's ZeRO files -> universal checkpoint (in a temporary folder) -> the portable state."""
    from deepspeed.checkpoint.ds_to_universal import main as convert

    from generalist.train.engines.deepspeed_files import readable_copy

    target = Path(tempfile.mkdtemp(prefix="universal-", dir=folder.parent))
    own = target / TAG
    try:
        readable_copy(folder / TAG, own, trust)
        convert(
            argparse.Namespace(
                input_folder=str(own),
                output_folder=str(target / "out"),
                num_extract_workers=1,
                num_merge_workers=1,
                keep_temp_folder=False,
                strict=False,
                inject_missing_state=True,
            )
        )
        model = folder / TAG / (STAGE_0 if meta["stage"] < 3 else "zero_pp_rank_0_" + STAGE_0)
        kept = load(model, trust)
        buffers = kept.get("buffer_names") or []
        out: Portable = {name: {"fp32": kept["module"][name]} for name in buffers}
        for name in (name for group in meta["groups"] for name in group):
            part = target / "out" / "zero" / name
            out[name] = {"step": meta["steps"]}
            for key in ("fp32", *MOMENTS):
                value = torch.load(part / f"{key}.pt", map_location="cpu", weights_only=True)
                value = value["param"] if isinstance(value, dict) else value
                out[name][key] = value.reshape(meta["shapes"][name])
        return out
    except (OSError, KeyError, RuntimeError) as error:
        raise UserError(
            f"{folder} cannot be read for another number of processes ({error}); resume as it was"
        ) from error
    finally:
        shutil.rmtree(target, ignore_errors=True)
