"""`PackedModel`: the law over what `generalist.model.encoding` makes of packed sequences.

    p(y | x)  ∝  exp( cos(f(x), f(y)) · scale )

`features` is f at the asked tokens; `rank` and `log_likelihood` are the law for whoever has inputs and
candidates in hand. Nothing here knows a task or a modality by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generalist.data.base.errors import UserError, nearest
from generalist.data.batch.pack import pack
from generalist.data.batch.routes import Role
from generalist.data.batch.types import Packed, Span
from generalist.model.encoding import EncodingModel
from generalist.model.encoding import OutputHead as OutputHead
from generalist.model.kept import Encoded, State, state_of
from generalist.model.sides import INPUT, is_candidate, modalities_of
from generalist.tasks.candidates import likelihood

MEMBERS = 8192  # candidates encoded at once


class PackedModel(EncodingModel):
    """The model alone, a plain module: what trains, answers and is read from a folder in a second.

    transformers' class of the same tensors is `generalist.hf.model.GeneralistModel`.
    """

    def logits(
        self, queries: Float[Tensor, "*M D"], candidates: Float[Tensor, "K D"] | likelihood.Unit, scale: str
    ) -> Float[Tensor, "*M K"]:
        """Scaled cosines under a named logit scale, with its linear head if it has one: Float[... K]."""
        cosines = self.scaled(queries, candidates, scale)
        return self.tempered(self.linear_heads(scale, queries, cosines), scale)

    def scaled(
        self, queries: Float[Tensor, "*M D"], candidates: Float[Tensor, "K D"] | likelihood.Unit, scale: str
    ) -> Float[Tensor, "*M K"]:
        """cos · scale, and the scale's bias where it has one: Float[... K]."""
        found = likelihood.logits(queries, candidates, self.log_scale(scale), self.config.largest_scale)
        return found + self.logit_biases[scale] if scale in self.logit_biases else found

    def tempered(self, logits: Tensor, scale: str) -> Tensor:
        """Logits of a scale, over its temperature once training is over."""
        found = None if self.training else (self.config.temperatures or {}).get(scale)
        return logits if found is None else logits / found

    def score(
        self, queries: Float[Tensor, "*M D"], candidates: Float[Tensor, "K D"] | likelihood.Unit, scale: str
    ) -> Float[Tensor, "*M K"]:
        """log p(candidate | query): Float[... K], rows sum to one in p."""
        return self.logits(queries, candidates, scale).log_softmax(dim=-1)

    def log_scale(self, name: str) -> Float[Tensor, "1"]:
        if name not in self.log_scales:
            raise UserError(f"this model has no logit scale {name!r}; {nearest(name, self.log_scales)}")
        return self.log_scales[name]

    def packed_sides(
        self, inputs: Sequence[Sequence[Span]], candidates: Sequence[Sequence[Span]], task: str | None = None
    ) -> list[Packed]:
        """Inputs and candidates, each with its side of the question. task: as which it is asked (`sides`)."""
        roles = self.sides.roles(modalities_of(inputs), modalities_of(candidates), task)
        return [pack(own, role).to(self.device) for own, role in zip((inputs, candidates), roles, strict=True)]

    def packed_side(
        self, sequences: Sequence[Sequence[Span]], side: str, other: Collection[str] | None, task: str | None
    ) -> Packed:
        """One side alone; `encode` says what the words mean."""
        return pack(sequences, self.sides.role(side, modalities_of(sequences), other, task)).to(self.device)

    @torch.no_grad()
    def encode(
        self,
        sequences: Sequence[Sequence[Span]],
        side: str = INPUT,
        other: Collection[str] | None = None,
        task: str | None = None,
    ) -> Tensor:
        """Sequences asked at one token each -> unit vectors Float[B D] in the shared space.

        side: "input" (default), or "candidate" for what inputs are compared with: the two have prompts of their own in
        some models, and experts are chosen by it. other: the modalities on the other side, task: the name of the task,
        for experts that are chosen by them; None: those of the model's tasks that fit (`generalist.model.sides`).
        """
        packed = self.packed_side(sequences, side, other, task)
        return nn.functional.normalize(self.features(packed, is_candidate(side)).float(), dim=-1)

    def train(self, mode: bool = True) -> Any:
        self.kept.clear()  # parameters written around autograd (`p.data`) leave no other trace
        return super().train(mode)

    @property
    def weights_state(self) -> State:
        """Changes whenever a weight does."""
        return state_of([*self.parameters(), *self.buffers()])

    @torch.no_grad()
    def candidates(
        self, sequences: Sequence[Sequence[Span]], inputs: Collection[str] | None = None, task: str | None = None
    ) -> Encoded:
        """Candidates encoded once, for `rank` and `log_likelihood` to take in the sequences' stead.

        inputs: modalities of what they answer, task: as which it is asked; for experts that are chosen by them.
        """
        members = frozenset(modalities_of(sequences))
        role = self.sides.roles(inputs, members, task)[1]
        features = self.encode_answers(sequences, role)
        return Encoded(features, members, None if self.router is None else role, self.weights_state)

    def encode_answers(self, sequences: Sequence[Sequence[Span]], role: Role) -> Tensor:
        """f of candidates, a bounded number at once: Float[K D]."""
        runs = (sequences[i : i + MEMBERS] for i in range(0, len(sequences), MEMBERS))
        return torch.cat([self.features(pack(run, role).to(self.device), candidate=True) for run in runs])

    def repeated(self, what: Hashable, alive: Any, role: Role, make: Callable[[], Tensor]) -> Tensor | None:
        """The features of candidates that came before, without gradient; None for those that did not, in training and
        where somebody looks on. what: names them; alive, role: as `Kept` and `pack` take them."""
        if self.training or self.taps or torch.is_grad_enabled():
            return None
        kind = self.device.type
        half = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        return self.kept.again((what, None if self.router is None else role, half, self.weights_state), alive, make)

    @torch.no_grad()
    def log_likelihood(
        self,
        inputs: Sequence[Sequence[Span]],
        candidates: Sequence[Sequence[Span]] | Encoded,
        scale: str = "default",
        task: str | None = None,
    ) -> Tensor:
        """log p(candidate | input): Float[M K] (or [M a K]), one row an asked token of the inputs.

        candidates: sequences, or what `candidates` made of them; a list that is given again is not encoded again.
        task: the name of the model's task as which it is asked, for a mixture of experts (`generalist.model.sides`).
        """
        if len(candidates) < 2:
            raise UserError(f"{len(candidates)} candidate given: a likelihood needs at least two to choose among")
        members = candidates.members if isinstance(candidates, Encoded) else modalities_of(candidates)
        asked, role = self.sides.roles(modalities_of(inputs), members, task)
        if isinstance(candidates, Encoded):
            keys = candidates.fitting(None if self.router is None else role, self.weights_state)
        else:
            sequences = [list(spans) for spans in candidates]
            what = tuple(tuple(map(id, spans)) for spans in sequences)
            made = partial(self.encode_answers, sequences, role)
            if (found := self.repeated(what, sequences, role, made)) is None:
                queries, keys = self.encode_together(self.packed_sides(inputs, sequences, task))
                return self.score(queries, keys, scale)
            keys = found
        return self.score(self.features(pack(inputs, asked).to(self.device)), keys, scale)

    def rank(
        self,
        inputs: Sequence[Sequence[Span]],
        candidates: Sequence[Sequence[Span]] | Encoded,
        scale: str = "default",
        task: str | None = None,
    ) -> Tensor:
        """Probabilities of the candidates: Float[M K], rows sum to one. task: as `log_likelihood`."""
        return self.log_likelihood(inputs, candidates, scale, task).exp()
