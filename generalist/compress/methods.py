"""What can be done to a model's weights to make it smaller: `prune:SHARE`, `lowrank:SHARE`, `int8`, in the order given.

Weights that a model only names (frozen encoders in installed packages) are left as they are: changed, they would have
to lie in the folder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as pruning

from generalist.data.base.errors import UserError, nearest
from generalist.model.referred import prefix_of
from generalist.model.stored import LEFT, RIGHT, as_int8
from generalist.nn.experts.experts import ExpertLinear

PRUNED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, ExpertLinear)


@dataclass
class Work:
    """A model under way. factors: {tensor: (left [out r], right [r in])} of weights that are stored as two factors."""

    model: Any
    factors: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    int8: bool = False

    def weights(self, kinds: tuple[type[nn.Module], ...]) -> dict[str, nn.Module]:
        """{module's name: module} of these kinds, each weight once, without those that the model only names."""
        elsewhere = tuple(prefix_of(name) for name in self.model.config.referred or {})
        found: dict[str, nn.Module] = {}
        seen: set[int] = set()
        for name, module in self.model.named_modules():
            own = dict(module.named_parameters(recurse=False)).get("weight")
            if not isinstance(module, kinds) or own is None or id(own) in seen:
                continue
            seen.add(id(own))
            if not (elsewhere and f"{name}.".startswith(elsewhere)):
                found[name] = module
        return found

    def stored(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the file holds of a model whose source holds `tensors`: the same names and dtypes, or smaller."""
        state = self.model.state_dict()
        parts: dict[str, Tensor] = {}
        for name, before in tensors.items():
            left, right = self.factors.get(name, (None, None))
            if left is not None and right is not None:
                parts |= {name + LEFT: left.to(before.dtype), name + RIGHT: right.to(before.dtype)}
            else:
                parts[name] = state[name].to(before.dtype) if name in state else before
        if not self.int8:
            return {name: value.contiguous().clone() for name, value in parts.items()}
        own = {name for name, _ in self.model.named_parameters()}
        found: dict[str, Tensor] = {}
        for name, value in parts.items():
            is_weight = name.removesuffix(LEFT).removesuffix(RIGHT) in own
            found |= as_int8(name, value) if is_weight else {name: value}
        return {name: value.contiguous().clone() for name, value in found.items()}


@torch.no_grad()
def prune(work: Work, share: float) -> dict[str, Any]:
    """The smallest `share` of all weights of linears (experts' too) and convolutions is zero for good (global L1)."""
    chosen = [(module, "weight") for module in work.weights(PRUNED).values()]
    if not chosen:
        raise UserError("this model has no linear weight of its own to prune; leave prune out")
    pruning.global_unstructured(chosen, pruning.L1Unstructured, amount=share)
    for module, name in chosen:
        pruning.remove(module, name)
    work.factors.clear()  # what was of low rank is no longer
    weights: list[Any] = [module.weight for module, _ in chosen]
    total, zeros = sum(w.numel() for w in weights), sum(int((w == 0).sum()) for w in weights)
    most = max(float((w == 0).float().mean()) for w in weights)
    return {"weights": total, "zeros": zeros, "share": zeros / total, "share of the most pruned matrix": most}


@torch.no_grad()
def lowrank(work: Work, share: float) -> dict[str, Any]:
    """Every linear keeps `share` of its singular values, the largest (truncated SVD, the nearest matrix of that rank).

    Stored as two factors where those are smaller than the matrix; the model multiplies them when it is read and has the
    matrices that it had, so that it is smaller on disk and not faster.
    """
    linears = work.weights((nn.Linear,))
    if not linears:
        raise UserError("this model has no linear weight of its own; leave lowrank out")
    smaller, lost, total = 0, 0.0, 0.0
    for name, module in linears.items():
        weight: Any = module.weight
        u, s, v = torch.linalg.svd(weight.double(), full_matrices=False)
        rank = max(1, math.ceil(share * len(s)))
        root = s[:rank].sqrt()
        left, right = u[:, :rank] * root, root.unsqueeze(1) * v[:rank]
        weight.copy_(left @ right)
        lost, total = lost + float((s[rank:] ** 2).sum()), total + float((s**2).sum())
        work.factors.pop(f"{name}.weight", None)
        if rank * sum(weight.shape) < weight.numel():
            work.factors[f"{name}.weight"] = (left.to(weight), right.to(weight))
            smaller += 1
    return {
        "matrices": len(linears),
        "as factors": smaller,
        "relative error": math.sqrt(lost / total) if total else 0.0,
    }


def int8(work: Work, share: float) -> dict[str, Any]:
    """Weights of two and more dimensions are stored as int8 with a scale a row, and are floats again when read."""
    work.int8 = True
    return {}


# name -> (what it does, whether it takes a share)
METHODS: dict[str, tuple[Callable[[Work, float], dict[str, Any]], bool]] = {
    "prune": (prune, True),
    "lowrank": (lowrank, True),
    "int8": (int8, False),
}


@dataclass(frozen=True)
class Method:
    """One word of --method."""

    name: str
    share: float = 0.0

    def run(self, work: Work) -> dict[str, Any]:
        """Done to the model; what is to be told of it."""
        given = {"share given": self.share} if METHODS[self.name][1] else {}
        return {"method": self.name, **given, **METHODS[self.name][0](work, self.share)}


def parsed(words: Sequence[str]) -> list[Method]:
    """`prune:0.3 int8` as methods. UserError: unknown, a share that is missing or no share, int8 before another."""
    found = []
    for word in words:
        name, colon, text = word.partition(":")
        if name not in METHODS:
            raise UserError(f"unknown method {name!r}; {nearest(name, METHODS)}")
        if not METHODS[name][1]:
            if colon:
                raise UserError(f"{name} takes no share; write --method {name}")
            found.append(Method(name))
            continue
        try:
            share = float(text)
        except ValueError:
            raise UserError(f"{name} takes a share between 0 and 1, not {text!r}; write {name}:0.3") from None
        if not 0 < share < 1:
            raise UserError(f"{name}: the share {text} does not lie between 0 and 1; write {name}:0.3")
        found.append(Method(name, share))
    if any(method.name == "int8" for method in found[:-1]):
        raise UserError("int8 is how the finished weights are stored; give it once, as the last method")
    return found
