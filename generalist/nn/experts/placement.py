"""Which layers of a configuration hold experts, and experts that cannot work refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from generalist.data.base.errors import UserError, nearest
from generalist.nn.experts.routing import ROUTERS, RouterSpec

# Every how many layers hold experts, from the first. Known of the released code: "all"; "odd", the layers 0, 2, 4, ...
# (every tensor of it is compared with a file); "four" is every 4th. Guessed: that "four" begins with the first layer
# (0, 4, 8), as "odd" does; no released model or file uses it.
PLACEMENTS: dict[str, int] = {"none": 0, "all": 1, "odd": 2, "four": 4}


PARTS: dict[str, tuple[str, ...]] = {"both": ("attention", "mlp"), "attention": ("attention",), "mlp": ("mlp",)}


EXPERT_MIXER = {"attention": "expert_attention", "mlp": "expert_mlp"}


def placed(names: Sequence[str], config: Any, part: str) -> list[str]:
    """The mixers of all layers with experts where the configuration puts them ("odd": the 1st, 3rd, ... layer)."""
    every = PLACEMENTS[config.moe_placement]
    if not every or part not in PARTS[config.moe_parts]:
        return list(names)
    return [EXPERT_MIXER.get(name, name) if i % every == 0 else name for i, name in enumerate(names)]


def expert_spec(config: Any) -> RouterSpec:
    """What a configuration says of its routers."""
    return RouterSpec(
        width=config.hidden_size,
        experts=config.moe_experts,
        top=config.moe_top,
        noise=config.moe_noise,
        gelu=config.moe_gelu,
        modalities=len(config.modalities),
        tasks=len(config.tasks),
    )


def has_experts(config: Any) -> bool:
    """Whether any layer of this configuration holds experts."""
    named = [config.mixers, config.channel_mixers]
    listed = [name for names in named for name in ([names] if isinstance(names, str) else names)]
    return PLACEMENTS[config.moe_placement] > 0 or any(name in EXPERT_MIXER.values() for name in listed)


def check_experts(config: Any) -> None:
    """UserError for experts that cannot work."""
    for key, valid in (("moe_placement", PLACEMENTS), ("moe_parts", PARTS), ("moe_router", ROUTERS)):
        value = getattr(config, key)
        if value not in valid:
            raise UserError(f"model: {key} {value!r}; {nearest(value, valid)} (valid: {', '.join(valid)})")
    if config.moe_experts < 1 or not 1 <= config.moe_top <= config.moe_experts:
        raise UserError(
            f"model: moe_top {config.moe_top} of moe_experts {config.moe_experts}; choose 1 <= moe_top <= moe_experts"
        )
    for name in ("inner_norm", "relative"):
        if has_experts(config) and getattr(config, name):
            raise UserError(f"model: experts have no {name}; leave it out or set moe_placement to none")
    channels = config.channel_mixers if isinstance(config.channel_mixers, list) else [config.channel_mixers]
    other = [name for name in channels if name not in EXPERT_MIXER and name not in EXPERT_MIXER.values()]
    if PLACEMENTS[config.moe_placement] and "mlp" in PARTS[config.moe_parts] and other:
        raise UserError(f"model: the channel mixer {other[0]!r} has no experts; set moe_parts to attention, or use mlp")
    if config.moe_noise < 0:
        raise UserError(f"model: moe_noise is {config.moe_noise}; it must be 0 (none) or more")
