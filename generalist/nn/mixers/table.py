"""What stands in the two slots of a block: token mixers and channel mixers, by explicit tables.

A mixer says what it needs of a model (`Needs`); a configuration that cannot work is refused when it is read.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from generalist.data.base.errors import UserError, nearest
from generalist.data.base.named import named as by_name
from generalist.nn.activations import activation
from generalist.nn.attention.positions.table import build_positions
from generalist.nn.experts.experts import Experts
from generalist.nn.experts.placement import check_experts, expert_spec, placed
from generalist.nn.mixers.base import Mixer
from generalist.nn.mixers.maps import MapMixer
from generalist.nn.mixers.maps import needs_of as needs_of_operator
from generalist.nn.readout import check_readout
from generalist.nn.spec import EncoderSpec, Inputs, LayerSpec, Needs, check_needs
from generalist.nn.steps.base import STAGES, Step
from generalist.recipe.layers import check_name, named
from generalist.tokenizers_mod.maps.base import MapOperator

# a name and where its class is, or the class: a `Mixer`, or a plain module on maps (`generalist.tokenizers_mod.maps`)
Table = Mapping[str, str | type[nn.Module]]
TOKEN_MIXERS: dict[str, str | type[nn.Module]] = {
    "attention": "generalist.nn.mixers.attention:Attention",
    "expert_attention": "generalist.nn.experts.mixers:ExpertAttention",
    "decay_attention": "generalist.nn.mixers.attention:DecayAttention",
    "retention": "generalist.nn.mixers.retention:Retention",
    "hyena": "generalist.tokenizers_mod.maps.hyena:Hyena",
    "pool": "generalist.tokenizers_mod.maps.pool:Pool",
    "convolve": "generalist.tokenizers_mod.maps.convolve:Convolve",
    "convolution": "generalist.tokenizers_mod.maps.convolve:Convolve",
    "random": "generalist.tokenizers_mod.maps.pool:RandomMix",
    "identity": "generalist.nn.mixers.lean:Identity",
    "activator": "generalist.nn.mixers.lean:Activator",
    "minimal_attention": "generalist.nn.mixers.lean:MinimalAttention",
    "spectral_gate": "generalist.tokenizers_mod.maps.spectral:SpectralGate",
    "scattering": "generalist.tokenizers_mod.maps.scattering:Scattering",
    "window": "generalist.tokenizers_mod.maps.window:Window",
    "strip": "generalist.tokenizers_mod.maps.strip:Strip",
    "decay_axes": "generalist.tokenizers_mod.maps.decay:Manhattan",
}
CHANNEL_MIXERS: dict[str, str | type[nn.Module]] = {
    "mlp": "generalist.nn.mixers.channel:MLP",
    "swiglu": "generalist.nn.mixers.channel:SwiGLU",
    "conv_mlp": "generalist.nn.mixers.channel:ConvMLP",
    "none": "generalist.nn.mixers.channel:Nothing",
    "expert_mlp": "generalist.nn.experts.mixers:ExpertMLP",
}
# what the encoder gives a mixer; its other parameters are settings of {"kind": name, ...}
PAIRED = ("window",)  # whose setting `odd`, where it is not said, is set in every second layer of it
GIVEN = ("self", "width", "out", "heads", "hidden", "activation", "norm", "positions", "spec", "router")


def mixer_class(table: Table, name: str) -> type[nn.Module]:
    """The class behind a name of a table."""
    found = table[name]
    if not isinstance(found, str):
        return found
    kind: type[nn.Module] = by_name(found)
    return kind


def layers_of(spec: EncoderSpec) -> list[LayerSpec]:
    """Every layer of a description, experts in their places."""
    stack = spec.stack()
    mixers = placed([layer.mixer for layer in stack], spec.moe, "attention")
    channels = placed([layer.channel for layer in stack], spec.moe, "mlp")
    width, layers, met = spec.width, [], Counter[str]()
    for layer, mixer, channel in zip(stack, mixers, channels, strict=True):
        width = layer.width or width
        heads, hidden = layer.heads or spec.heads, layer.hidden or spec.hidden
        head_dim = layer.head_dim or spec.head_dim
        name, settings = named(mixer, "mixers")
        if name in PAIRED:
            settings.setdefault("odd", met[name] % 2 == 1)
            mixer, met[name] = {"kind": name, **settings}, met[name] + 1
        made = replace(layer, mixer=mixer, channel=channel, width=width, heads=heads, hidden=hidden, head_dim=head_dim)
        layers.append(made)
    return layers


def mixer_names(spec: EncoderSpec) -> list[tuple[str, str]]:
    """The names of the token and channel mixer of every layer, experts in their places."""
    return [(named(layer.mixer, "mixers")[0], named(layer.channel, "channel_mixers")[0]) for layer in layers_of(spec)]


def needs_of(layer: LayerSpec) -> Needs:
    """What the token mixer of a layer needs."""
    return _checked("mixers", layer.mixer, TOKEN_MIXERS, CHANNEL_MIXERS)


def token_mixer(spec: EncoderSpec, layer: LayerSpec) -> Mixer:
    """The token mixer of a layer of `layers_of`."""
    return _built(TOKEN_MIXERS, layer.mixer, spec, layer, layer.heads)


def channel_mixer(spec: EncoderSpec, layer: LayerSpec) -> Mixer:
    """The channel mixer of a layer of `layers_of`."""
    return _built(CHANNEL_MIXERS, layer.channel, spec, layer, layer.hidden, activation(spec.activation))


def _built(table: Table, what: dict[str, Any] | str, spec: EncoderSpec, layer: LayerSpec, *sizes: Any) -> Mixer:
    """A mixer of its sizes and settings; experts take the description's router besides."""
    name, settings = named(what, "mixers")
    try:
        return _made(name, dict(settings), mixer_class(table, name), spec, layer, *sizes)
    except UserError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"model: the mixer {name!r} cannot be built of {settings} ({error})") from error


def _made(name: str, settings: dict[str, Any], kind: Any, spec: EncoderSpec, layer: LayerSpec, *sizes: Any) -> Mixer:
    if not issubclass(kind, Mixer):
        more = {"heads": layer.heads} if "heads" in inspect.signature(kind.__init__).parameters else {}
        return MapMixer(kind(layer.width, **more, **settings))
    taken = inspect.signature(kind.__init__).parameters
    of_all = {"head_dim": layer.head_dim, "local": spec.local, "local_shared": spec.local_shared}
    for setting, given in of_all.items():
        if setting in taken and given:
            settings.setdefault(setting, given)
    if "positions" in taken:
        head = settings.get("head_dim") or layer.width // layer.heads
        settings["positions"] = build_positions(spec, head, layer.heads)
    if issubclass(kind, Experts):
        router = replace(expert_spec(spec), width=layer.width)
        return kind(layer.width, *sizes, router, spec.moe.router, **settings)
    if spec.inner_norm:
        if "norm" not in taken:
            raise UserError(f"model.inner_norm: the mixer {name!r} has no such norm; leave it out or take another")
        settings["norm"] = spec.eps
    return kind(layer.width, *sizes, **settings)


def kept_while_writing(spec: EncoderSpec) -> dict[str, int]:
    """Numbers that all layers keep of a sequence while an answer is written: "constant", and "a token" of what is read
    and written."""
    with torch.device("meta"):
        mixers = [token_mixer(spec, layer) for layer in layers_of(spec)]
    grows = sum(mixer.kept(2) - mixer.kept(1) for mixer in mixers)
    return {"constant": sum(mixer.kept(1) for mixer in mixers) - grows, "a token": grows}


def kept_line(kept: Mapping[str, int]) -> str:
    """The same as a line."""
    constant, more = kept["constant"], kept["a token"]
    return f"while it writes, a sequence keeps {constant:,} numbers whatever its length, and {more:,} a token"


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
        _check_attention(spec)
        operators = _built_without_numbers(spec)
    except UserError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:  # a file or a list of settings holds a value of another type
        raise UserError(f"model: a setting has a value of the wrong kind ({error})") from error
    if set(used.values()) - {Needs(), Needs(reach="token")} or Needs() not in used.values():
        offered = inputs()
        check_needs(spec, used.items(), offered)
        for name, operator in operators:
            _check_maps(name, operator, offered)


def _built_without_numbers(spec: EncoderSpec) -> list[tuple[str, MapOperator]]:
    """The operators on maps by their mixers' names. Every kind of mixer is built, so that it can refuse its sizes."""
    found, met = [], set[str]()
    for layer in layers_of(spec):
        parts = (layer.mixer, layer.channel, layer.heads, layer.hidden, layer.width, layer.head_dim)
        if str(parts) in met:
            continue
        met.add(str(parts))
        with torch.device("meta"):
            build_positions(spec, layer.head_dim or layer.width // layer.heads, layer.heads)
            made = token_mixer(spec, layer)
            channel_mixer(spec, layer)
        if isinstance(made, MapMixer) and isinstance(made.operator, MapOperator):
            found.append((named(layer.mixer, "mixers")[0], made.operator))
    return found


def _check_maps(name: str, operator: MapOperator, inputs: Inputs) -> None:
    """UserError where a modality's largest map is of a size that an operator refuses."""
    for modality, shape in inputs.largest.items():
        if len(shape) > 1 and (why := operator.refuses(*shape[-2:])):
            raise UserError(f"model: the mixer {name!r} cannot mix {modality!r}: {why}")


def _check_parts(spec: EncoderSpec) -> None:
    spec.check_sizes()
    for act in filter(None, (spec.activation, spec.output_act)):
        activation(act)
    check_readout(spec)
    if not spec.layers:
        _check_without_layers(spec)


def _check_without_layers(spec: EncoderSpec) -> None:
    """UserError for what makes no sense where tokens leave the encoder as they entered it."""
    if spec.pooling == "asked":
        raise UserError(
            "model.layers=0 with model.readout=asked reads a summary that has seen nothing; set model.readout=mean"
        )
    if spec.prompts or spec.candidate_prompts:
        raise UserError("model.layers=0 has no layer that deep prompts could go into; set model.prompts=0")
    if spec.moe.placement != "none":
        raise UserError("model.layers=0 has no layer that experts could stand in; set model.moe.placement=none")


def _check_mixers(spec: EncoderSpec) -> dict[str, Needs]:
    """What each mixer that is used needs, by its name."""
    used: dict[str, Needs] = {}
    width = spec.width
    for layer in layers_of(spec):
        if layer.stage:
            chosen, settings = named(layer.stage, "steps: stage")
            check_name(chosen, STAGES, "steps: stage")
            _settings(chosen, settings, mixer_class(STAGES, chosen))
            with torch.device("meta"):  # what values it refuses
                stage(layer, width)
        width = layer.width
        for key, what, table, other in (
            ("mixers", layer.mixer, TOKEN_MIXERS, CHANNEL_MIXERS),
            ("channel_mixers", layer.channel, CHANNEL_MIXERS, TOKEN_MIXERS),
        ):
            used[named(what, key)[0]] = _checked(key, what, table, other)
    return used


def _check_attention(spec: EncoderSpec) -> None:
    """UserError for settings of attention in a model that has none: nothing would read them."""
    asked = [name for name in ("prompts", "candidate_prompts", "position", "head_dim", "local") if vars(spec)[name]]
    kinds = [mixer_class(TOKEN_MIXERS, name) for name, _ in mixer_names(spec)]
    if asked and kinds and not any("positions" in inspect.signature(kind.__init__).parameters for kind in kinds):
        raise UserError(
            f"model.{asked[0]} is of attention, and no layer has any; put one among model.mixers, or leave it out"
        )


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
    return found.needs_with(settings) if issubclass(found, Mixer) else needs_of_operator(found)


def _settings(name: str, settings: dict[str, Any], kind: type[nn.Module]) -> None:
    valid = [p for p in inspect.signature(kind.__init__).parameters if p not in GIVEN]
    for setting in settings:
        _setting(name, setting, valid)


def _setting(kind: str, name: str, valid: Any) -> None:
    if name not in valid:
        raise UserError(f"model: {kind} has no setting {name!r}; {nearest(name, valid)}")
