"""What stands in the two slots of a block: token mixers and channel mixers, by explicit tables.

A configuration that cannot work is refused when it is read.
"""

from __future__ import annotations

from typing import Any

from generalist.nn.attention.rotary import build_rotary
from generalist.nn.experts.experts import Experts
from generalist.nn.experts.mixers import ExpertAttention, ExpertMLP
from generalist.nn.experts.placement import expert_spec, placed
from generalist.nn.mixers.attention import Attention
from generalist.nn.mixers.base import Mixer
from generalist.nn.mixers.channel import MLP, SwiGLU
from generalist.nn.spec import EncoderSpec

TOKEN_MIXERS: dict[str, type[Mixer]] = {"attention": Attention, "expert_attention": ExpertAttention}
CHANNEL_MIXERS: dict[str, type[Mixer]] = {"mlp": MLP, "swiglu": SwiGLU, "expert_mlp": ExpertMLP}


def mixer_names(config: EncoderSpec) -> list[tuple[str, str]]:
    """The token and channel mixer of every layer, experts in their places."""
    n = config.num_hidden_layers
    tokens = [config.mixers] * n if isinstance(config.mixers, str) else config.mixers
    channels = [config.channel_mixers] * n if isinstance(config.channel_mixers, str) else config.channel_mixers
    return list(zip(placed(tokens, config, "attention"), placed(channels, config, "mlp"), strict=True))


def build_mixer(kind: type[Mixer], config: EncoderSpec, *sizes: Any) -> Mixer:
    """A mixer of its sizes; experts take the configuration's router besides."""
    turned: dict[str, Any] = {"rotary": build_rotary(config)} if issubclass(kind, Attention | ExpertAttention) else {}
    if issubclass(kind, Experts):
        return kind(*sizes, expert_spec(config), config.moe_router, **turned)  # type: ignore[call-arg]  # sizes differ
    options: dict[str, Any] = {"norm": config.layer_norm_eps} if config.inner_norm else {}
    if config.relative and issubclass(kind, Attention):
        options["relative"] = config.relative
    return kind(*sizes, **options, **turned)
