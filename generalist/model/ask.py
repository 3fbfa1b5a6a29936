"""Records put to a trained model as one of its tasks, and what it says of each: the one way from a record to an answer.

    answers = ask(model, task, records)          # an `Answer` a record, in their order

Questions are packed together, the candidates encoded once. What goes in, where it is asked and how the likelihood is
read is the task's own (`Task.asked`, `Task.read`); a task that writes writes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from generalist.data.base.errors import UserError, nearest
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.data.stream.source import Record, Records
from generalist.model.decode import decode, vocabulary_features
from generalist.model.model import PackedModel
from generalist.model.sides import modalities_of
from generalist.tasks.base.task import Task
from generalist.tasks.candidates.answers import Answer

BATCH = 64  # records packed together
ANSWERED_IN = ("fp32", "bf16")

Rows = Sequence[Record] | Records
Read = tuple[Tensor, dict[str, Tensor]]  # log p of a record's asked tokens Float[m ... K], and their tokenizer's rows


def in_precision(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Inside, a model answers in this precision (autocast; its weights stay). UserError for one that it has not."""
    if precision not in ANSWERED_IN:
        raise UserError(f"precision {precision!r}; {nearest(precision, ANSWERED_IN)}")
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def known(model: PackedModel, task: Task) -> str | None:
    """The task's name where the model was told of it in training."""
    return task.name if task.name in model.sides.trained or task.name in (model.config.tasks or []) else None


@torch.no_grad()
def candidates_of(model: PackedModel, task: Task, inputs: Collection[str]) -> Tensor:
    """f of every candidate of the task, Float[K D]. UserError where there are fewer than two."""
    chosen = task.candidates

    def made() -> Tensor:
        sequences = [] if chosen is None else chosen.sequences(task.modalities)
        if len(sequences) < 2:
            raise UserError(f"{len(sequences)} candidate given: a likelihood needs at least two to choose among")
        _, role = model.sides.roles(inputs, modalities_of(sequences), known(model, task))
        return model.encode_answers(sequences, role)

    if chosen is None:
        return made()
    # by content: whoever asks among the same names again makes another set of them
    what = json.dumps(chosen.to_dict(), sort_keys=True), id(task.modalities)
    _, role = model.sides.roles(inputs, chosen.members, known(model, task))
    found = model.repeated(what, task.modalities, role, made)
    return made() if found is None else found


@torch.no_grad()
def likelihoods(
    model: PackedModel, task: Task, records: Rows, batch: int = BATCH, lost: dict[int, str] | None = None
) -> Iterator[Read]:
    """Every record's likelihood over the task's candidates, in their order. UserError names the record that is broken.

    lost: takes the numbers of records that are broken and why; they are then left out. The candidates of a model whose
    experts look at the inputs' kinds are encoded once for each combination of them.
    """
    members: dict[frozenset[str], Tensor] = {}
    for start in range(0, len(records), batch):
        groups: dict[frozenset[str], list[int]] = {}
        questions = []
        for i in range(start, min(start + batch, len(records))):
            try:
                questions.append(question_of(task, records, i) if lost is None else task.asked(records[i]))
            except UserError as error:
                if lost is None:
                    raise
                lost[i] = str(error)
        for i, question in enumerate(questions):
            told = modalities_of([question]) if model.router is not None else task.inputs
            groups.setdefault(frozenset(told), []).append(i)
        found: dict[int, Read] = {}
        for inputs, numbers in groups.items():
            if inputs not in members:
                members[inputs] = candidates_of(model, task, inputs)
            read = _group(model, task, [questions[i] for i in numbers], inputs, members[inputs])
            found |= dict(zip(numbers, read, strict=True))
        yield from (found[i] for i in range(len(questions)))


def question_of(task: Task, records: Rows, number: int) -> list[Span]:
    """The question of one record. UserError with its name where it is one of several."""
    name: Any = number
    try:
        record = records[number]
        name = record.get("id", number)
        return task.asked(record)
    except UserError as error:
        if len(records) == 1:
            raise
        raise UserError(f"record {name}: {error}") from error


def _group(
    model: PackedModel, task: Task, questions: list[list[Span]], inputs: frozenset[str], members: Tensor
) -> Iterator[Read]:
    assert task.candidates is not None
    role, _ = model.sides.roles(inputs, task.candidates.members, known(model, task))
    packed = pack(questions, role).to(model.device)
    found = model.embedded(packed)
    queries = model.features(packed, tokens=found.x)
    log_p = model.score(queries, members, task.scale).cpu()
    rows = {name: value.cpu() for name, value in found.rows.items()}
    counts = torch.bincount(packed.asked_owner, minlength=len(questions)).tolist()
    parts = {name: value.split(counts) for name, value in rows.items()}
    for i, own in enumerate(log_p.split(counts)):
        yield own, {name: part[i] for name, part in parts.items()}


@torch.no_grad()
def written(
    model: PackedModel, task: Task, records: Rows, batch: int = 32, **options: Any
) -> Iterator[list[tuple[str, float]]]:
    """What is written of every record, best first, with scores. options: those of `decode`."""
    text: Any = task.modalities["text"]
    name = known(model, task)
    options.setdefault("steps", min(21, text.max_length))
    members: Tensor | None = None
    for start in range(0, len(records), batch):
        questions = [question_of(task, records, i) for i in range(start, min(start + batch, len(records)))]
        if members is None:
            summary, inputs = task.modalities["summary"], modalities_of(questions)
            members = vocabulary_features(model, text, summary, inputs, name)
        found = decode(model, questions, text, members, task.scale, task=name, **options)
        for row, scores in enumerate(found.score.tolist()):
            yield [(text.decode(found.words(row, rank)), score) for rank, score in enumerate(scores)]


def ask(model: PackedModel, task: Task, records: Rows, batch: int = BATCH) -> list[Answer]:
    """What the model says of every record. task: bound to the model's modalities (`GeneralistProcessor.tasks`)."""
    if task.writes:
        best = (texts[0] for texts in written(model, task, records, batch))
        return [Answer(text=text, log_p=score) for text, score in best]
    found = enumerate(likelihoods(model, task, records, batch))
    return [task.read(records[i], log_p, rows) for i, (log_p, rows) in found]
