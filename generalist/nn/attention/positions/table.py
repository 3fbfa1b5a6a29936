"""The one explicit table of positions, and those that a description names."""

from __future__ import annotations

import inspect

from generalist.data.base.errors import UserError, nearest
from generalist.data.base.named import named as by_name
from generalist.nn.attention.positions.base import Position
from generalist.recipe.encoder import EncoderSpec
from generalist.recipe.layers import check_name

# a name and where its class is, or the class: kind(width of a head, heads, **settings)
POSITIONS: dict[str, str | type[Position]] = {
    "rotary": "generalist.nn.attention.positions.rotary:Rotary",
    "relative": "generalist.nn.attention.positions.relative:RelativeBias",
    "decay": "generalist.nn.attention.positions.decay:Decay",
}


def position_class(name: str) -> type[Position]:
    """The class behind a name of the table. UserError for a name that it does not hold."""
    check_name(name, POSITIONS, "position")
    found = POSITIONS[name]
    if isinstance(found, str):
        kind: type[Position] = by_name(found)
        return kind
    return found


def build_positions(spec: EncoderSpec, width: int, heads: int) -> dict[str, Position]:
    """What a description's `position` names, for heads of a width. UserError for what they cannot have."""
    made: dict[str, Position] = {}
    for name, settings in spec.positions().items():
        kind = position_class(name)
        known = [p for p in inspect.signature(kind.__init__).parameters if p not in ("self", "width", "heads")]
        if wrong := [setting for setting in settings if setting not in known]:
            raise UserError(f"model: {name} has no setting {wrong[0]!r}; {nearest(wrong[0], known)}")
        made[name] = kind(width, heads, **settings)
    return made
