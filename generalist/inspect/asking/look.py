"""Records as one pass of the frozen model, with the candidates they are asked among, for whoever disturbs the input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.data.batch.pieces import Piece
from generalist.data.batch.types import Packed, Role, Span
from generalist.data.stream.source import Record, Records
from generalist.model.model import PackedModel
from generalist.model.objective import Objective
from generalist.tasks.base.task import Task
from generalist.tokenizers_mod.base.base import Modality

SIZE = 32  # records a pass


@dataclass
class Look:
    """Records packed as they are asked, without their answers where the task can do so.

    numbers: which records; x: Float[N D], their tokens as they enter the encoder; members: Float[K D], the candidates;
    open: Bool[N], the tokens of the task's inputs, which may be disturbed; the question's own may not. sequences: the
    spans of every record.
    """

    task: Task
    model: PackedModel
    numbers: list[int]
    packed: Packed
    members: Tensor
    x: Float[Tensor, "N D"]
    open: Bool[Tensor, " N"]
    sequences: list[list[Span]]

    @property
    def count(self) -> int:
        return len(self.numbers)

    def rows(self, name: str) -> int:
        """Tokens that a modality's tokenizer makes, those that are masked among them."""
        return sum(span.length for spans in self.sequences for span in spans if span.modality == name)

    def spans(self) -> list[tuple[Piece, Modality]]:
        """The inputs' spans with tokens, and of which modality each is."""
        layout = self.packed.layout.pieces
        assert layout is not None
        kinds = self.task.modalities
        return [
            (piece, kinds[kind])
            for piece, kind in zip(layout, self.packed.kinds, strict=True)
            if kind in self.task.inputs and piece.length
        ]

    def queries(self, x: Tensor | None = None) -> Tensor:
        """f at the asked tokens: Float[M *a D]. x: Float[N D], other tokens in the place of the record's own."""
        return self.model.features(self.packed, tokens=self.x if x is None else x)

    def log_p(self, x: Tensor | None = None) -> Tensor:
        """log p of every candidate at every question: Float[M *a K]."""
        return self.model.score(self.queries(x), self.members, self.task.scale)

    def chosen(self, log_p: Tensor) -> Tensor:
        """What is answered: Int[M *a]."""
        return log_p.argmax(-1)

    def of(self, log_p: Tensor, answers: Int[Tensor, "M ..."]) -> Float[Tensor, " B"]:
        """log p of these answers, of each record the mean over its questions."""
        own = log_p.gather(-1, answers.unsqueeze(-1)).squeeze(-1)
        return self.mean(own if own.ndim == 1 else own.flatten(1).mean(1))

    def mean(self, of_asked: Float[Tensor, "M ..."]) -> Float[Tensor, "B ..."]:
        """Of each record the mean over its asked tokens."""
        owner = self.packed.asked_owner
        total = of_asked.new_zeros(self.count, *of_asked.shape[1:]).index_add(0, owner, of_asked)
        count = torch.bincount(owner, minlength=self.count).clamp(min=1).to(total.dtype)
        return total / count.view(-1, *[1] * (total.ndim - 1))

    def directions(self, answers: Int[Tensor, "M ..."]) -> Float[Tensor, "B D"]:
        """Unit vectors of what is answered, of several questions the mean direction."""
        found = normalize(self.members.float(), dim=-1)[answers]
        return normalize(self.mean(found if found.ndim == 2 else found.flatten(1, -2).mean(1)), dim=-1)

    def by_record(self, of_tokens: Float[Tensor, " N"]) -> list[Tensor]:
        """The values of each record's open tokens."""
        return [of_tokens[(self.packed.owner == b) & self.open] for b in range(self.count)]


def looks(task: Task, records: Records, objective: Objective, size: int = SIZE) -> Iterator[Look]:
    """The records in order, `size` a pass, the model frozen and in evaluation. UserError names what cannot be asked."""
    if task.writes or task.finds:
        what = "writes its answer word by word" if task.writes else "finds where things are"
        raise UserError(
            f"task {task.name} {what}; disturbed inputs are looked at of tasks that choose among candidates"
        )
    model: Any = objective.model
    members = None if task.candidates is None else objective.members(task.name).detach()
    role = Role(other=task.kinds_of(task.answers_in()), task=task.name)
    for start in range(0, len(records), size):
        numbers = list(range(start, min(start + size, len(records))))
        if members is None:
            examples = [task.example(records[i]) for i in numbers]
            sequences, batch = [one.inputs for one in examples], task.collate(examples).to(model.device)
            assert batch.partners is not None
            packed, own = batch.inputs, model.features(batch.partners, candidate=True).detach()
        else:
            sequences, own = [asking(task, records, i) for i in numbers], members
            packed = pack(sequences, role).to(model.device)
        with torch.no_grad():
            x = model.embedded(packed).x
        closed = torch.zeros(packed.tokens, dtype=torch.bool, device=x.device)
        look = Look(task, model, numbers, packed, own, x, closed, sequences)
        for piece, _ in look.spans():
            look.open[piece.start : piece.start + piece.length] = True
        yield look


def asking(task: Task, records: Records, number: int) -> list[Span]:
    """A record's question; of a task that asks while it writes, at the summary. UserError names the record."""
    record: Record = records[number]
    try:
        spans = task.asked(record)
    except UserError as error:
        raise UserError(f"task {task.name}, record {record.get('id', number)}: {error}") from error
    return spans if any(span.asked is not None for span in spans) else [task.question(), *spans]


@contextmanager
def frozen(model: PackedModel) -> Iterator[None]:
    """The model in evaluation, its weights without gradient; afterwards as it was."""
    training, wanted = model.training, [p.requires_grad for p in model.parameters()]
    model.eval()
    model.requires_grad_(False)
    try:
        yield
    finally:
        for p, flag in zip(model.parameters(), wanted, strict=True):
            p.requires_grad_(flag)
        model.train(training)


def with_data(look: Look, data: dict[str, dict[str, Tensor]]) -> Tensor:
    """The tokens Float[N D] of other contents at the same places."""
    return look.model.embedded(replace(look.packed, data=data)).x
