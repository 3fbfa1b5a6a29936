"""Which layers of a configuration hold experts, and experts that cannot work refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from generalist.data.base.errors import UserError
from generalist.nn.experts.routing import ROUTERS, RouterSpec
from generalist.recipe.encoder import EncoderSpec
from generalist.recipe.layers import MoeSpec, check_name, named

# Every how many layers hold experts, from the first. Known of the released code: "all"; "odd", the layers 0, 2, 4, ...
# (every tensor of it is compared with a file); "four" is every 4th. Guessed: that "four" begins with the first layer
# (0, 4, 8), as "odd" does; no released model or file uses it.
PLACEMENTS: dict[str, int] = {"none": 0, "all": 1, "odd": 2, "four": 4}


PARTS: dict[str, tuple[str, ...]] = {"both": ("attention", "mlp"), "attention": ("attention",), "mlp": ("mlp",)}


EXPERT_MIXER = {"attention": "expert_attention", "mlp": "expert_mlp"}


def placed(mixers: Sequence[dict[str, Any] | str], moe: MoeSpec, part: str) -> list[dict[str, Any] | str]:
    """The mixers of all layers with experts where they are to stand ("odd": the 1st, 3rd, ... layer)."""
    check_name(moe.placement, PLACEMENTS, "moe_placement")
    check_name(moe.parts, PARTS, "moe_parts")
    every = PLACEMENTS[moe.placement]
    if not every or part not in PARTS[moe.parts]:
        return list(mixers)
    return [_expert(mixer) if i % every == 0 else mixer for i, mixer in enumerate(mixers)]


def _expert(mixer: dict[str, Any] | str) -> dict[str, Any] | str:
    name, settings = named(mixer, "mixers")
    name = EXPERT_MIXER.get(name, name)
    return {"kind": name, **settings} if settings else name


def expert_spec(spec: EncoderSpec) -> RouterSpec:
    """What a description says of its routers."""
    modalities, tasks = spec.known
    return RouterSpec(**vars(spec.moe), width=spec.width, modalities=modalities, tasks=tasks)


def has_experts(spec: EncoderSpec) -> bool:
    """Whether any layer of this description holds experts."""
    listed = [named(mixer, "mixers")[0] for layer in spec.stack() for mixer in (layer.mixer, layer.channel)]
    return PLACEMENTS[spec.moe.placement] > 0 or any(name in EXPERT_MIXER.values() for name in listed)


def check_experts(spec: EncoderSpec) -> None:
    """UserError for experts that cannot work."""
    moe = spec.moe
    check_name(moe.placement, PLACEMENTS, "moe_placement")
    check_name(moe.parts, PARTS, "moe_parts")
    check_name(moe.router, ROUTERS, "moe_router")
    if moe.experts < 1 or not 1 <= moe.top <= moe.experts:
        raise UserError(f"model: moe_top {moe.top} of moe_experts {moe.experts}; choose 1 <= moe_top <= moe_experts")
    if moe.noise < 0:
        raise UserError(f"model: moe_noise is {moe.noise}; it must be 0 (none) or more")
    if not has_experts(spec):
        return
    none = {"inner_norm": spec.inner_norm, "relative": spec.relative, "head_dim": spec.head_dim, "local": spec.local}
    for name, given in none.items():
        if given:
            raise UserError(f"model: experts have no {name}; leave it out or set moe_placement to none")
    channels = [named(layer.channel, "channel_mixers")[0] for layer in spec.stack()]
    other = [name for name in channels if name not in EXPERT_MIXER and name not in EXPERT_MIXER.values()]
    if PLACEMENTS[moe.placement] and "mlp" in PARTS[moe.parts] and other:
        raise UserError(f"model: the channel mixer {other[0]!r} has no experts; set moe_parts to attention, or use mlp")
