"""What a task is: what goes in, where the question is asked, among which candidates - and nothing else.

A task is a dataclass of JSON values, saved with a recipe and with the model. It learns from its training records what
it needs (`learn`) and makes an `Example` of a record (`example`); how an answer is read off the likelihood is
`generalist.tasks.base.reading`. It never touches the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from generalist.data.base.errors import UserError, nearest
from generalist.data.base.labels import is_empty
from generalist.data.batch.pack import collate
from generalist.data.batch.types import Batch, Example, Role, Span
from generalist.data.stream.source import Record, Records, Source
from generalist.tasks.base.examples import TaskExamples
from generalist.tasks.base.reading import Reading
from generalist.tasks.base.told import Told
from generalist.tasks.candidates.names import CandidateSet, Names
from generalist.tasks.measures.metrics import accuracy as accuracy
from generalist.tasks.measures.metrics import surprise as surprise
from generalist.tokenizers_mod.base.base import Modality


@dataclass(kw_only=True)
class Task(Reading):
    """Base of every task.

    source: where its records come from; inputs: {modality: field of the record}, in sequence order.
    batch: samples a step over all processes. share: sampling ratio, normalised over the recipe's tasks.
    weight: factor of the loss (the balanced optimiser is invariant to it); omega: length of the task's
    normalised gradient there. scale: name of its logit scale; smoothing: label smoothing.
    """

    name: str
    source: Source | None = None  # None: of a task that came with a saved model
    inputs: dict[str, str] = field(default_factory=dict)
    batch: int = 64
    share: float = 1.0
    weight: float = 1.0
    omega: float = 1.0
    scale: str = ""
    smoothing: float = 0.0

    finds: ClassVar[bool] = False  # the answer is where in the input something is
    foretells: ClassVar[bool] = False  # the answer is what comes next, a number a step
    asks_once: ClassVar[bool] = False  # one question a record, asked at the summary
    reads: ClassVar[tuple[str, ...]] = ()  # settings that name fields of the record, besides inputs
    names_in: ClassVar[str] = ""  # the setting that holds the candidates' names

    def __post_init__(self) -> None:
        self.scale = self.scale or self.kind
        self.modalities: dict[str, Modality] = {}
        self.info: dict[str, Any] = {}
        self.candidates: CandidateSet | None = None
        self.usual_answers: tuple[str, ...] = ()  # modalities, where no candidate set is at hand
        if self.batch < 1:
            raise UserError(f"task {self.name}: batch must be at least 1, got {self.batch}")
        if not 0 <= self.smoothing < 1:
            raise UserError(f"task {self.name}: smoothing is {self.smoothing}; it must lie in 0 <= smoothing < 1")
        for name in ("share", "weight", "omega"):
            if not 0 < vars(self)[name] < float("inf"):
                raise UserError(f"task {self.name}: {name} must be positive and finite, got {vars(self)[name]}")

    # --- its records ---

    def answer_fields(self) -> tuple[str, ...]:
        """Fields that hold a record's right answer: a record without is not of this task."""
        return ()

    def open(self, split: str) -> Records:
        """The records of a split that have an answer. UserError: no such split, or none has an answer."""
        if self.source is None:
            raise UserError(f"task {self.name} has no source; give it one to read records from")
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

    def among(self, names: list[str]) -> Task:
        """The task asked among other names, at the summary: as clients ask who give candidates of their own."""
        return self.with_inputs(self.inputs).asking(Names(names))

    def with_inputs(self, inputs: dict[str, str]) -> Task:
        """A task of the same name, scale and candidates that is told other inputs and asks at the summary."""
        asked = Task(name=self.name, inputs=inputs, scale=self.scale)
        asked.bind(self.modalities, self.candidates, self.info)
        return asked

    def asking(self, candidates: CandidateSet) -> Self:
        """A copy that asks among these candidates."""
        asked = copy(self)
        asked.adopt(candidates)
        return asked

    def asking_in(self, candidates: CandidateSet, template: str) -> Self:
        """The same, the candidates' names in a template."""
        return self.asking(candidates.in_template(template))

    def of(self, record: Record) -> Self:
        """A copy for records of other data: a field that they lack is looked for under its usual name."""
        task, usual = copy(self), {f.name: f.default for f in fields(self)}
        task.inputs = {modality: name if name in record else modality for modality, name in self.inputs.items()}
        for setting in self.reads:
            if vars(self)[setting] not in record:
                setattr(task, setting, usual[setting])
        return task

    def take_classes(self, names: list[str]) -> None:
        """Take other names for its candidates. UserError where they are none."""
        if not self.names_in:
            raise UserError(f"a task of the kind {self.kind!r} chooses among no names; leave --classes out")
        setattr(self, self.names_in, [str(name) for name in names])

    def take_partners(self, partners: dict[str, str]) -> None:
        """Take {modality: field} for the other side. UserError where there is none."""
        raise UserError(f"a task of the kind {self.kind!r} takes no partners")

    def joined(self, names: list[str]) -> str:
        """Several names as one text."""
        return "|".join(names)

    def other_side(self) -> dict[str, str]:
        """{modality: field} of what inputs are compared with, where that is the record's own too."""
        return {}

    def given(self) -> dict[str, str]:
        """{modality: the record's field} of what a client gives to be answered."""
        return dict(self.inputs)

    def adopt(self, candidates: CandidateSet | None) -> None:
        """Take a candidate set for this task's own; it learns what kinds of input it answers."""
        self.candidates = candidates
        if candidates is not None:
            candidates.asked_by(self.kinds_of(self.inputs))

    def kinds_of(self, modalities: Iterable[str]) -> tuple[str, ...]:
        """The kinds ("vision", "text" ...) of these modalities."""
        return tuple(sorted({self.modalities[m].kind for m in modalities if m in self.modalities}))

    def answers_in(self) -> Iterable[str]:
        """Modalities of the answers."""
        return self.usual_answers if self.candidates is None else self.candidates.members

    def used(self) -> set[str]:
        """The modalities whose tokenizers a step of this task trains."""
        return {"summary", *self.inputs, *self.answers_in()}

    def about(self) -> dict[str, Any]:
        """The task as JSON values with the path of its class, saved with the model; its source stays behind.

        A dict is a list of pairs, for its order tells what comes first and a folder's files sort their keys.
        """
        kept = {f.name: vars(self)[f.name] for f in fields(self) if f.init and f.name != "source"}
        told = {name: [list(pair) for pair in v.items()] if isinstance(v, dict) else v for name, v in kept.items()}
        return {"class": f"{type(self).__module__}:{type(self).__qualname__}", **told}

    def check(self, records: Records, split: str) -> None:
        """UserError for what records say of themselves and no step could take, found before the first one."""

    def sides(self) -> dict[str, Any]:
        """What each side of its question is told of the other (`Told`); JSON, saved with the model."""
        other = self.kinds_of(self.inputs) if self.candidates is None else self.candidates.role().told
        answers = list(self.answers_in())
        return Told(
            inputs=list(self.inputs),
            answers=answers,
            scale=self.scale,
            input=list(self.kinds_of(answers)),
            candidate=list(other),
            given="pairs" if self.candidates is None else "names" if self.candidates.offered() else "",
            writes=self.writes,
        ).to_dict()

    # --- a sample ---

    def example(self, record: Record, rng: torch.Generator | None = None) -> Example:
        """A record -> input spans with the question, and the partner's spans where the task has partners."""
        raise NotImplementedError(f"{type(self).__name__} must define example")

    @classmethod
    def examples(cls) -> TaskExamples:
        """Settings, records that it takes and records that it refuses: what `generalist check task` tries."""
        return TaskExamples()

    def asked(self, record: Record) -> list[Span]:
        """The record's question without its answer, as it is put to a trained model: asked at the summary."""
        return [self.question(), *self.input_spans(record)]

    def question(self, labels: Tensor | None = None) -> Span:
        """The summary token, asked: label [1] (or [1, ...]) or None at inference."""
        return self.modalities["summary"].span(None).ask([0], labels)

    def value(self, record: Record, name: str) -> Any:
        """A field of a record. UserError where it has no such field."""
        if name not in record:
            raise UserError(f"no field {name!r}; {nearest(name, record)}")
        return record[name]

    def input_spans(self, record: Record, rng: torch.Generator | None = None) -> list[Span]:
        """The record's input fields as spans, in the order of `inputs`; a field that is None is a missing modality."""
        if not self.inputs:  # every sample would be the same question about nothing
            raise UserError(f"task {self.name}: inputs is empty; say what goes in, as {{modality: field}}")
        spans = []
        for modality, name in self.inputs.items():
            if self.value(record, name) is None:
                continue
            tokenizer = self.modalities[modality]
            try:
                spans.append(tokenizer.span(tokenizer.read(record[name]), rng))
            except UserError as error:
                raise UserError(f"field {name!r}: {error}") from error
        return spans

    def collate(self, examples: list[Example]) -> Batch:
        batch = collate(self.name, examples, self.name if self.candidates is not None else None)
        batch.scale, batch.smoothing = self.scale, self.smoothing
        if batch.partners is not None:
            batch.count = batch.inputs.sequences
        elif self.candidates is not None and batch.inputs.labels is not None:
            batch.count = self.candidates.answers(batch.inputs.labels)
        batch.inputs.role = Role(other=self.kinds_of(self.answers_in()), task=self.name)
        if batch.partners is not None:
            batch.partners.role = Role(target=True, other=self.kinds_of(self.inputs), task=self.name)
        return batch
