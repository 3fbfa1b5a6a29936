"""A batch -> the summed negative log-likelihood of its answers. The law, applied."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Batch, Packed, Span
from generalist.machine.collectives import gather, gather_constant, rank, world
from generalist.model.candidates import POLICIES, SHARE_FROM, Auto, Compared, Exact, Inputs, Members, sampled_loss
from generalist.model.many import CHUNK, SCORES, summed_loss
from generalist.model.model import PackedModel
from generalist.model.ranked import Ranked, member_scores, partner_scores
from generalist.recipe.specs import CandidateSpec
from generalist.tasks.candidates.likelihood import asked, negative_log_likelihood, symmetric
from generalist.tasks.candidates.names import TEMPLATED, CandidateSet
from generalist.tokenizers_mod.base.base import Modality

BARE = "{}"  # a name without a template


def same_answer(keys: Tensor | None, over: Callable[[Tensor], Tensor] = gather) -> Tensor:
    """Which partners over all ranks are each own row's answer, as a distribution: Int[B] -> Float[B W*B]."""
    assert keys is not None
    same = (keys.unsqueeze(1) == over(keys).unsqueeze(0)).float()
    return same / same.sum(-1, keepdim=True)


class Larger(NamedTuple):
    """How many times larger are the batch and the set that others stand for, where a step is only counted: whether all
    is held at once goes by their size."""

    samples: float = 1.0
    members: float = 1.0


class Objective(nn.Module):
    """Holds the model and the shared candidate sets; a step encodes those of its own task and no others.

    specs: {task: how training uses its candidates}, exact by default. mixed: ranks may be at different tasks in one
    step, so none may wait for another's share of a set. extra: what a training adds to the law's loss
    (`generalist.train.methods`).
    """

    draws: Tensor

    def __init__(
        self,
        model: PackedModel,
        sets: dict[str, CandidateSet],
        modalities: dict[str, Modality],
        specs: dict[str, CandidateSpec] | None = None,
        mixed: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.sets = sets
        self.specs = {name: (specs or {}).get(name, CandidateSpec()) for name in {**sets, **(specs or {})}}
        self.mixed = mixed
        self.extra: Callable[[Ranked], Tensor | None] | None = None
        self.larger = Larger()
        self._modalities = modalities
        self._templates = {name: chosen.templates_of(modalities) for name, chosen in sets.items()}
        self._worded = {(name, BARE): chosen.worded(modalities, BARE) for name, chosen in sets.items()}
        self._packed: dict[tuple[Any, ...], Packed] = {}  # by set and numbers, in a template by that too
        self._draws = {name for name in sets if self._templates[name] or self._worded[name, BARE].variants}
        if self._draws:
            # batches that names were drawn for: the same draw on every rank, and after a resume
            self.register_buffer("draws", torch.zeros(1, dtype=torch.long))
        width = model.config.output_size or model.config.out_width
        self._exact = Exact(CandidateSpec(), 0, width)
        # by number: a task's name may hold what a module's name may not
        self._policy_of = {name: i for i, name in enumerate(sets)}
        self.policies = nn.ModuleList(self._policy(name, width) for name in sets)
        for name in sets:
            self._check(name)

    def _policy(self, name: str, width: int) -> nn.Module:
        spec = self.specs[name]
        if POLICIES[spec.policy] is not Auto:
            return POLICIES[spec.policy](spec, self.count(name), width)
        found = Auto(spec, self.count(name), width, self._whole(name) or bool(self.model.config.linear_heads))
        if rank() == 0:
            found.told = lambda line: print(f"candidates.{name}: {line}", file=sys.stderr, flush=True)
        return found

    def _whole(self, name: str) -> bool:
        """Whether the set's loss looks at all its members."""
        return type(self.sets[name]).penalty is not CandidateSet.penalty

    def _check(self, name: str) -> None:
        spec = self.specs[name]
        if self.mixed and world() > 1 and spec.shard == "always":
            raise UserError(f"candidates.{name}.shard=always needs sampling=unmixed: ranks are at different tasks")
        if spec.policy == "sampled" and self._whole(name) and spec.size < self.count(name):
            raise UserError(
                f"candidates.{name}.policy=sampled: this set's loss looks at all its members; use exact or cached"
            )

    def count(self, name: str) -> int:
        """Members of a shared set."""
        return len(self._worded[name, BARE].sequences)

    def packed(self, name: str) -> Packed:
        """The members of a shared set as one packed batch on the model's device."""
        return self._pack(name, None)

    def _drawn(self, name: str) -> list[list[Span]]:
        """The members in a template and with one of their names each, drawn anew at every call."""
        rng = torch.Generator().manual_seed(int(self.draws))
        self.draws += 1
        templates, template = self._templates[name], BARE
        if templates and float(torch.rand(1, generator=rng)) < TEMPLATED:
            template = templates[int(torch.randint(len(templates), (1,), generator=rng))]
        if (worded := self._worded.get((name, template))) is None:
            worded = self._worded[name, template] = self.sets[name].worded(self._modalities, template)
        if not worded.variants:
            return worded.sequences
        own = list(worded.sequences)
        for number, others in worded.variants.items():
            if (chosen := int(torch.randint(1 + len(others), (1,), generator=rng))) > 0:
                own[number] = others[chosen - 1]
        return own

    def _pack(
        self, name: str, numbers: tuple[int, ...] | None, keep: bool = True, drawn: list[list[Span]] | None = None
    ) -> Packed:
        """All members of a set or some, by number; `keep` for the next step. drawn: instead of the set's own names."""
        own = self._worded[name, BARE].sequences if drawn is None else drawn
        # members that were drawn whole, in a template, come again; those with one of their names each do not
        template = next((t for (of, t), w in self._worded.items() if of == name and w.sequences is own), None)
        key = (name, numbers) if template == BARE else (name, numbers, template)
        found = None if template is None else self._packed.get(key)
        if found is None:
            found = pack(own if numbers is None else [own[i] for i in numbers], self.sets[name].role(name))
            found = found.to(self.model.device)
            if keep and template is not None:
                self._packed[key] = found
        return found

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """A state from before anything was drawn begins with the first draw."""
        if self._draws:
            state_dict.setdefault(f"{prefix}draws", torch.zeros_like(self.draws))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def shards(self, name: str) -> bool:
        """Whether training encodes this set in shares over the ranks."""
        shard, size = self.specs[name].shard, self.count(name)
        return world() > 1 and not self.mixed and (shard == "always" or (shard == "auto" and size >= SHARE_FROM))

    @torch.no_grad()
    def members(self, name: str) -> Float[Tensor, "K D"]:
        """The features of every member, exactly and without gradient: Float[K D]."""
        count = self.count(name)
        if count <= CHUNK:
            return self.model.features(self.packed(name), candidate=True)
        runs = [tuple(range(i, min(i + CHUNK, count))) for i in range(0, count, CHUNK)]
        return torch.cat([self.model.features(self._pack(name, run, keep=False), candidate=True) for run in runs])

    def forward(self, batch: Batch) -> Float[Tensor, "1"]:
        """Sum of -log p over the batch's answers: [1]."""
        return self._among_partners(batch) if batch.partners is not None else self._among_members(batch)

    def _among_partners(self, batch: Batch) -> Tensor:
        """In-batch candidates, both directions."""
        assert batch.partners is not None
        queries, partners = self.model.encode_together([batch.inputs, batch.partners])
        negatives = self.specs.get(batch.task, CandidateSpec()).negatives
        if negatives == "constant":
            all_queries, all_partners = gather_constant(queries), gather_constant(partners)
            keys = None if batch.keys is None else gather_constant(batch.keys)
            target = same_answer(keys, over=lambda k: k)
            forward = self.model.score(all_queries, all_partners, batch.scale)
            backward = self.model.score(all_partners, all_queries, batch.scale)
            # every rank sums over the whole matrix: its own part of that sum is one in `world`
            total = symmetric(forward, backward, target, batch.smoothing)[0] / world()
            by = partial(partner_scores, batch=batch, own=gather_constant, over=gather_constant)
            return self._with_extra(total, batch, [forward, backward], target, by, ranks=world())
        if self.mixed and world() > 1 and negatives == "gathered":
            raise UserError(
                f"task {batch.task}: ranks at different tasks cannot share negatives; "
                f"set candidates.{batch.task}.negatives=local or sampling=unmixed"
            )
        over: Callable[[Tensor], Tensor] = gather if negatives == "gathered" else (lambda x: x)
        target = same_answer(batch.keys, over)
        forward = self.model.score(queries, over(partners), batch.scale)
        backward = self.model.score(partners, over(queries), batch.scale)
        total = symmetric(forward, backward, target, batch.smoothing)[0]
        by = partial(partner_scores, batch=batch, own=lambda x: x, over=over)
        return self._with_extra(total, batch, [forward, backward], target, by)

    def _among_members(self, batch: Batch) -> Tensor:
        """A shared set, as its policy has it in training and exactly in evaluation."""
        name = batch.candidates
        assert name is not None and batch.inputs.labels is not None
        chosen, training = self.sets[name], self.model.training
        policy = self.policies[self._policy_of[name]] if training else self._exact
        drawn = self._drawn(name) if training and name in self._draws else None
        choose = partial(self._pack, name, drawn=drawn)
        members = Members(self.count(name), choose, training and self.shards(name), self.larger.members)
        made = self.model.embedded(batch.inputs)
        labels = batch.inputs.labels if made.labels is None else made.labels  # or of the objects that proposals matched
        compared = policy(self.model, Inputs(batch.inputs, made.x), members, chosen.target(labels))
        if compared.log_weight is None and self._bounded(batch, compared, name):
            total = self._in_chunks(batch, compared)
            return total if made.loss is None else total + made.loss
        total, log_p = self._loss(batch, compared)
        if self.extra is not None and made.labels is not None:
            raise UserError(f"task {batch.task}: its questions are what this model finds, no other model can rank them")
        for extra in (chosen.penalty(log_p, labels), made.loss):
            total = total if extra is None else total + extra
        by = partial(member_scores, batch=batch, compared=compared, members=members)
        return self._with_extra(total, batch, [log_p], compared.target, by, compared.log_weight)

    def _with_extra(
        self,
        total: Tensor,
        batch: Batch,
        scores: list[Tensor],
        target: Tensor,
        by: Callable[[PackedModel], list[Tensor]],
        log_weight: Tensor | None = None,
        ranks: int = 1,
    ) -> Tensor:
        """The law's loss, and in training what a method adds to it."""
        if self.extra is None or not self.model.training:
            return total
        more = self.extra(Ranked(batch.task, scores, asked(target), by, log_weight, ranks))
        return total if more is None else total + more

    def _bounded(self, batch: Batch, compared: Compared, name: str) -> bool:
        """Whether the scores are too many to be held, and nobody looks at them all."""
        looked_at = (self.extra is not None and self.model.training) or self._whole(name)
        many = asked(compared.target).numel() * len(compared.members) * prod(self.larger) > SCORES
        return many and not looked_at and batch.scale not in self.model.linear_heads

    def _in_chunks(self, batch: Batch, compared: Compared) -> Tensor:
        def scores(queries: Tensor, members: Tensor) -> Tensor:
            return self.model.tempered(self.model.scaled(queries, members, batch.scale), batch.scale)

        return summed_loss(scores, compared.queries, compared.members, compared.target, batch.smoothing)

    def _loss(self, batch: Batch, compared: Compared) -> tuple[Tensor, Tensor]:
        """The summed loss and log p over the columns compared with."""
        if compared.log_weight is None:
            log_p = self.model.score(compared.queries, compared.members, batch.scale)
            return negative_log_likelihood(log_p, compared.target, batch.smoothing)[0], log_p
        if batch.scale in self.model.linear_heads:
            raise UserError(f"candidates.{batch.candidates}: a linear head needs all its classes; use policy=exact")
        scores = self.model.scaled(compared.queries, compared.members, batch.scale)
        return sampled_loss(scores, compared, batch.smoothing), scores
