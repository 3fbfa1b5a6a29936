"""What a task is: what goes in, where the question is asked, among which candidates - and nothing else.

A task is a dataclass of JSON values (so that a recipe can be saved). It learns from its training
records what it needs (`learn`), makes an `Example` of a record (`example`), and reads an answer off the
likelihood (`score`, `answer`). It never touches the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from generalist.data.base.errors import UserError, nearest
from generalist.data.base.labels import is_empty
from generalist.data.batch.pack import collate
from generalist.data.batch.types import Batch, Example, Role, Span
from generalist.data.stream.source import Record, Records, Source
from generalist.tasks import lines
from generalist.tasks.candidates import CandidateSet, Names
from generalist.tasks.examples import TaskExamples
from generalist.tasks.guesses import Guessed
from generalist.tasks.metrics import Mean, mean_of
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.capabilities import Learns


@dataclass(kw_only=True)
class Task:
    """Base of every task.

    source: where its records come from; inputs: {modality: field of the record}, in sequence order.
    batch: samples a step over all processes. share: sampling ratio, normalised over the recipe's tasks.
    weight: factor of the loss (the balanced optimiser is invariant to it); omega: length of the task's
    normalised gradient there. scale: name of its logit scale; smoothing: label smoothing.
    """

    name: str
    source: Source
    inputs: dict[str, str] = field(default_factory=dict)
    batch: int = 64
    share: float = 1.0
    weight: float = 1.0
    omega: float = 1.0
    scale: str = ""
    smoothing: float = 0.0

    kind: ClassVar[str] = ""
    metric: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True
    symmetric: ClassVar[bool] = False
    line_kind: ClassVar[str] = "named"  # the kind of line that is kept of an answer (`generalist.tasks.lines`)
    also_called: ClassVar[dict[str, str]] = {}  # {a measure's own name here: that of the lines' measures}

    def __post_init__(self) -> None:
        self.scale = self.scale or self.kind
        self.modalities: dict[str, Modality] = {}
        self.info: dict[str, Any] = {}
        self.candidates: CandidateSet | None = None
        if self.batch < 1:
            raise UserError(f"task {self.name}: batch must be at least 1, got {self.batch}")
        if not 0 <= self.smoothing < 1:
            raise UserError(f"task {self.name}: smoothing is {self.smoothing}; it must lie in 0 <= smoothing < 1")
        for name in ("share", "weight", "omega"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UserError(f"task {self.name}: {name} must be positive and finite, got {getattr(self, name)}")

    # --- its records ---

    def answer_fields(self) -> tuple[str, ...]:
        """Fields that hold a record's right answer: a record without is not of this task."""
        return ()

    def open(self, split: str) -> Records:
        """The records of a split that have an answer. UserError: no such split, or none has an answer."""
        return self.answered(self.source.open(split), split)

    def answered(self, records: Records, split: str = "data") -> Records:
        """Those that have an answer; how many have none is noted in info["notes"].

        Where it would cost reading every record, all are kept: what has no answer is found when it is drawn.
        """
        for name in self.answer_fields():
            values = records.column(name)
            if values is None:
                continue
            kept = [i for i, value in enumerate(values) if not is_empty(value)]
            if values and not kept:
                raise UserError(f"task {self.name}: no record of {split} has a {name!r}; all {len(values)} are empty")
            if len(kept) < len(values):
                told = f"{len(values) - len(kept)} of {len(values)} {split} records have no {name!r} and are left out"
                records = records.only(kept)
                records.info = records.info | {"notes": [*records.info.get("notes", []), told]}
        return records

    def has_answer(self, record: Record, name: str, training: bool) -> bool:
        """Whether the record has its answer in this field; UserError where it has none and must have, in training."""
        if training and name not in record:
            raise UserError(f"no field {name!r}; {nearest(name, record)}")
        if training and record[name] is None:
            raise UserError(f"the record has no {name!r}: it is empty")
        return record.get(name) is not None

    # --- once, before training ---

    def learn(self, modalities: dict[str, Modality], records: Records) -> None:
        """Fill modality settings that come from training data (a table's schema, a vocabulary)."""

    def texts(self, records: Records) -> Iterator[str]:
        """Training texts that a text tokenizer may learn its sub-words from."""
        yield from ()

    def notes(self, records: Records) -> list[str]:
        """What a reader should know before the first step, a line each; called once the task is bound."""
        return []

    def wordings(self) -> Iterator[str]:
        """Texts that training puts around those, to learn sub-words from as well."""
        yield from ()

    def candidate_set(self, records: Records) -> CandidateSet | None:
        """The shared candidates, made from training data; None when the batch's partners are the candidates."""
        return None

    def bind(self, modalities: dict[str, Modality], candidates: CandidateSet | None, info: dict[str, Any]) -> None:
        """Give the task the finished modalities, its candidates and its source's info."""
        for modality in ("summary", *self.inputs):
            if modality not in modalities:
                hint = nearest(modality, modalities)
                raise UserError(f"task {self.name}: modality {modality!r} is not in the recipe; {hint}")
        self.modalities, self.info = modalities, info
        self.adopt(candidates)

    def adopt(self, candidates: CandidateSet | None) -> None:
        """Take a candidate set for this task's own; it learns what kinds of input it answers."""
        self.candidates = candidates
        if candidates is not None:
            candidates.asked_of = self.kinds_of(self.inputs)  # type: ignore[misc]  # on the instance, as with names

    def kinds_of(self, modalities: Iterable[str]) -> tuple[str, ...]:
        """The kinds ("vision", "text" ...) of these modalities."""
        return tuple(sorted({self.modalities[m].kind for m in modalities if m in self.modalities}))

    def answers_in(self) -> Iterable[str]:
        """Modalities of the answers."""
        return () if self.candidates is None else self.candidates.members

    def used(self) -> set[str]:
        """The modalities whose tokenizers a step of this task trains."""
        return {"summary", *self.inputs, *self.answers_in()}

    def about(self) -> dict[str, Any]:
        """What a prediction needs to know of the task besides its candidates; JSON, saved with the model."""
        answers = list(self.answers_in())
        return {"kind": self.kind, "scale": self.scale, "inputs": list(self.inputs), "answers": answers}

    def check(self, records: Records, split: str) -> None:
        """UserError for what records say of themselves and no step could take, found before the first one."""

    def sides(self) -> dict[str, Any]:
        """What each side of its question is told of the other; JSON, saved with the model (`generalist.model.sides`).

        inputs, answers: modalities. input, candidate: kinds that stand on the other side of such a one. given: how a
        client can give other candidates: "names", "pairs" of two directions, or "" not at all.
        """
        told = self.kinds_of(self.inputs) if self.candidates is None else self.candidates.role().told
        given = "pairs" if self.candidates is None else "names" if isinstance(self.candidates, Names) else ""
        about = self.about()
        return {
            **{name: about[name] for name in ("inputs", "answers", "scale")},
            "input": list(self.kinds_of(about["answers"])),
            "candidate": list(told),
            "given": given,
            "writes": bool(about.get("writes")),
        }

    # --- a sample ---

    def example(self, record: Record, rng: torch.Generator | None = None) -> Example:
        """A record -> input spans with the question, and the partner's spans where the task has partners."""
        raise NotImplementedError(f"{type(self).__name__} must define example")

    @classmethod
    def examples(cls) -> TaskExamples:
        """Settings, records that it takes and records that it refuses: what `generalist check task` tries."""
        return TaskExamples()

    def question(self, labels: Tensor | None = None) -> Span:
        """The summary token, asked: label [1] (or [1, ...]) or None at inference."""
        return self.modalities["summary"].span(None).ask([0], labels)

    def input_spans(self, record: Record, rng: torch.Generator | None = None) -> list[Span]:
        """The record's input fields as spans, in the order of `inputs`; a field that is None is a missing modality."""
        if not self.inputs:  # every sample would be the same question about nothing
            raise UserError(f"task {self.name}: inputs is empty; say what goes in, as {{modality: field}}")
        spans = []
        for modality, name in self.inputs.items():
            if name not in record:
                raise UserError(f"no field {name!r}; {nearest(name, record)}")
            if record[name] is None:
                continue
            tokenizer = self.modalities[modality]
            try:
                spans.append(tokenizer.span(tokenizer.read(record[name]), rng))
            except UserError as error:
                raise UserError(f"field {name!r}: {error}") from error
        return spans

    def collate(self, examples: list[Example]) -> Batch:
        batch = collate(self.name, examples, self.name if self.candidates is not None else None, self.symmetric)
        batch.scale, batch.smoothing = self.scale, self.smoothing
        if batch.partners is not None:
            batch.count = batch.inputs.sequences
        elif self.candidates is not None and batch.inputs.labels is not None:
            batch.count = self.candidates.answers(batch.inputs.labels)
        batch.inputs.role = Role(other=self.kinds_of(self.answers_in()), task=self.name)
        if batch.partners is not None:
            batch.partners.role = Role(target=True, other=self.kinds_of(self.inputs), task=self.name)
        return batch

    # --- evaluation ---

    def score(self, log_p: Tensor, labels: Tensor) -> dict[str, Mean]:
        """log_p Float[M ... K] and labels [M ...] -> metrics that merge over batches.

        Evaluation measures what is kept of the answers (`keep`); it takes from here what the lines do not say.
        """
        raise NotImplementedError(f"{type(self).__name__} must define score")

    def measure(
        self, records: Records, log_p: Callable[[Tensor], Tensor], owner: Tensor, rows: dict[str, Tensor]
    ) -> dict[str, float]:
        """Metrics of a whole split that follow neither from the kept lines nor as means over answers.

        log_p: Int[m] -> Float[m K] of those asked tokens; owner: Int[M], the record of each; rows: {name: [M ...]},
        what the asked tokens' tokenizer found besides tokens.
        """
        return {}

    def keep(self, kept: lines.Kept) -> lines.Columns:
        """What is saved of the answers of some records, from which every measure can be had again."""
        return {"record": kept.owner.numpy(), **lines.named(kept.log_p, kept.labels)}

    def answer(self, log_p: Tensor, names: list[str], top: int = 3) -> list[tuple[str, float]]:
        """The likeliest candidates of one sample in words, with their probabilities. log_p: Float[K], K names."""
        values, index = log_p.exp().topk(min(top, len(names)))
        return [(names[i], float(p)) for p, i in zip(values.tolist(), index.tolist(), strict=True)]

    def show(self, record: Record, log_p: Tensor, labels: Tensor, names: list[str]) -> dict[str, Any]:
        """A prediction for the report: the input as shown, the truth, the likeliest answers.

        log_p: Float[m ... K] and labels [m ...] of the record's own asked tokens; names: the K candidates.
        """
        modality, name = next(iter(self.inputs.items()))
        answers = self.answer(log_p[0], names)
        return {
            "input": self.modalities[modality].show(record[name]),
            "truth": self.truth(record),
            "answers": [[a, p] for a, p in answers],
            "correct": self.correct(log_p[0], labels[0]),
        }

    def correct(self, log_p: Tensor, label: Tensor) -> bool | None:
        """Whether the likeliest candidate is the label; None where answers are not right or wrong."""
        return bool(log_p.argmax(-1) == label) if log_p.ndim == 1 and not label.is_floating_point() else None

    def truth(self, record: Record) -> str:
        """The right answer in words, for reports."""
        return ""

    def baseline(self, train: Records, val: Records | None, test: Records) -> dict[str, Any]:
        """An ordinary method on the same splits: {"value", "chance", "baseline" (its name)}, see
        `generalist.tasks.baselines`.

        val: None where the data has none; what is chosen is then chosen on training data.
        """
        return {}

    def guesses(self, train: Records, val: Records, asked: list[Records], method: str = "") -> Guessed | None:
        """What a fitted ordinary method says of the validation records and of those asked, over this task's candidates.

        method: its name, "" = the best on validation data. None where there is none for the task.
        """
        return None


def learn_tables(
    task: Task, modalities: dict[str, Modality], records: Records, chosen: Iterable[str] | None = None
) -> None:
    """Let every (or the `chosen`) input modality that learns (a table's schema) learn from the training records."""
    for modality in task.inputs if chosen is None else chosen:
        name = task.inputs[modality]
        learner = modalities.get(modality)
        if not isinstance(learner, Learns):
            continue
        there = [i for i in range(len(records)) if records[i][name] is not None]
        records = records if len(there) == len(records) else records.only(there)
        rows = [records[i][name] for i in range(len(records))]
        try:
            learner.learn_rows(task.name, rows)
        except UserError:
            sound, note = learnable(modalities[modality], records, rows)
            if note:
                records.info["notes"] = [*records.info.get("notes", []), f"{modality} is learnt without {note}"]
            learner.learn_rows(task.name, sound)


def learnable(modality: Modality, records: Records, rows: list[Any]) -> tuple[list[Any], str]:
    """The rows that can be read, and how many cannot, with the first of them; "" where all or none can.

    They are not lost in silence: whoever draws one of them in training counts and lists it.
    """
    sound, broken = [], []
    for number, row in enumerate(rows):
        try:
            modality.learnable(row)
            sound.append(row)
        except UserError as error:
            broken.append(f"record {records[number].get('id', number)}: {error}")
    if not broken or not sound:
        return rows, ""
    return sound, f"{len(broken)} of {len(rows)} records that cannot be read, such as {broken[0]}"


def surprise(log_p: Tensor, labels: Tensor) -> Mean:
    """Mean -log p of the labels in nats; Float[M K], int[M], all asked."""
    return mean_of(-log_p.gather(-1, labels.unsqueeze(-1)))


def accuracy(log_p: Tensor, labels: Tensor) -> Mean:
    """Share of answers whose likeliest candidate is the label; Float[M K], int[M] (-1 = not asked)."""
    asked = labels >= 0
    right = (log_p.argmax(-1) == labels) & asked
    return Mean(float(right.sum()), float(asked.sum()))
