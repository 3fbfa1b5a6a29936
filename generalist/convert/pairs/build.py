"""Two towers and their law -> one model: what every family of contrastive models shares.

f(x) = the tower's embedding of x          no layers; the mean of a sequence's tokens but the summary, of one
logits = cos(f(x), f(y)) exp(s) + b        s and b the model's own
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from generalist.convert.report import Report, real_numbers
from generalist.data.base.errors import UserError
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.hf.processor import GeneralistProcessor
from generalist.recipe.encoder import EncoderSpec
from generalist.tasks.candidates.likelihood import MAX_SCALE
from generalist.tokenizers_mod.base.modalities import modality_settings
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.towers.tower import Tower
from generalist.tokenizers_mod.towers.words import TextTower

HEAD = 64  # channels of a head in the layers that may be added


@dataclass
class Pair:
    """towers: {modality: tower}, "text" among them; tensors: {modality: those of its network, by its own names}.

    scale, bias: log of the logit scale and the bias, None for none; pairwise: trained with a sigmoid a pair. further:
    {name: log of another logit scale}.
    """

    towers: dict[str, Tower]
    tensors: dict[str, dict[str, Tensor]]
    scale: Tensor
    bias: Tensor | None = None
    pairwise: bool = False
    further: dict[str, Tensor] = field(default_factory=dict)


def build(pair: Pair, report: Report) -> tuple[GeneralistModel, GeneralistProcessor, Report]:
    """The model of a pair, its processor, and the report with what was filled."""
    width = next(iter(pair.towers.values())).size
    scales = {name: value.detach() for name, value in {"default": pair.scale, **pair.further}.items()}
    largest = max(float(value.exp()) for value in scales.values())
    spec = EncoderSpec(
        width=width,
        layers=0,
        heads=heads_of(width),
        hidden=4 * width,
        embedding_norm=False,
        output_head=False,
        readout="mean",
    )
    config = GeneralistConfig(
        **spec.described(),
        modalities=modality_settings({"summary": Summary(), **pair.towers}),
        scales=list(scales),
        biases=[] if pair.bias is None else ["default"],
        largest_scale=largest if largest > MAX_SCALE and math.isfinite(largest) else MAX_SCALE,
        pairwise=pair.pairwise,
    )
    model = GeneralistModel(config).eval()
    with torch.no_grad():
        summary: Any = model.tokenizers["summary"]
        summary.token.weight.zero_()  # so that it costs the others' mean no digit
        for name, value in scales.items():
            model.log_scales[name].fill_(value.item())
        if pair.bias is not None:
            model.logit_biases["default"].fill_(pair.bias.item())
    for name, own in pair.tensors.items():
        take(model.get_submodule(f"tokenizers.{name}.network"), own, name, report)
    report.loaded += len(model.log_scales) + len(model.logit_biases)
    report.parameters += sum(p.numel() for p in model.parameters())
    report.notes.append("the summary is new: nothing is read at it before layers are added")
    text = pair.towers["text"]
    assert isinstance(text, TextTower)
    return model, GeneralistProcessor(tokenizer=text.hf_tokenizer(), modalities=config.modalities), report


def take(network: nn.Module, tensors: dict[str, Tensor], name: str, report: Report) -> None:
    """Fill a tower's network. UserError naming the first parameter that is missing, left over or of another size.

    Buffers that the tensors lack (masks, places) stand in the network as its library makes them.
    """
    state, own = network.state_dict(), {key for key, _ in network.named_parameters()}
    real_numbers({key: value for key, value in tensors.items() if key in own}, report)
    for key in sorted(own - set(tensors)):
        raise UserError(f"{report.kind}: the {name} tower lacks {key}")
    for key, value in tensors.items():
        if key not in state:
            raise UserError(f"{report.kind}: the {name} tower has no place for {key}")
        if value.shape != state[key].shape:
            shapes = f"{tuple(value.shape)} instead of {tuple(state[key].shape)}"
            raise UserError(f"{report.kind}: {key} of the {name} tower is {shapes}")
    network.load_state_dict(tensors, strict=False)
    report.loaded += len(tensors)


def heads_of(width: int) -> int:
    """The number of heads, of those that divide the width, whose channels are nearest to 64."""
    fits = [heads for heads in range(1, width + 1) if width % heads == 0]
    return min(fits, key=lambda heads: abs(width / heads - HEAD))
