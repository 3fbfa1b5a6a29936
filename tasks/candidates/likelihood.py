"""The law: p(y | x) is proportional to exp(cos(f(x), f(y)) * scale). Every task is this and nothing else.

Uni-Perceiver (2112.01522), equation 1; the clamp of the scale at 100 is CLIP's and the released code's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

MAX_SCALE = 100.0


@dataclass(frozen=True)
class Unit:
    """Candidates of length one, Float[K D] in float32: made once where many blocks of queries meet them."""

    vectors: Tensor

    @classmethod
    def of(cls, candidates: Float[Tensor, "K D"]) -> Unit:
        return cls(normalize(candidates.float(), dim=-1, eps=0.0))


def scale_of(log_scale: Float[Tensor, "1"], most: float = MAX_SCALE) -> Float[Tensor, "1"]:
    """exp(log scale), at most 100 or `most`: above the clamp the scale gets no gradient. [1] -> [1]."""
    return log_scale.float().exp().clamp(max=most)


def logits(
    queries: Float[Tensor, "*M D"],
    candidates: Float[Tensor, "K D"] | Unit,
    log_scale: Float[Tensor, "1"],
    most: float = MAX_SCALE,
) -> Float[Tensor, "*M K"]:
    """Scaled cosines, in float32: Float[... D] x Float[K D] -> Float[... K]. most: as of `scale_of`.

    Under autocast too: cosines of features that all have much in common would be rounded to steps of 1/256.
    """
    with torch.autocast(queries.device.type, enabled=False):
        q = normalize(queries.float(), dim=-1, eps=0.0)
        c = candidates if isinstance(candidates, Unit) else Unit.of(candidates)
        return q @ c.vectors.T * scale_of(log_scale, most)


def log_likelihood(
    queries: Float[Tensor, "*M D"], candidates: Float[Tensor, "K D"] | Unit, log_scale: Float[Tensor, "1"]
) -> Float[Tensor, "*M K"]:
    """log p(candidate | query): Float[... D] x Float[K D] -> Float[... K]; rows sum to one in p."""
    return logits(queries, candidates, log_scale).log_softmax(dim=-1)


def asked(target: Tensor) -> Tensor:
    """Which questions a target answers (`negative_log_likelihood` says what one is): Bool[...]."""
    return ~target.isnan().any(-1) if target.is_floating_point() else target >= 0


def negative_log_likelihood(
    log_p: Float[Tensor, "*M K"], target: Int[Tensor, "*M"] | Float[Tensor, "*M K"], smoothing: float = 0.0
) -> tuple[Float[Tensor, "1"], Int[Tensor, "1"]]:
    """Sum of -log p of the answers and their count, both [1], so that sums merge over batches and ranks.

    log_p: Float[... K]. target: int [...] (class index, -1 = not asked) or Float[... K] (a distribution,
    rows of NaN = not asked). smoothing e replaces a hard target t by (1 - e) t + e / K.
    """
    real = asked(target)
    if target.is_floating_point():
        per_answer = -(target.nan_to_num() * log_p).sum(-1)
    else:
        per_answer = -log_p.gather(-1, target.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    if smoothing:
        per_answer = (1 - smoothing) * per_answer - smoothing * log_p.mean(-1)
    return (per_answer * real).sum().reshape(1), real.sum().reshape(1)


def symmetric(log_p_forward: Tensor, log_p_backward: Tensor, target: Tensor, smoothing: float = 0.0):
    """Both directions of retrieval, averaged as the two halves of one loss: (sum, count) as above."""
    forward, count = negative_log_likelihood(log_p_forward, target, smoothing)
    backward, _ = negative_log_likelihood(log_p_backward, target, smoothing)
    return (forward + backward) / 2, count
