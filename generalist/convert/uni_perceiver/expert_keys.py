"""The official Uni-Perceiver-MoE key layout of one block <-> the parameters of `generalist.nn.experts.experts` (spec
3.3 and 6).

    self_attn.qkv_proj / self_attn.dense / linear1 / linear2
        .experts.deepspeed_experts.{e}.{weight, bias}        -> mixer.qkv, mixer.out, mlp.up, mlp.down, stacked
        .gate.tag_transform.0.{weight [D 8], bias}           -> router.attributes
        .gate.tag_transform.1.{weight, bias}                 -> router.norm
        .gate.wg.weight [E D]                                -> router.gate

The routers stored in self_attn.dense and linear2 decide nothing; they are handed back as they are.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.recipe.layers import MoeSpec

LINEARS = {
    "self_attn.qkv_proj": "mixer.qkv",
    "self_attn.dense": "mixer.out",
    "linear1": "mlp.up",
    "linear2": "mlp.down",
}
GATES = {"self_attn.qkv_proj": "mixer.router", "linear1": "mlp.router"}  # the routers that decide
GATE = {
    "tag_transform.0.weight": "attributes.weight",
    "tag_transform.0.bias": "attributes.bias",
    "tag_transform.1.weight": "norm.weight",
    "tag_transform.1.bias": "norm.bias",
    "wg.weight": "gate.weight",
}
_LINEAR = "|".join(map(re.escape, LINEARS))
_EXPERT = re.compile(rf"^({_LINEAR})\.experts\.deepspeed_experts\.(\d+)\.(weight|bias)$")
_GATE = re.compile(rf"^({_LINEAR})\.gate\.(.*)$")
_LAYER = re.compile(r"fused_encoder\.layers\.(\d+)\.(.*)$")


def is_expert_key(name: str) -> bool:
    """Whether an official name inside a block belongs to experts or routers."""
    return bool(_EXPERT.match(name) or _GATE.match(name))


def moe_state_dict(layer: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One block's official tensors, names without prefix -> (ours, without effect); dense names are left out.

    UserError when a layer's experts are not numbered 0, 1, 2 ... without a gap.
    """
    ours: dict[str, Tensor] = {}
    dead: dict[str, Tensor] = {}
    experts: dict[tuple[str, str], dict[int, Tensor]] = {}
    for name, value in layer.items():
        if match := _EXPERT.match(name):
            experts.setdefault((match[1], match[3]), {})[int(match[2])] = value
        elif match := _GATE.match(name):
            if match[1] in GATES and match[2] in GATE:
                ours[f"{GATES[match[1]]}.{GATE[match[2]]}"] = value
            else:
                dead[name] = value
    for (linear, end), found in experts.items():
        if sorted(found) != list(range(len(found))):
            raise UserError(f"{linear} has experts {sorted(found)}; the file lacks one of 0, 1, 2 ...: fetch it again")
        if len({value.shape for value in found.values()}) > 1:
            raise UserError(f"{linear} has experts of other sizes: {sorted({tuple(v.shape) for v in found.values()})}")
        ours[f"{LINEARS[linear]}.{end}"] = torch.stack([found[e] for e in range(len(found))])
    return ours, dead


def official_state_dict(block: dict[str, Tensor], dead: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The inverse: one block's tensors by our names -> official names; dense names are left out.

    dead: the routers without effect that `moe_state_dict` gave; copies of those that decide where not given.
    """
    out: dict[str, Tensor] = {}
    for theirs, ours in LINEARS.items():
        for end in ("weight", "bias"):
            value = block.get(f"{ours}.{end}")
            if value is not None and value.ndim == (3 if end == "weight" else 2):
                out |= {f"{theirs}.experts.deepspeed_experts.{e}.{end}": v for e, v in enumerate(value)}
        router = f"{ours.partition('.')[0]}.router"
        for official, name in GATE.items():
            value = (dead or {}).get(f"{theirs}.gate.{official}") if theirs not in GATES else None
            value = block.get(f"{router}.{name}") if value is None else value
            if value is not None:
                out[f"{theirs}.gate.{official}"] = value
    return out


def moe_settings(official: dict[str, Tensor]) -> dict[str, Any]:
    """`GeneralistConfig` fields of an official file (torch names), empty for a dense one.

    The file says where the experts are and how many; the rest is what was released: attribute router, top 2.
    """
    places: dict[str, set[int]] = {"mixer": set(), "mlp": set()}
    layers, experts = 0, 0
    for name in official:
        if match := _LAYER.match(name):
            layers = max(layers, int(match[1]) + 1)
            if expert := _EXPERT.match(match[2]):
                places[LINEARS[expert[1]].partition(".")[0]].add(int(match[1]))
                experts = max(experts, int(expert[2]) + 1)
    if not experts:
        return {}
    mixers = ["expert_attention" if i in places["mixer"] else "attention" for i in range(layers)]
    channels = ["expert_mlp" if i in places["mlp"] else "mlp" for i in range(layers)]
    return {"mixers": mixers, "channel_mixers": channels, "moe": MoeSpec(experts=experts, top=2, router="attribute")}
