"""A layer and the experts in it as a recipe describes them, and how names and sizes of them are refused."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from generalist.data.base.errors import UserError, nearest


@dataclass
class MoeSpec:
    """A mixture of experts (keys model.moe.*; `generalist.nn.experts.experts`).

    placement: "none", "odd" (layers 0, 2, 4 ...), "four" (0, 4, 8 ...; where it begins is a guess, no released file
    says it) or "all" layers; parts: "both", "attention" or "mlp"; experts: of a layer; top: experts that a token goes
    to; router: "attribute", "token", "context", "modality" or "task"; noise: of the router in training, in units of
    1 / experts; gelu: GELU in the attribute router.
    """

    placement: str = "none"
    parts: str = "both"
    experts: int = 8
    top: int = 2
    router: str = "attribute"
    noise: float = 1.0
    gelu: bool = False


@dataclass
class LayerSpec:
    """One layer. mixer, channel: a name, or {"kind": name} with its settings; norm: as `EncoderSpec.norm`; heads,
    hidden, head_dim: 0 = the encoder's. stage: the step in front of it that changes the tokens, such as "merge" or
    {"kind": "merge", "factor": 4} (`nn.steps.base.STAGES`), "" for none; width: from that step on, 0 = as in front.
    """

    mixer: dict[str, Any] | str = "attention"
    channel: dict[str, Any] | str = "mlp"
    norm: str = "pre"
    heads: int = 0
    hidden: int = 0
    stage: dict[str, Any] | str = ""
    width: int = 0
    head_dim: int = field(default=0, kw_only=True)


def named(value: Any, what: str) -> tuple[str, dict[str, Any]]:
    """A name, or {"kind": name} with settings -> the name and its settings."""
    if isinstance(value, str):
        return value, {}
    if isinstance(value, dict) and isinstance(value.get("kind"), str):
        return value["kind"], {k: v for k, v in value.items() if k != "kind"}
    raise UserError(f'model.{what} takes a name or {{"kind": name}} with settings, not {value!r}')


def layer_of(given: Any, number: int) -> LayerSpec:
    if not isinstance(given, dict):
        raise UserError(f'model.steps: layer {number} is {given!r}; give {{"mixer": ..., "channel": ...}}')
    for name in given:
        check_name(name, [f.name for f in fields(LayerSpec)], f"model.steps: layer {number} holds")
    for name in ("heads", "hidden", "head_dim"):
        if type(given.get(name, 0)) is not int:
            raise UserError(
                f"model.steps: layer {number}: {name}={given[name]!r}; it is a whole number, 0 = the encoder's"
            )
    return LayerSpec(**given)


def check_name(name: str, valid: Any, what: str) -> None:
    if name not in valid:
        raise UserError(f"model: {what} {name!r}; {nearest(name, valid)} (valid: {', '.join(valid)})")


def at_least(least: int, key: str, value: int) -> None:
    if value < least:
        raise UserError(f"{key} must be at least {least}, got {value}")


def divides(heads: int, width: int) -> None:
    """UserError where heads do not share the width equally; it says which number of them nearby does."""
    if width % heads:
        best = min((h for h in range(1, width + 1) if width % h == 0), key=lambda h: abs(h - heads))
        raise UserError(f"model.heads={heads} does not divide model.width={width}; use heads={best}")
