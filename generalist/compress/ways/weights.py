"""Methods that change numbers and leave the model's form: pruning, low rank, int8.

Weights that a model only names (frozen encoders in installed packages) are left as they are: changed, they would have
to lie in the folder.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune as pruning

from generalist.compress.ways.refit import Moments, looked_at, rest, watching
from generalist.compress.work import Work
from generalist.data.base.errors import UserError, nearest
from generalist.nn.experts.experts import ExpertLinear

PRUNED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, ExpertLinear)
SCOPES = ("matrix", "global")
ENCODER = "encoder."


def check_share(name: str, share: float) -> None:
    """UserError for what is no part of a whole."""
    if not 0 < share < 1:
        raise UserError(f"{name}: the share {share:g} does not lie between 0 and 1; write {name}:0.3")


@dataclass
class Prune:
    """The smallest `share` of the weights is zero for good.

    scope: "matrix", the smallest of every matrix of the encoder's layers (tokenizers, which hold embeddings and
    positions, and heads are left out); "global", the smallest of all linears' and convolutions' weights of the model.
    refit: where there is training data, what is left of a linear layer with a bias is fitted by least squares to what
    the whole one computes of the same inputs, those of so many samples behind the layers before it as they have become
    (`refit.rest`; no label is looked at); 0 = left as it is.
    """

    share: float
    scope: str = "matrix"
    refit: int = 512

    def check(self) -> None:
        check_share("prune", self.share)
        if self.refit < 0:
            raise UserError(f"prune: refit={self.refit} is a number of samples, or 0 to leave the rest as it is")
        if self.scope not in SCOPES:
            raise UserError(f"prune: scope {self.scope!r}; {nearest(self.scope, SCOPES)} ({' or '.join(SCOPES)})")

    @torch.no_grad()
    def run(self, work: Work) -> dict[str, Any]:
        found = work.weights(PRUNED)
        if self.scope == "matrix":
            found = {name: module for name, module in found.items() if name.startswith(ENCODER)}
        chosen = [(module, "weight") for module in found.values()]
        if not chosen:
            raise UserError("this model has no linear weight of its own to prune; leave prune out")
        fitted = found if self.refit and work.learn is not None else {}
        linears = {n: m for n, m in fitted.items() if isinstance(m, nn.Linear) and m.bias is not None}
        whole = {name: linear.weight.clone() for name, linear in linears.items()}
        if self.scope == "global":
            pruning.global_unstructured(chosen, pruning.L1Unstructured, amount=self.share)
        else:
            for module, name in chosen:
                pruning.l1_unstructured(module, name, amount=self.share)
        for module, name in chosen:
            pruning.remove(module, name)
        for _, names in groupby(linears, lambda name: name.split(".")[:3]):  # encoder.layers.N; else whatever it is
            layer = list(names)
            with watching([linears[name] for name in layer]) as moments:
                looked_at(work.model, work.lessons, self.refit)
            for name, seen in zip(layer, moments, strict=True):
                if seen.count:
                    refit(linears[name], whole[name], seen)
        for name in found:
            work.factors.pop(f"{name}.weight", None)  # what was of low rank is no longer
        weights: list[Any] = [module.weight for module, _ in chosen]
        total, zeros = sum(w.numel() for w in weights), sum(int((w == 0).sum()) for w in weights)
        most = max(float((w == 0).float().mean()) for w in weights)
        return {"weights": total, "zeros": zeros, "share": zeros / total, "share of the most pruned matrix": most}


def refit(linear: nn.Linear, whole: Tensor, seen: Moments) -> None:
    """What is left of a linear layer takes over what it can of the whole output, its bias what left of the mean."""
    found = rest(whole, seen, linear.weight != 0)
    mean = (whole.detach().double().cpu() - found) @ seen.mean
    linear.weight.copy_(found)
    linear.bias.add_(mean.to(linear.bias))


@dataclass
class LowRank:
    """Every linear keeps `share` of its singular values, the largest (truncated SVD, the nearest matrix of that rank).

    Stored as two factors where those are smaller than the matrix; the model multiplies them when it is read and has the
    matrices that it had, so that it is smaller on disk and not faster.
    """

    share: float

    def check(self) -> None:
        check_share("lowrank", self.share)

    @torch.no_grad()
    def run(self, work: Work) -> dict[str, Any]:
        linears = work.weights((nn.Linear,))
        if not linears:
            raise UserError("this model has no linear weight of its own; leave lowrank out")
        smaller, lost, total = 0, 0.0, 0.0
        for name, module in linears.items():
            weight: Any = module.weight
            u, s, v = torch.linalg.svd(weight.double(), full_matrices=False)
            rank = max(1, math.ceil(self.share * len(s)))
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


@dataclass
class Int8:
    """Weights of two and more dimensions are stored as int8 with a scale a row, and are floats again when read."""

    def check(self) -> None:
        """It has no setting."""

    def run(self, work: Work) -> dict[str, Any]:
        work.int8 = True
        return {}
