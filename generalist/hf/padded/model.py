"""`forward` for padded tensors: the same numbers as the packed path, in the shapes other tools expect.

    one modality     [summary, x]  ->  last_hidden_state [B, 1 + n, D], pooler_output [B, D] = f at the summary
    text and another                ->  logits_per_..., the law between them

Which tensors are whose is said by the modalities themselves (`Modality.tensor_names`).
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any, ClassVar
from warnings import warn

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import can_return_tuple

from generalist.data.base.errors import UserError, nearest
from generalist.data.batch.at import At
from generalist.data.batch.cells import padded_places
from generalist.data.batch.pack import pack
from generalist.data.batch.routes import Role, Routes
from generalist.data.batch.types import Group, Layout, Packed
from generalist.hf.padded.outputs import DualOutput
from generalist.hf.padded.spans import States, padded_rows, spans_of
from generalist.hf.pretrained.model import SavedModel
from generalist.model.sides import INPUT, is_candidate
from generalist.nn.attention.padded import padded_at
from generalist.nn.taps import Kept
from generalist.tasks.candidates import likelihood
from generalist.tokenizers_mod.base.tokenizer import Embedded

CANDIDATES = "input_ids"  # the tensor whose owner's samples are the candidates when two modalities are given
ALONE = "1 candidate given: its probability is 1 whatever the input; give at least two to choose among"
LISTED = 2**20  # bytes of tensors up to which candidates are recognised when they come again


def bytes_of(t: Tensor) -> bytes:
    """Its numbers as they lie in memory."""
    return t.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


class PaddedModel(SavedModel):
    """A model that takes padded tensors besides packed sequences.

    chooses: whether two modalities are always a choice among candidates. If not, one candidate is let pass with a
    warning: the scaled cosine of one pair is a number that people ask for.
    """

    chooses: ClassVar[bool] = False

    def given_modalities(self, tensors: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """{modality: its tensors} of those that are given. UserError when one belongs to nobody or none is given."""
        found: dict[str, dict[str, Any]] = {}
        left = {k: v for k, v in tensors.items() if v is not None}
        for name, modality in self.modalities.items():
            if mine := modality.given(left):
                found[name] = mine
                left = {k: v for k, v in left.items() if k not in mine}
        if left:
            known = [k for m in self.modalities.values() for k in (m.tensor_names or (f"{m.name}_...",))]
            raise UserError(f"no modality of this model takes {sorted(left)[0]!r}; {nearest(sorted(left)[0], known)}")
        if not found:
            raise UserError(f"give the tensors of at least one modality; this model has {list(self.modalities)}")
        return found

    def embed_padded(self, name: str, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Padded tensors of B samples of a modality -> tokens [summary, x...] Float[B 1+n D], Bool[B 1+n] or None."""
        data, real = self.modalities[name].padded(tensors)
        batch = next(iter(tensors.values())).shape[0]
        tokens = Embedded.of(self.tokenizers[name](data)).x
        span = self.modalities["summary"].span(None)
        row = {key: value.to(tokens.device) for key, value in span.data.items()}
        summary = self.tokenizers[span.modality](row)
        tokens = tokens.view(batch, -1, tokens.shape[-1])
        tokens = torch.cat([summary.to(tokens.dtype).unsqueeze(0).expand(batch, 1, -1), tokens], dim=1)
        if real is not None:
            real = torch.cat([torch.ones_like(real[:, :1]), real], dim=1)
        return self.embedding_norm(tokens), real

    def encode_padded(
        self,
        name: str,
        tensors: dict[str, Tensor],
        candidate: bool = False,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        role: Role | None = None,
    ) -> BaseModelOutputWithPooling:
        """Features of one modality. Attention weights come from attn_implementation="eager" only.

        role: what a mixture of experts is told of this side; None: by the model's tasks that fit
        (`generalist.model.sides`).
        """
        config = self.config
        want_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        want_weights = config.output_attentions if output_attentions is None else output_attentions
        if self.encoder.mapped:
            if want_weights:
                raise UserError("no attention weights of padded tensors: this model mixes maps or changes its tokens")
            return self.encode_mapped(name, tensors, candidate, bool(want_states), role)
        x, real = self.embed_padded(name, tensors)
        at = self.padded_at(name, tensors, x, real, candidate, role)
        seen = Kept("embedded", "weights", *(f"layers.{i}" for i in range(len(self.encoder.layers))))
        with self.tapped(seen) if want_states or want_weights else nullcontext():
            hidden, _ = self.encoder(x.flatten(0, 1), self.conditioned(at, candidate))
        hidden = hidden.view(x.shape)
        weights = tuple(w for name, found in seen.items() if name.endswith("weights") for w in found)
        states = [s.view(x.shape) for name, found in seen.items() if not name.endswith("weights") for s in found]
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden,
            pooler_output=self.head(self.pool_padded(hidden, real)),
            hidden_states=(*states[:-1], hidden) if want_states else None,
            attentions=weights if want_weights else None,
        )

    def encode_mapped(
        self, name: str, tensors: dict[str, Tensor], candidate: bool, want_states: bool, role: Role | None
    ) -> BaseModelOutputWithPooling:
        """`encode_padded` by the packed path, which knows where tokens stand. Where a step changes the tokens, those
        that come out stand one behind the other in their rows."""
        summary = self.modalities["summary"].span(None).ask([0])
        spans, real = spans_of(self.modalities[name], name, tensors, placed=True)
        packed = pack([[summary, span] for span in spans], role or Role()).to(self.device)
        states = States(["embedded", *(f"layers.{i}" for i in range(len(self.encoder.layers)))])
        with self.tapped(states) if want_states else nullcontext():
            hidden, at = self.encoded(packed, candidate)
        real = torch.cat([torch.ones_like(real[:, :1]), real], dim=1).to(hidden.device)
        last = padded_rows(hidden, at.origin, packed, real)
        seen = [padded_rows(x, origin, packed, real) for x, origin in states.seen[:-1]]
        return BaseModelOutputWithPooling(
            last_hidden_state=last,
            pooler_output=self.read_out(hidden, packed, at.origin),
            hidden_states=(*seen, last) if want_states else None,
        )

    def padded_at(
        self,
        name: str,
        tensors: dict[str, Tensor],
        x: Tensor,
        real: Tensor | None,
        candidate: bool = False,
        role: Role | None = None,
    ) -> At:
        """Where the tokens [summary, x...] of a padded modality stand, Float[B 1+n D], Bool[B 1+n] or None."""
        summary, modality = self.modalities["summary"].span(None), self.modalities[name]
        at = padded_at(x, real, summary.hidden is not None, modality.causal)
        if self.encoder.placed:
            place = modality.padded_place(tensors, None if real is None else real[:, 1:])
            if place is not None or modality.axes < 2:
                at.made["place"] = padded_places(place, x.shape[0], x.shape[1], x.device)
        routes = self.padded_routes(name, summary.modality, at.groups[0], candidate, role)
        return replace(at, routes=routes)

    def padded_routes(
        self, name: str, summary: str, group: Group, candidate: bool, role: Role | None = None
    ) -> Routes | None:
        """The routes of padded sequences [summary, tokens of one modality...]; see `routes`."""
        if self.router is None:
            return None
        device = self.device
        # two tokens, one of each modality, stand for all: in a padded batch nothing is causal
        zero = torch.zeros(2, dtype=torch.long, device=device)
        names = list(dict.fromkeys([summary, name]))
        pair = Packed(
            data={n: {} for n in names},
            source=torch.tensor([names.index(summary), names.index(name)], device=device),
            row=zero,
            layout=Layout([Group(0, 1, 2, True)], zero, zero.bool()),
            owner=zero,
            first=zero[:1],
            asked=zero[:1],
            asked_owner=zero[:1],
            kinds=[name],
            role=role or Role(),
        )
        if (found := self.routes(pair, candidate)) is None:
            return None
        of_token = torch.ones(group.count, group.length, dtype=torch.long, device=device)
        of_token[:, 0] = 0
        return Routes(found.index[of_token.flatten()], found.table)

    def pool_padded(self, hidden: Tensor, real: Tensor | None) -> Tensor:
        """What is read at the summary of every row: Float[B n D], Bool[B n] or None -> Float[B D]."""
        b, n = hidden.shape[:2]
        if self.config.pooling == "asked":
            return hidden[:, 0]
        owner = torch.arange(b, device=hidden.device).repeat_interleave(n)
        first = torch.arange(b, device=hidden.device) * n
        tokens = hidden.flatten(0, 1)
        if real is not None:
            kept = real.flatten().nonzero().squeeze(1)
            tokens, owner, first = tokens[kept], owner[kept], torch.searchsorted(kept, first)
        return self.pooling(tokens, owner, first, b)

    @can_return_tuple
    def padded_forward(
        self,
        tensors: dict[str, Any],
        return_loss: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        scale: str | None = None,
        task: str | None = None,
        side: str = INPUT,
    ) -> BaseModelOutputWithPooling | DualOutput:
        """Tensors by name -> features of one modality, or the law between two.

        return_loss: two modalities, row i of one is the answer of row i of the other: the symmetric loss.
        scale: the logit scale's name, task: as which task it is asked (`generalist.model.sides`); by default those of
        the tasks that compare two such modalities, else config.zero_shot_scale. side: of one modality, "input" or
        "candidate".
        """
        found = self.given_modalities(tensors)
        if len(found) == 1:
            ((name, mine),) = found.items()
            return self.one_side(name, mine, side, task, output_hidden_states, output_attentions)
        if len(found) > 2:
            raise UserError(f"{len(found)} modalities given ({', '.join(found)}); give one, or two to compare")
        first, second = sorted(found, key=lambda n: CANDIDATES in found[n])  # stable: the order of the model's table
        asked, answer = self.sides.roles({first}, {second}, task)
        queries = self.encode_padded(first, found[first], role=asked).pooler_output
        answers = self.padded_answers(second, found[second], answer)
        # not while traced: the number of candidates would become a constant of the graph
        if not return_loss and not torch.compiler.is_compiling() and len(answers) == 1:
            if self.chooses:
                raise UserError(ALONE)
            warn(f"{ALONE} (the logit, their scaled cosine, holds for one pair as well)", stacklevel=2)
        scale = scale or self.sides.scale({first}, {second})
        logits = self.tempered(self.scaled(queries, answers, scale), scale)
        loss = None
        if return_loss:
            if logits.shape[0] != logits.shape[1]:
                raise UserError(f"a loss needs as many inputs as answers, got {tuple(logits.shape)}")
            target = torch.arange(logits.shape[0], device=logits.device)
            total, count = likelihood.symmetric(logits.log_softmax(-1), logits.T.log_softmax(-1), target)
            loss = (total / count).squeeze(0)
        own = {f"logits_per_{first}": logits, f"{first}_embeds": normalize(queries.float(), dim=-1)}
        fields = DualOutput.__dataclass_fields__
        return DualOutput(
            loss=loss,
            logits=logits,
            logits_per_text=logits.T,
            embeds=normalize(queries.float(), dim=-1),
            text_embeds=normalize(answers.float(), dim=-1),
            **{k: v for k, v in own.items() if k in fields},
        )

    def padded_answers(self, name: str, tensors: dict[str, Tensor], role: Role) -> Tensor:
        """f of the second modality of two; a list of names that a pipeline asks among again is not encoded again."""

        def made() -> Tensor:
            return self.encode_padded(name, tensors, candidate=True, role=role).pooler_output

        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # numbers would become constants of a graph
        if traced or sum(t.nbytes for t in tensors.values()) > LISTED:
            return made()
        numbers = [(key, t.dtype, tuple(t.shape), bytes_of(t)) for key, t in tensors.items()]
        found = self.repeated((name, *numbers), None, role, made)
        return made() if found is None else found

    def one_side(
        self,
        name: str,
        tensors: dict[str, Tensor],
        side: str,
        task: str | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        """`encode_padded` of inputs or of candidates, without the other side at hand."""
        role = self.sides.role(side, {name}, None, task)
        return self.encode_padded(name, tensors, is_candidate(side), output_hidden_states, output_attentions, role)
