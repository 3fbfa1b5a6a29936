"""What stands in the two slots of a block: token mixers and channel mixers, by explicit tables.

A mixer says what it needs of a model (`Needs`); a configuration that cannot work is refused when it is read.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from torch import nn
from transformers.activations import ACT2FN

from generalist.data.base.errors import UserError, nearest
from generalist.nn.attention.positions.table import build_positions, check_positions
from generalist.nn.experts.experts import Experts
from generalist.nn.experts.placement import check_experts, expert_spec, placed
from generalist.nn.mixers.base import Mixer
from generalist.nn.mixers.maps import MapMixer, needs_of
from generalist.nn.readout import check_readout
from generalist.nn.spec import EncoderSpec, Inputs, LayerSpec, Needs, check_needs
from generalist.nn.steps import STAGES, Step
from generalist.recipe.encoder import check_name, named

# a name and where its class is, or the class: a `Mixer`, or a plain module on maps (`generalist.tokenizers_mod.maps`)
Table = Mapping[str, str | type[nn.Module]]
TOKEN_MIXERS: dict[str, str | type[nn.Module]] = {
    "attention": "generalist.nn.mixers.attention:Attention",
    "expert_attention": "generalist.nn.experts.mixers:ExpertAttention",
    "retention": "generalist.nn.mixers.retention:Retention",
    "hyena": "generalist.tokenizers_mod.maps.hyena:Hyena",
    "pool": "generalist.tokenizers_mod.maps.pool:Pool",
    "convolve": "generalist.tokenizers_mod.maps.convolve:Convolve",
    "decay_axes": "generalist.tokenizers_mod.maps.decay:Manhattan",
}
CHANNEL_MIXERS: dict[str, str | type[nn.Module]] = {
    "mlp": "generalist.nn.mixers.channel:MLP",
    "swiglu": "generalist.nn.mixers.channel:SwiGLU",
    "expert_mlp": "generalist.nn.experts.mixers:ExpertMLP",
}
# what the encoder gives a mixer; its other parameters are settings of {"kind": name, ...}
GIVEN = ("self", "width", "out", "heads", "hidden", "activation", "norm", "positions", "spec", "router")


def mixer_class(table: Table, name: str) -> type[nn.Module]:
    """The class behind a name of a table."""
    found = table[name]
    if not isinstance(found, str):
        return found
    module, _, attribute = found.partition(":")
    kind: type[nn.Module] = getattr(import_module(module), attribute)
    return kind


def layers_of(spec: EncoderSpec) -> list[LayerSpec]:
    """Every layer of a description, experts in their places."""
    stack = spec.stack()
    mixers = placed([layer.mixer for layer in stack], spec.moe, "attention")
    channels = placed([layer.channel for layer in stack], spec.moe, "mlp")
    width, layers = spec.width, []
    for layer, mixer, channel in zip(stack, mixers, channels, strict=True):
        width = layer.width or width
        heads, hidden = layer.heads or spec.heads, layer.hidden or spec.hidden
        layers.append(replace(layer, mixer=mixer, channel=channel, heads=heads, hidden=hidden, width=width))
    return layers


def mixer_names(spec: EncoderSpec) -> list[tuple[str, str]]:
    """The names of the token and channel mixer of every layer, experts in their places."""
    return [(named(layer.mixer, "mixers")[0], named(layer.channel, "channel_mixers")[0]) for layer in layers_of(spec)]


def token_mixer(spec: EncoderSpec, layer: LayerSpec) -> Mixer:
    """The token mixer of a layer of `layers_of`."""
    return _built(TOKEN_MIXERS, layer.mixer, spec, layer, layer.heads)


def channel_mixer(spec: EncoderSpec, layer: LayerSpec) -> Mixer:
    """The channel mixer of a layer of `layers_of`."""
    return _built(CHANNEL_MIXERS, layer.channel, spec, layer, layer.hidden, ACT2FN[spec.activation])


def _built(table: Table, what: dict[str, Any] | str, spec: EncoderSpec, layer: LayerSpec, *sizes: Any) -> Mixer:
    """A mixer of its sizes and settings; experts take the description's router besides."""
    name, settings = named(what, "mixers")
    kind: Any = mixer_class(table, name)
    if not issubclass(kind, Mixer):
        more = {"heads": layer.heads} if "heads" in inspect.signature(kind.__init__).parameters else {}
        return MapMixer(kind(layer.width, **more, **settings))
    if "positions" in inspect.signature(kind.__init__).parameters:
        settings["positions"] = build_positions(spec, layer.width // layer.heads, layer.heads)
    if issubclass(kind, Experts):
        router = replace(expert_spec(spec), width=layer.width)
        return kind(layer.width, *sizes, router, spec.moe.router, **settings)
    if spec.inner_norm:
        settings["norm"] = spec.eps
    return kind(layer.width, *sizes, **settings)


def stage(layer: LayerSpec, width: int) -> Step:
    """The step in front of a layer of `layers_of` that changes the tokens, from this width to the layer's."""
    name, settings = named(layer.stage, "steps: stage")
    kind: Any = mixer_class(STAGES, name)
    made: Step = kind(width, layer.width, **settings)
    return made


def check(spec: EncoderSpec, inputs: Callable[[], Inputs]) -> None:
    """UserError for a description that cannot work, by itself or with the modalities and tasks of its model.

    inputs: what those offer; asked for where a mixer needs more than any tokens.
    """
    try:
        _check_parts(spec)
        used = _check_mixers(spec)
        check_experts(spec)
    except UserError:
        raise
    except (TypeError, ValueError) as error:  # a file or a list of settings holds a value of another type
        raise UserError(f"model: a setting has a value of the wrong kind ({error})") from error
    if set(used.values()) - {Needs(), Needs(reach="token")}:
        check_needs(spec, used.items(), inputs())


def _check_parts(spec: EncoderSpec) -> None:
    spec.check_sizes()
    for act in filter(None, (spec.activation, spec.output_act)):
        check_name(act, ACT2FN, "activation")
    for layer in layers_of(spec):
        check_positions(spec, layer.width // layer.heads, layer.heads)
    check_readout(spec)


def _check_mixers(spec: EncoderSpec) -> dict[str, Needs]:
    """What each mixer that is used needs, by its name."""
    used: dict[str, Needs] = {}
    for layer in layers_of(spec):
        if layer.stage:
            chosen, settings = named(layer.stage, "steps: stage")
            check_name(chosen, STAGES, "steps: stage")
            _settings(chosen, settings, mixer_class(STAGES, chosen))
        for key, what, table, other in (
            ("mixers", layer.mixer, TOKEN_MIXERS, CHANNEL_MIXERS),
            ("channel_mixers", layer.channel, CHANNEL_MIXERS, TOKEN_MIXERS),
        ):
            used[named(what, key)[0]] = _checked(key, what, table, other)
    return used


def _checked(key: str, what: dict[str, Any] | str, table: Table, other: Table) -> Needs:
    """What a mixer needs. UserError for a name that is not in the table, or a setting that it does not have."""
    name, settings = named(what, key)
    if name in other:
        slot, kind = ("channel_mixers", "channel") if key == "mixers" else ("mixers", "token")
        raise UserError(
            f"model.{key}: {name!r} is a {kind} mixer; set model.{slot}={name} (model.{key} takes {', '.join(table)})"
        )
    check_name(name, table, key)
    found = mixer_class(table, name)
    _settings(name, settings, found)
    return found.needs_with(settings) if issubclass(found, Mixer) else needs_of(found)


def _settings(name: str, settings: dict[str, Any], kind: type[nn.Module]) -> None:
    valid = [p for p in inspect.signature(kind.__init__).parameters if p not in GIVEN]
    for setting in settings:
        _setting(name, setting, valid)


def _setting(kind: str, name: str, valid: Any) -> None:
    if name not in valid:
        raise UserError(f"model: {kind} has no setting {name!r}; {nearest(name, valid)}")
