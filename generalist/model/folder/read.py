"""A model folder as the plain model and its processor: what `generalist.hf` reads, without importing transformers.

Only what this version writes is read here, to the tensor: a folder with other keys, files or tensors gives None, and
whoever asked takes transformers' own way (`generalist.hf.saved`), which knows earlier names and says what is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode

from generalist.model.config import ModelConfig
from generalist.model.folder.referred import complete, prefix_of
from generalist.model.folder.stored import whole
from generalist.model.model import PackedModel
from generalist.model.processor import Processor
from generalist.tokenizers_mod.base.modalities import modality_class

CONFIG, WEIGHTS, PROCESSOR = "config.json", "model.safetensors", "processor_config.json"
# what transformers writes beside the model's own keys, and what does not change what is read
LIBRARY = {"architectures", "auto_map", "custom_pipelines", "dtype", "model_type", "transformers_version"}
LIBRARY |= {"id2label", "label2id"}  # of transformers' heads
PROCESSOR_KEYS = {"auto_map", "candidate_sets", "modalities", "processor_class", "tasks"}
DRAWS = {
    Tensor.uniform_,
    Tensor.normal_,
    init.uniform_,
    init.normal_,
    init.trunc_normal_,
    init.kaiming_uniform_,
    init.kaiming_normal_,
    init.xavier_uniform_,
    init.xavier_normal_,
}


def read_plain(folder: Path) -> tuple[PackedModel, Processor] | None:
    """The model in evaluation mode and its processor; None for a folder that is not wholly as this version writes it.

    UserError for a modality or a task that cannot be.
    """
    files = [folder / name for name in (CONFIG, WEIGHTS, PROCESSOR)]
    if not all(file.is_file() for file in files):
        return None
    config, told = (_json(file) for file in (files[0], files[2]))
    own = {f.name for f in fields(ModelConfig)}
    if config is None or told is None or config.keys() - own - LIBRARY or told.keys() - PROCESSOR_KEYS:
        return None
    if config.get("dtype") != "float32" or not config.get("modalities"):  # of others transformers says what is cast
        return None
    model = _model(ModelConfig(**{key: value for key, value in config.items() if key in own}), files[1])
    if model is None:
        return None
    for name, settings in told.get("modalities", {}).items():
        modality_class(name, settings.get("class"))
    model.name_or_path = str(folder)
    return model, Processor(told.get("modalities"), told.get("candidate_sets"), told.get("tasks"))


def _json(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _model(config: ModelConfig, file: Path) -> PackedModel | None:
    """The model with the file's weights, as float32; None where the file holds others than it has."""
    try:
        state = whole(load_file(file))
    except (SafetensorError, OSError):  # the other way says what is wrong with it
        return None
    with Undrawn():
        model = PackedModel(config)
    if not fits(model.state_dict(), state, config):
        return None
    model.load_state_dict(state, strict=False)
    complete(model)
    return model.eval()


def fits(model: Mapping[str, Tensor], state: Mapping[str, Tensor], config: ModelConfig) -> bool:
    """Whether a file holds exactly the model's tensors, without those that it only names."""
    left_out = tuple(prefix_of(name) for name in config.referred or {})
    wanted = {name: value.shape for name, value in model.items() if not (left_out and name.startswith(left_out))}
    return wanted == {name: value.shape for name, value in state.items()}


class Undrawn(TorchFunctionMode):
    """Inside, no parameter is drawn at random: all of them are read from a file. Buffers are made as ever."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func in DRAWS and isinstance(drawn := args[0] if args else given.get("tensor"), nn.Parameter):
            return drawn
        return func(*args, **given)
