"""What is read at an asked token: the token itself, the mean of the others, the last one, or attention over them.

    asked      hidden[asked]                      the summary that attends to all; the default
    mean       mean of the sequence's other tokens
    mean_all, max_all, weighted_all               mean, maximum or mean weighted by place over all tokens
    last       the sequence's last token          causal text encoders (CLIP, 2103.00020, section 2.4: the end token)
    attention  a learnt query attends to the others' keys and values   (SigLIP's MAP head, 2303.15343; 1810.00825)

Everything but "asked" asks one question a sequence. Chosen by the description's `readout`, sizes of the last with it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from generalist.data.base.errors import UserError, nearest
from generalist.nn.activations import activation
from generalist.recipe.encoder import EncoderSpec
from generalist.recipe.layers import check_name


def tokens_of(owner: Int[Tensor, " N"], sequences: int) -> Int[Tensor, " sequences"]:
    """Int[sequences], how many tokens each sequence has; `bincount` as exporters know it."""
    return owner.new_zeros(sequences).index_add(0, owner, torch.ones_like(owner))


class Asked(nn.Module):
    """The asked token itself."""

    def __init__(self, config: EncoderSpec) -> None:
        super().__init__()
        self.size = config.out_width

    def forward(
        self, hidden: Float[Tensor, "N D"], owner: Int[Tensor, " N"], asked: Int[Tensor, " M"], sequences: int
    ) -> Float[Tensor, "M E"]:
        """hidden: Float[N D]; owner: Int[N], the sequence (0 .. sequences - 1) of each token; asked: Int[M].

        Returns Float[M size], one row an asked token.
        """
        return hidden.index_select(0, asked)


class MeanOfOthers(Asked):
    """The mean of all other tokens of the asked token's sequence."""

    def forward(
        self, hidden: Float[Tensor, "N D"], owner: Int[Tensor, " N"], asked: Int[Tensor, " M"], sequences: int
    ) -> Float[Tensor, "M E"]:
        sums = hidden.new_zeros(sequences, hidden.shape[1]).index_add(0, owner, hidden)
        counts = tokens_of(owner, sequences).unsqueeze(1)
        own = owner[asked]
        return (sums.index_select(0, own) - hidden[asked]) / (counts[own] - 1).clamp(min=1)


class MeanOfAll(Asked):
    """The mean of all tokens of the asked token's sequence, itself among them."""

    def forward(
        self, hidden: Float[Tensor, "N D"], owner: Int[Tensor, " N"], asked: Int[Tensor, " M"], sequences: int
    ) -> Float[Tensor, "M E"]:
        sums = hidden.new_zeros(sequences, hidden.shape[1]).index_add(0, owner, hidden)
        return (sums / tokens_of(owner, sequences).clamp(min=1).unsqueeze(1))[owner[asked]]


class MaxOfAll(Asked):
    """The largest value of each channel over all tokens of the asked token's sequence."""

    def forward(
        self, hidden: Float[Tensor, "N D"], owner: Int[Tensor, " N"], asked: Int[Tensor, " M"], sequences: int
    ) -> Float[Tensor, "M E"]:
        index = owner.unsqueeze(1).expand_as(hidden)
        low = hidden.new_full((sequences, hidden.shape[1]), -math.inf)
        return low.scatter_reduce(0, index, hidden, "amax")[owner[asked]]


class WeightedOfAll(Asked):
    """The mean of all tokens, the first counted once, the second twice and so on (SGPT, 2202.08904, section 3.2)."""

    def forward(
        self, hidden: Float[Tensor, "N D"], owner: Int[Tensor, " N"], asked: Int[Tensor, " M"], sequences: int
    ) -> Float[Tensor, "M E"]:
        place = torch.arange(len(owner), device=owner.device)
        first = torch.full((sequences,), len(owner), dtype=torch.long, device=owner.device)
        weight = (place - first.scatter_reduce(0, owner, place, "amin")[owner] + 1).to(hidden.dtype)
        sums = hidden.new_zeros(sequences, hidden.shape[1]).index_add(0, owner, hidden * weight.unsqueeze(1))
        total = hidden.new_zeros(sequences).index_add(0, owner, weight)
        return (sums / total.clamp(min=1).unsqueeze(1))[owner[asked]]


class LastToken(Asked):
    """The last token of the asked token's sequence."""

    def forward(
        self, hidden: Float[Tensor, "N D"], owner: Int[Tensor, " N"], asked: Int[Tensor, " M"], sequences: int
    ) -> Float[Tensor, "M E"]:
        place = torch.arange(len(owner), device=owner.device)
        last = torch.zeros(sequences, dtype=torch.long, device=owner.device).scatter_reduce(0, owner, place, "amax")
        return hidden.index_select(0, last[owner[asked]])


class AttentionPooling(nn.Module):
    """softmax(q k^T / sqrt(d)) v over a sequence's tokens for one learnt q, projected; then x + MLP(LN(x)).

    pooler: {heads, size: width of query and result (0 = the encoder's), hidden: of the MLP (0 = no MLP), norm: a
    LayerNorm in front of keys and values, own: the asked token is attended to as well}. The query is the one after
    its projection: a projected constant is a constant.
    """

    def __init__(self, config: EncoderSpec) -> None:
        super().__init__()
        chosen = POOLER | (config.pooler or {})
        width, eps = config.out_width, config.eps
        self.heads, self.own = int(chosen["heads"]), bool(chosen["own"])
        self.size = size = int(chosen["size"]) or width
        self.norm = nn.LayerNorm(width, eps=eps) if chosen["norm"] else nn.Identity()
        self.query = nn.Parameter(torch.empty(1, size).normal_(std=size**-0.5))
        self.kv = nn.Linear(width, 2 * size)
        self.out = nn.Linear(size, size)
        self.norm2: nn.Module | None = None
        if hidden := int(chosen["hidden"]):
            self.norm2 = nn.LayerNorm(size, eps=eps)
            self.up, self.down = nn.Linear(size, hidden), nn.Linear(hidden, size)
            self.activation = activation(config.activation)

    def forward(
        self, hidden: Float[Tensor, "N D"], owner: Int[Tensor, " N"], asked: Int[Tensor, " M"], sequences: int
    ) -> Float[Tensor, "M E"]:
        k, v = self.kv(self.norm(hidden)).view(len(hidden), 2, self.heads, -1).unbind(1)
        q = self.query.view(1, self.heads, -1)
        scores = (k * q).sum(-1).float() / math.sqrt(k.shape[-1])  # [N H]
        if not self.own:
            # an asked token alone in its sequence is all there is to attend to
            alone = tokens_of(owner, sequences)[owner[asked]] == 1
            skipped = torch.zeros(len(hidden), dtype=torch.bool, device=hidden.device).index_fill(
                0, asked[~alone], True
            )
            scores = scores.masked_fill(skipped.unsqueeze(1), -math.inf)
        index = owner.unsqueeze(1).expand_as(scores)
        top = scores.new_full((sequences, self.heads), -math.inf).scatter_reduce(0, index, scores.detach(), "amax")
        weights = (scores - top[owner]).exp()
        total = torch.zeros_like(top).index_add(0, owner, weights)
        share = (weights / total.index_select(0, owner)).to(v.dtype).unsqueeze(-1)
        summed = v.new_zeros(sequences, *v.shape[1:]).index_add(0, owner, share * v)
        x = self.out(summed.flatten(1).index_select(0, owner[asked]))
        return x if self.norm2 is None else x + self.down(self.activation(self.up(self.norm2(x))))


POOLER: dict[str, Any] = {"heads": 1, "size": 0, "hidden": 0, "norm": False, "own": False}
POOLINGS: dict[str, type[nn.Module]] = {
    "asked": Asked,
    "mean": MeanOfOthers,
    "mean_all": MeanOfAll,
    "max_all": MaxOfAll,
    "weighted_all": WeightedOfAll,
    "last": LastToken,
    "attention": AttentionPooling,
}


def build_pooling(spec: EncoderSpec) -> Any:
    """The readout that a description names. UserError for one that does not exist or a setting it does not have."""
    check_readout(spec)
    return POOLINGS[spec.pooling](spec)


def reads_all(pooling: nn.Module) -> bool:
    """Whether a readout looks at other tokens than those asked."""
    return type(pooling) is not Asked


def check_readout(spec: EncoderSpec) -> None:
    check_name(spec.pooling, POOLINGS, "readout")
    settings = spec.pooler or {}
    if wrong := [name for name in settings if name not in POOLER]:
        raise UserError(f"model: pooler has no setting {wrong[0]!r}; {nearest(wrong[0], POOLER)}")
    if settings and not issubclass(POOLINGS[spec.pooling], AttentionPooling):
        raise UserError(f"model: the readout {spec.pooling!r} has no settings; set model.pooling=attention")
    heads, size = int((POOLER | settings)["heads"]), int((POOLER | settings)["size"]) or spec.out_width
    if heads < 1 or size % heads:
        raise UserError(f"model: {heads} pooling heads do not divide {size}; set pooler heads")
