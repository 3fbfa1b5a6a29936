"""Frozen weights that a saved model does not hold: they lie in an installed package, and it names them with their hash.

Also what no saved model holds: buffers that a library computes and does not save are made anew once it is loaded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.base.modalities import build_modalities
from generalist.tokenizers_mod.base.tokenizer import bare
from generalist.tokenizers_mod.libraries.weights import digest
from generalist.tokenizers_mod.pretrained.base import Pretrained, PretrainedTokens

ALIGNED = 64  # bytes, torch's allocator on a CPU


def prefix_of(name: str) -> str:
    """The beginning of the names of a modality's encoder's tensors."""
    return f"tokenizers.{name}.encoder."


def refer(model: Any, state: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a model that is saved names, {modality: weights, package, digest}, and the tensors that it holds."""
    referred: dict[str, Any] = {}
    for name, modality in model.modalities.items():
        found = modality.reference() if isinstance(modality, Pretrained) and model.config.frozen == "refer" else None
        start = prefix_of(name)
        if found and digest({k[len(start) :]: v for k, v in state.items() if k.startswith(start)}) == found["digest"]:
            referred[name] = found
    left_out = tuple(prefix_of(name) for name in referred)
    return referred, {k: v for k, v in state.items() if not (left_out and k.startswith(left_out))}


@torch.no_grad()
def complete(model: Any) -> None:
    """Of a model just loaded: buffers that are not saved, and the frozen weights that it only names.

    Kernels of convolutions move to where allocators put them: as they lie in a file, libraries take other instructions
    for them, whose last bit differs.

    UserError where their package is missing or holds other weights.
    """
    for name, modality in model.modalities.items():
        tokenizer = model.tokenizers[name]
        if name in (model.config.referred or {}):
            old, tokenizer.encoder = (
                tokenizer.encoder,
                _found(model.config.referred[name], modality, model.config.width),
            )
            kind = next(old.parameters())
            tokenizer.encoder.to(device=model.device, dtype=kind.dtype).train(old.training)
        elif lost := _unsaved(tokenizer):
            with bare(), torch.random.fork_rng(devices=[]):
                made = _unsaved(modality.build(model.config.width))
            for key, (module, buffer) in lost.items():
                module.register_buffer(buffer, _like(made[key], module, buffer), persistent=False)
        for value in tokenizer.parameters():
            if value.ndim > 2 and value.data_ptr() % ALIGNED:
                value.data = value.data.clone()
        if isinstance(tokenizer, PretrainedTokens):
            tokenizer.settle()


def _unsaved(root: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """{dotted name: (module, buffer)} of the buffers that are in no state dict."""
    return {
        f"{path}.{name}": (module, name)
        for path, module in root.named_modules()
        for name in module._non_persistent_buffers_set
        if module._buffers[name] is not None
    }


def _like(made: tuple[nn.Module, str], module: nn.Module, buffer: str) -> Tensor:
    value, had = made[0]._buffers[made[1]], module._buffers[buffer]
    assert value is not None and had is not None
    return value.to(device=had.device if had.device.type != "meta" else None, dtype=had.dtype)


def _found(referred: dict[str, str], modality: Any, width: int) -> nn.Module:
    """The encoder with its weights out of the package."""
    with torch.random.fork_rng(devices=[]):
        tokenizer = modality.build(width)
    assert isinstance(tokenizer, PretrainedTokens)
    if tokenizer.state() != referred["digest"]:
        raise UserError(
            f"{modality.name}: the model was saved with the weights {referred['weights']} of {referred['package']}; "
            "those installed are others; install that version"
        )
    return tokenizer.encoder


def referred_tensors(config: Any) -> dict[str, Tensor]:
    """The tensors that a saved model only names, under their whole names."""
    modalities = build_modalities({name: config.modalities[name] for name in config.referred or {}})
    found: dict[str, Tensor] = {}
    for name, modality in modalities.items():
        state = _found(config.referred[name], modality, config.width).state_dict()
        found |= {prefix_of(name) + key: value for key, value in state.items()}
    return found
