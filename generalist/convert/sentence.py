"""What a sentence-transformers folder does behind its encoder: modules.json, 1_Pooling and whatever follows.

pooling   the first token, the mean, the maximum, the last token, or the mean weighted by place
Dense     one linear map with an activation or none, this framework's output head
Normalize length one: the same cosines, so there is nothing to do
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from generalist.convert.files import load_folder
from generalist.data.base.errors import UserError

# pooling of the file -> of this framework; "sqrt" is the mean times a number, which no cosine sees
MODES = {
    "cls": "asked",
    "mean": "mean_all",
    "mean_sqrt_len_tokens": "mean_all",
    "max": "max_all",
    "weightedmean": "weighted_all",
    "lasttoken": "last",
}
FLAGS = {
    "cls_token": "cls",
    "mean_tokens": "mean",
    "max_tokens": "max",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean_tokens": "weightedmean",
    "lasttoken": "lasttoken",
}
ACTIVATIONS = {"Identity": "", "Tanh": "tanh", "ReLU": "relu", "GELU": "gelu", "Sigmoid": "sigmoid"}
SILENT = ("Normalize", "Dropout")  # of evaluation and cosines without effect


@dataclass
class Sentence:
    """folder: of the encoder; settings: of the configuration; tensors: of the output head; length: most tokens, 0."""

    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    length: int = 0
    notes: list[str] = field(default_factory=list)


def read(folder: Path) -> Sentence:
    """The modules of a folder in their order; a folder without modules.json is an encoder alone.

    UserError for a module, or an order of them, that has no form here.
    """
    if not (folder / "modules.json").is_file():
        return Sentence(folder)
    modules = _json(folder / "modules.json")
    try:
        steps = [(str(m["type"]).rpartition(".")[2], folder / m.get("path", "")) for m in modules]
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{folder / 'modules.json'} is no list of modules; fetch the model again") from error
    if any(folder.resolve() not in (path.resolve(), *path.resolve().parents) for _, path in steps):
        raise UserError(f"{folder / 'modules.json'} names folders outside its own; fetch the model again")
    if not steps or steps[0][0] not in ("Transformer", "CLIPModel"):
        raise UserError(f"{folder} begins with {steps[0][0] if steps else 'nothing'}; only a Transformer converts")
    found = Sentence(steps[0][1])
    found.length = _length(found.folder)
    for kind, path in steps[1:]:
        if kind == "Pooling" and not found.settings:
            found.settings["readout"] = _pooling(path)
        elif kind == "Dense" and not found.tensors and found.settings:
            _dense(found, path)
        elif kind not in SILENT:
            raise UserError(f"{folder} has a module {kind} at this place, which has no form here; take another model")
    if found.settings:
        found.notes.append(f"pooling {found.settings['readout']!r}, as its modules.json says")
    return found


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON; fetch the model again") from error


def _length(folder: Path) -> int:
    """The most tokens that the folder's texts are cut to, 0 where it does not say: of newer folders the tokenizer's."""
    for name, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        length = (_json(folder / name) if (folder / name).is_file() else {}).get(key)
        if isinstance(length, int) and 0 < length < 10**6:  # without a limit the tokenizer's is a huge number
            return length
    return 0


def _pooling(path: Path) -> str:
    config = _json(path / "config.json")
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for flag, mode in FLAGS.items() if config.get(f"pooling_mode_{flag}")]
    modes = [modes] if isinstance(modes, str) else list(modes)
    if len(modes) != 1 or modes[0] not in MODES:
        shown = " and ".join(map(str, modes)) or "nothing"
        raise UserError(f"{path} pools by {shown}; one of {', '.join(MODES)} converts")
    return MODES[modes[0]]


def _dense(found: Sentence, path: Path) -> None:
    config = _json(path / "config.json")
    activation = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    if activation not in ACTIVATIONS:
        raise UserError(f"{path} has the activation {activation}; one of {', '.join(ACTIVATIONS)} converts")
    tensors = load_folder(path)
    if lacking := [k for k in ("linear.weight", *["linear.bias"] * bool(config.get("bias", True))) if k not in tensors]:
        raise UserError(f"{path} lacks {lacking[0]}; fetch the model again")
    found.tensors = {f"head.projection.{name.rpartition('.')[2]}": value for name, value in tensors.items()}
    found.settings |= {
        "output_head": True,
        "output_norm": False,
        "output_size": len(tensors["linear.weight"]),
        "output_bias": "linear.bias" in tensors,
        "output_act": ACTIVATIONS[activation],
    }
