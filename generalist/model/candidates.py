"""What a training step compares its questions with: all members of a candidate set, a sample, or a kept encoding.

Encoding K members can cost more than the batch (49,411 words against 64 sentences). Four policies:

    exact     every member, every step. Over several ranks each encodes its share and all are gathered with
              gradient, so that the ranks together do the work once.
    sampled   the answers of the batch and `size` others, drawn uniformly without replacement. A drawn member j
              enters the denominator with weight 1 / P(j is drawn), the log-Q correction, which makes the
              denominator unbiased: sum_j exp(s_j) over all = E[sum over drawn of exp(s_j - log Q_j)].
    cached    every member each `every` uses of the set, with gradient; in between the kept features are
              constants and only the questions learn. For models whose features move slowly: from scratch, at
              every=10, the small run of `scripts.candidate_policies` stays at chance (every=2 learns), while
              on from a trained model at a tenth of the learning rate it improves as sampling does.
    auto      exact, or sampled (cached where the set's loss looks at all members) where that costs less than two
              thirds of it: measured in the first uses, said once, kept in checkpoints.

Of members whose activations would take more than `many.ACTIVATIONS` bytes, exact holds those of one chunk at a time and
makes them again in the backward pass; of more than `many.SCORES` scores the loss is summed in chunks.

Evaluation never uses a policy: it compares with every member (`Objective.members`).
Sources: sampled softmax, Bengio and Senecal 2008; log-Q correction, Yi et al. 2019 (RecSys), section 4;
sets split over ranks, Uni-Perceiver spec 1.9.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from generalist.data.batch.types import Packed
from generalist.machine.collectives import gather, rank, sum_over_ranks, world
from generalist.model.many import encoded, too_large
from generalist.recipe.specs import CandidateSpec
from generalist.tasks.candidates.likelihood import asked, negative_log_likelihood

if TYPE_CHECKING:
    from generalist.model.model import PackedModel

WORTH = 0.67  # of exact's cost, from which `auto` takes what is no longer exact
LOOKS = 3  # uses of each policy that `auto` measures
SHARE_FROM = 1024  # members from which encoding them in shares pays for gathering them


@dataclass
class Compared:
    """Questions and the members that they are compared with.

    queries: Float[M ... D]; members: Float[K' D]; target: as `negative_log_likelihood` takes it, over the K';
    log_weight: Float[K'], log of how many members of the set each column stands for; None: one, and K' = K.
    count: K, the members of the whole set; numbers: those of the columns, None = all.
    """

    queries: Tensor
    members: Tensor
    target: Tensor
    count: int
    log_weight: Tensor | None = None
    numbers: tuple[int, ...] | None = None


class Members:
    """A shared set's members, ready to encode: `pack(numbers, keep)` gives those (None: all) as one packed batch.

    keep: they will be asked for again. shard: whether to encode them in shares over the ranks. times: how often they
    stand in the set that they stand for (`objective.Larger`).
    """

    def __init__(
        self, count: int, pack: Callable[[tuple[int, ...] | None, bool], Packed], shard: bool, times: float = 1.0
    ) -> None:
        self.count, self.pack, self.shard, self.times = count, pack, shard, times

    def share(self) -> Packed:
        """This rank's share: an even split, the tail filled up by member 0 so that all shares are of one size."""
        size = -(-self.count // world())
        numbers = torch.arange(rank() * size, (rank() + 1) * size)
        return self.pack(tuple(torch.where(numbers < self.count, numbers, 0).tolist()), True)


@dataclass
class Inputs:
    """What is asked: a packed batch and its tokens Float[N D] before the encoder, made already, for with them come the
    labels of proposals that were matched to objects; None: they are not."""

    packed: Packed
    tokens: Tensor | None = None


class Exact(nn.Module):
    """Every member, every step, with gradient through every rank that encoded one.

    All policies are made of (spec, K members, width D) and give what to compare the questions with.
    """

    def __init__(self, spec: CandidateSpec, count: int, width: int) -> None:
        super().__init__()

    def forward(self, model: PackedModel, inputs: Inputs, members: Members, target: Tensor) -> Compared:
        if members.shard:
            queries, share = model.encode_together([inputs.packed, members.share()], inputs.tokens)
            features = gather(share)[: members.count]
        elif torch.is_grad_enabled() and too_large(model, members):
            queries, features = model.features(inputs.packed, tokens=inputs.tokens), encoded(model, members)
        else:
            queries, features = model.encode_together([inputs.packed, members.pack(None, True)], inputs.tokens)
        return Compared(queries, features, target, members.count)


class Sampled(nn.Module):
    """The batch's answers and a uniform sample of the other members; exact where the sample would be half of all: it is
    packed anew at every step, which costs what it saves."""

    def __init__(self, spec: CandidateSpec, count: int, width: int) -> None:
        super().__init__()
        self.size = spec.size
        self.exact = Exact(spec, count, width)

    def forward(self, model: PackedModel, inputs: Inputs, members: Members, target: Tensor) -> Compared:
        if 2 * self.size >= members.count:
            return self.exact(model, inputs, members, target)
        numbers, log_weight = draw(answers(target), members.count, self.size)
        chosen = tuple(numbers.tolist())
        queries, features = model.encode_together([inputs.packed, members.pack(chosen, False)], inputs.tokens)
        at = restrict(target, numbers.to(target.device), members.count)
        return Compared(queries, features, at, members.count, log_weight.to(features.device), chosen)


class Cached(nn.Module):
    """Every member at each `every`-th use, the kept features in between. Its state is part of a checkpoint."""

    kept: Tensor
    age: Tensor

    def __init__(self, spec: CandidateSpec, count: int, width: int) -> None:
        super().__init__()
        self.every = spec.every
        self.exact = Exact(spec, count, width)
        self.register_buffer("kept", torch.zeros(count, width))
        self.register_buffer("age", torch.zeros(1, dtype=torch.long))  # uses since encoded, 0 = never

    def forward(self, model: PackedModel, inputs: Inputs, members: Members, target: Tensor) -> Compared:
        age = int(self.age)
        if 0 < age < self.every:
            self.age += 1
            queries = model.features(inputs.packed, tokens=inputs.tokens)
            return Compared(queries, self.kept, target, members.count)
        compared = self.exact(model, inputs, members, target)
        self.kept = compared.members.detach().to(self.kept)  # anew: a graph may still hold the old one
        self.age.fill_(1)
        return compared


class Auto(nn.Module):
    """Exact, unless another policy costs less than `WORTH` of it, measured on this machine in the first uses.

    The other is sampled, or cached where the loss looks at all members (`whole`). All processes take the same; what
    was taken is part of a checkpoint, and `told` says it once.
    """

    taken: Tensor

    def __init__(self, spec: CandidateSpec, count: int, width: int, whole: bool = False) -> None:
        super().__init__()
        self.exact, self.every = Exact(spec, count, width), spec.every
        self.other: nn.Module = Cached(spec, count, width) if whole else Sampled(spec, count, width)
        self.names = ("exact", "cached" if whole else "sampled")
        self.register_buffer("taken", torch.full((1,), -1))  # -1 while it is measured, 0 exact, 1 the other
        self.costs: list[list[float]] = [[], []]
        self.told: Callable[[str], None] = lambda line: None

    def forward(self, model: PackedModel, inputs: Inputs, members: Members, target: Tensor) -> Compared:
        if (taken := int(self.taken)) >= 0:
            found: Compared = (self.other if taken else self.exact)(model, inputs, members, target)
            return found
        which = sum(map(len, self.costs)) % 2
        start = clock(model.device)
        found = (self.other if which else self.exact)(model, inputs, members, target)
        self.costs[which].append(clock(model.device) - start)
        if len(self.costs[1]) >= LOOKS:
            self._take()
        return found

    def _take(self) -> None:
        """By the least cost of each: what else the machine did can only add to it."""
        own = torch.tensor([min(costs) for costs in self.costs], dtype=torch.float64)
        exact, other = sum_over_ranks(own.to(self.taken.device)).tolist()
        if isinstance(self.other, Cached):  # whose first use is exact
            other = (exact + (self.every - 1) * other) / self.every
        self.taken.fill_(int(other < WORTH * exact))
        share = f"{self.names[1]} costs {other / exact:.2f} of exact"
        self.told(f"{self.names[int(self.taken)]} is taken ({share}; below {WORTH} it is worth it)")


def clock(device: torch.device) -> float:
    """Seconds of work done: processor time, or on a GPU the time until it has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


POLICIES: dict[str, type[nn.Module]] = {"exact": Exact, "sampled": Sampled, "cached": Cached, "auto": Auto}


def answers(target: Int[Tensor, "*M"] | Float[Tensor, "*M K"]) -> Int[Tensor, " L"]:
    """The members that a target names, each once, in order: Int[L]."""
    if target.is_floating_point():
        return (target.nan_to_num() > 0).flatten(0, -2).any(0).nonzero().squeeze(1)
    return target[target >= 0].unique()


def draw(kept: Int[Tensor, " L"], count: int, size: int) -> tuple[Int[Tensor, " S"], Float[Tensor, " S"]]:
    """`kept` and `size` others of `count` members, uniformly without replacement: numbers Int[L + size], in order.

    Also Float[L + size]: -log of the probability with which each was drawn, 0 for those kept for sure.
    """
    kept = kept.cpu()
    key = torch.rand(count)
    key[kept] = 2.0  # always first
    size = min(size, count - len(kept))
    numbers = key.topk(len(kept) + size).indices.sort().values
    sure = torch.isin(numbers, kept)
    weight = torch.full((len(numbers),), (count - len(kept)) / max(size, 1)).log()
    return numbers, torch.where(sure, 0.0, weight)


def restrict(target: Int[Tensor, "*M"] | Float[Tensor, "*M K"], numbers: Int[Tensor, " S"], count: int) -> Tensor:
    """A target over all members -> over the columns `numbers`, which hold every answer."""
    if target.is_floating_point():
        return target[..., numbers]
    column = torch.full((count + 1,), -1, device=target.device)  # the last one for -1, not asked
    column[numbers] = torch.arange(len(numbers), device=target.device)
    return column[target]


def corrected(logits: Float[Tensor, "*M S"], log_weight: Float[Tensor, " S"]) -> Float[Tensor, "*M S"]:
    """log p over sampled columns, the denominator estimated for all members: Float[... K'] -> Float[... K']."""
    return logits - (logits + log_weight).logsumexp(-1, keepdim=True)


def sampled_loss(logits: Tensor, compared: Compared, smoothing: float) -> Tensor:
    """The summed negative log-likelihood against a sample: [1]. logits: Float[... K'], as without sampling.

    Label smoothing takes the mean over all members, which the weights estimate without bias too.
    """
    assert compared.log_weight is not None
    log_p, target = corrected(logits, compared.log_weight), compared.target
    total, _ = negative_log_likelihood(log_p, target)
    if not smoothing:
        return total
    mean = (log_p * compared.log_weight.exp()).sum(-1) / compared.count
    return (1 - smoothing) * total - smoothing * (mean * asked(target)).sum().reshape(1)
