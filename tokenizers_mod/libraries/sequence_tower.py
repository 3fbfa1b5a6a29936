"""transformers' encoders of sounds, films and series: their last hidden states as maps, rows of tokens.

A description: {"library": "sequences", "name": model_type, "settings": of its configuration}. What goes in is what its
feature extractor makes: Float[B mels frames] or [B frames mels], waves Float[B t], films Float[B T 3 H W]; series as
Float[B 2 t channels], values and which of them are known.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, MODEL_MAPPING, AutoModel

from generalist.data.base.errors import UserError, nearest
from generalist.data.base.named import in_library
from generalist.tokenizers_mod.libraries.tower import Tower, fit

SERIES = "past_values"


def describe(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    if name not in CONFIG_MAPPING:
        raise UserError(f"encoder: transformers has no network {name!r}; {nearest(name, CONFIG_MAPPING)}")
    inner = getattr(CONFIG_MAPPING[name](), "audio_config", None)
    if inner is not None:  # of a model of sounds and texts, the part for sounds
        return describe(inner.model_type, dict(settings.get("audio_config", settings)))
    return {"library": "sequences", "name": name, "settings": dict(settings)}


def build(description: dict[str, Any], size: tuple[int, ...], kind: str, any_size: bool) -> Tower:
    config = CONFIG_MAPPING[description["name"]](**description["settings"])
    if type(config) in MODEL_MAPPING:
        net: Any = AutoModel.from_config(config)
    else:
        own = in_library("transformers", type(config).__name__.replace("Config", "Model"))
        if own is None:
            raise UserError(f"encoder: transformers has no network of its own for {description['name']!r}")
        net = own(config)
    return SequenceTower(net.get_encoder() if config.is_encoder_decoder else net, kind)


class SequenceTower(Tower):
    net: Any

    def __init__(self, net: nn.Module, kind: str) -> None:
        super().__init__(net, kind)

    def blank(self, size: tuple[int, ...], **like: Any) -> Tensor:
        return torch.zeros(1, *size, **like)

    def shapes(self, size: tuple[int, ...]) -> list[tuple[int, int, int]] | None:
        told = getattr(self.net, "_get_feat_extract_output_lengths", None)
        if told is None or len(size) != 1:
            return None
        length = 1 if self.kind == "embedding" else int(told(size[0]))
        return [(1, length, self.net.config.hidden_size)]

    def _out(self, x: Tensor) -> Any:
        key = self.net.main_input_name
        if key != SERIES:
            fused = getattr(self.net.config, "enable_fusion", False)  # of CLAP, for sounds cut in several ways
            more = {"is_longer": torch.zeros(len(x), 1, dtype=torch.bool, device=x.device)} if fused else {}
            return self.net(**{key: x}, **more)
        values, known = x[:, 0], x[:, 1]
        if self.net.config.model_type.startswith("timesfm"):  # one channel at a time
            flat, absent = values.transpose(1, 2).flatten(0, 1), 1 - known.transpose(1, 2).flatten(0, 1)
            freq = {"freq": torch.zeros(len(flat), 1, dtype=torch.long, device=x.device)}
            return self.net(past_values=flat, past_values_padding=absent.long(), **freq)
        mask = "observed_mask" if "mixer" in self.net.config.model_type else "past_observed_mask"
        return self.net(**{key: values, mask: known.bool()})

    def maps(self, pixels: Tensor) -> list[Tensor]:
        last = self._out(pixels).last_hidden_state
        if self.net.main_input_name == SERIES:  # a row a channel
            last = last.unflatten(0, (len(pixels), -1)) if last.ndim == 3 else last
            return [last.permute(0, 3, 1, 2)]
        return [last if last.ndim == 4 else last.transpose(1, 2).unsqueeze(2)]

    def embedding(self, pixels: Tensor) -> Tensor:
        pooled = None
        if self.net.main_input_name != SERIES:
            pooled = getattr(self._out(pixels), "pooler_output", None)
        return pooled.flatten(1) if pooled is not None else self.maps(pixels)[0].mean((2, 3))

    def load(self, tensors: dict[str, Tensor], where: str) -> None:
        own = self.net.state_dict()
        starts = {k.split(".")[0] for k in own}
        for depth in (1, 2):  # under the names of a larger model: "wav2vec2.", "model.encoder.", "audio_model."
            cut = {".".join(k.split(".")[depth:]): k for k in tensors}
            if not set(own) & set(tensors) and set(own) & set(cut):
                heads = {k.rsplit(c, 1)[0] for c, k in cut.items() if c in own}
                tensors = {k[len(h) :]: v for h in heads for k, v in tensors.items() if k.startswith(h)}
        fit(self.net, tensors, where, lambda name: name.split(".")[0] not in starts)
