"""Networks of our own behind transformers' backbone API, as a setting of any modality that takes a backbone:

    backbone={"model_type": "stages", "kind": "rmt", "widths": [16, 32, 48, 64], "depths": [1, 1, 2, 1], ...}

A kind is a `Network` (one file each); its settings are its parameters, all with defaults.
"""

from __future__ import annotations

import inspect
import json
from typing import Any

from torch import Tensor
from transformers import AutoBackbone, AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BackboneOutput

from generalist.data.base.errors import UserError, nearest
from generalist.data.base.named import named as by_name
from generalist.tokenizers_mod.backbones.network import Network

NAME = "stages"
KINDS: dict[str, str] = {
    "rmt": "generalist.tokenizers_mod.backbones.rmt:RMT",
    "cel": "generalist.tokenizers_mod.backbones.crossformer:CEL",
    "crossformer": "generalist.tokenizers_mod.backbones.crossformer:CrossFormer",
    "duo": "generalist.tokenizers_mod.backbones.duo:Duo",
    "s2a": "generalist.tokenizers_mod.backbones.s2a:S2AFormer",
    "spectformer": "generalist.tokenizers_mod.backbones.spectformer:SpectFormer",
    "spectformer_h": "generalist.tokenizers_mod.backbones.hierarchical:HierarchicalSpectFormer",
    "svt": "generalist.tokenizers_mod.backbones.hierarchical:SVT",
    "t2t": "generalist.tokenizers_mod.backbones.t2t:T2T",
    "vit_res": "generalist.tokenizers_mod.backbones.vit_res:ViTRes",
}
LIBRARY = ("out_features", "out_indices", "dtype", "transformers_version", "model_type")  # set by whoever builds one


def network_class(kind: str) -> type[Network]:
    """The network behind a name. UserError names the nearest."""
    if kind not in KINDS:
        raise UserError(f"backbone: unknown kind {kind!r}; {nearest(kind, KINDS)} (valid: {', '.join(KINDS)})")
    found: type[Network] = by_name(KINDS[kind])
    return found


def settings_of(kind: str) -> dict[str, Any]:
    """The settings of a kind with their defaults, as JSON holds them."""
    parameters = list(inspect.signature(network_class(kind).__init__).parameters.values())[1:]
    made: dict[str, Any] = json.loads(json.dumps({p.name: p.default for p in parameters}))  # lists, no tuples
    return made


class StagesConfig(PreTrainedConfig):
    """kind: of KINDS; settings: those of its network, given beside it ("widths": [...])."""

    model_type = NAME

    def __init__(self, kind: str = "rmt", settings: dict[str, Any] | None = None, **kwargs: Any) -> None:
        known = settings_of(kind)
        self.kind = kind
        self.settings = dict(settings or {}) | {name: kwargs.pop(name) for name in known if name in kwargs}
        library = {*PreTrainedConfig().to_dict(), *LIBRARY}
        for name in [*self.settings, *(name for name in kwargs if not name.startswith("_"))]:
            if name not in known and name not in library:
                raise UserError(f"backbone: {kind} has no setting {name!r}; {nearest(name, known)}")
        super().__init__(**kwargs)


class Stages(PreTrainedModel):
    """pixels Float[B C H W] -> feature_maps, finest first: Float[B channels h w]."""

    config_class = StagesConfig
    main_input_name = "pixel_values"

    def __init__(self, config: StagesConfig) -> None:
        super().__init__(config)
        try:
            self.network = network_class(config.kind)(**config.settings)
        except UserError:
            raise
        except (TypeError, ValueError) as error:
            raise UserError(f"backbone: {config.kind} cannot be built of {config.settings} ({error})") from error
        self.post_init()

    @property
    def channels(self) -> list[int]:
        return list(self.network.channels)

    def _init_weights(self, module: Any) -> None:
        """Every network initialises itself."""

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> BackboneOutput:
        return BackboneOutput(feature_maps=tuple(self.network(pixel_values)))


def register() -> None:
    """Make the stages known to the library's look-up of backbones."""
    AutoConfig.register(NAME, StagesConfig, exist_ok=True)
    AutoBackbone.register(StagesConfig, Stages, exist_ok=True)
