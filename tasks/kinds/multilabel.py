"""Classification in which several names may be right: [summary·, x] among every name and its denial, shared.

Each name is a question of two answers, "red" or "not red": p(red) = p("red" | x) / (p("red" | x) + p("not red" | x))
under the one likelihood over all of them. The label is spread evenly over the right answer of each pair, so the loss is
the mean of the names' own cross-entropies and of nothing that could disturb them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from generalist.data.base.errors import UserError, nearest
from generalist.data.base.labels import is_empty, name_of, ordered
from generalist.data.batch.types import Example, Span
from generalist.data.stream.source import Record, Records
from generalist.tasks.base.examples import TaskExamples
from generalist.tasks.base.learn import learn_tables
from generalist.tasks.base.task import Task
from generalist.tasks.candidates.answers import Answer
from generalist.tasks.candidates.names import CandidateSet, Names
from generalist.tasks.measures import lines
from generalist.tasks.measures.metrics import Mean, mean_of
from generalist.tokenizers_mod.base.base import Modality

SAID = 0.5  # probability from which a name is an answer


@dataclass
class Marks(CandidateSet):
    """names, then their denials, as text: member K + k denies name k. denial: how a name is denied."""

    names: list[str]
    denial: str = "not {}"
    kind: ClassVar[str] = "marks"
    several: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.names:
            raise UserError("no name to choose; a task with several labels needs at least one")
        if "{}" not in self.denial or self.denial.strip() == "{}":
            raise UserError(f"denial={self.denial!r} does not deny; write {{}} for the name, as in 'not {{}}'")
        self.texts = Names([*self.names, *(self.denial.format(name) for name in self.names)])

    def sequences(self, modalities: dict[str, Modality]) -> list[list[Span]]:
        return self.texts.sequences(modalities)

    def labels(self, modalities: dict[str, Modality]) -> list[str]:
        return list(self.texts.names)

    def target(self, labels: Shaped[Tensor, "M ..."]) -> Shaped[Tensor, "M ..."]:
        """Float[M K] of 0 and 1 -> Float[M 2K], one K-th on the right answer of each pair."""
        return torch.cat([labels, 1 - labels], dim=-1) / labels.shape[-1]

    def against(self, logits: Tensor) -> Tensor:
        """Logits or log p, Float[... 2K] -> the log-odds of each name, Float[... K]."""
        own, denied = logits.chunk(2, dim=-1)
        return own - denied

    def yes(self, log_p: Tensor) -> Tensor:
        """Float[... 2K] -> the probability of each name, Float[... K]."""
        return torch.sigmoid(self.against(log_p))

    def misfits(self, log_p: Tensor, labels: Tensor) -> Tensor | None:
        p = self.yes(log_p).clamp(1e-12, 1 - 1e-12)
        wrong = 1 / (len(labels) + 2)  # as for names
        soft = labels.to(p.dtype) * (1 - 2 * wrong) + wrong
        return torch.nn.functional.binary_cross_entropy(p, soft, reduction="none").mean(-1)

    def choices(self) -> list[str]:
        return list(self.names)

    def shares(self, log_p: Tensor) -> Tensor:
        return self.yes(log_p)

    def read_off(self, log_p: Tensor, modalities: dict[str, Modality]) -> Answer:
        p, order = self.yes(log_p).sort(descending=True)
        return Answer([self.names[i] for i in order.tolist()], p.tolist(), apart=True)


@dataclass(kw_only=True)
class MultiLabel(Task):
    """label: the record's field with the names that are right: a list, a text cut at `separator`, or {name: whether}.

    columns: fields of 0 and 1 instead, each of the name that it is called. classes: names; default those of the source
    or of the training records. none: an empty label means that no name is right (else the record is left out; an empty
    list always means that). denial: how a name is denied.
    """

    kind: ClassVar[str] = "multilabel"
    asks_once: ClassVar[bool] = True
    names_in: ClassVar[str] = "classes"
    metric: ClassVar[str] = "mAP"
    line_kind: ClassVar[str] = "marks"
    reads: ClassVar[tuple[str, ...]] = ("label",)
    label: str = "label"
    columns: list[str] = field(default_factory=list)
    classes: list[str] | None = None
    separator: str = "|"
    none: bool = False
    denial: str = "not {}"

    @classmethod
    def examples(cls) -> TaskExamples:
        from generalist.tasks.kinds.examples import multilabel

        return multilabel()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.separator:
            raise UserError(f"task {self.name}: separator is empty; give what stands between names, such as '|'")

    def answer_fields(self) -> tuple[str, ...]:
        return () if self.columns or self.none else (self.label,)

    def learn(self, modalities: dict[str, Modality], records: Records) -> None:
        learn_tables(self, modalities, records)

    def texts(self, records: Records) -> Iterator[str]:
        yield from Marks(self.class_names(records), self.denial).texts.names

    def candidate_set(self, records: Records) -> CandidateSet:
        return Marks(self.class_names(records), self.denial)

    def class_names(self, records: Records) -> list[str]:
        """Those given, else the columns, else every name that the source or a training record holds."""
        if self.classes or self.columns:
            return [str(name) for name in self.classes or self.columns]
        behind = records.info.get("classes") or []
        if behind:
            return ordered({part for name in behind for part in self.cut(str(name))})
        values = records.column(self.label)
        if values is None:
            values = [records[i].get(self.label) for i in range(len(records))]
        found = {name for value in values if not is_empty(value) for name in self.cut(value)}
        if not found:
            raise UserError(f"task {self.name}: no record has a name in {self.label!r}; give classes=[...]")
        return ordered(found)

    def cut(self, value: Any) -> list[str]:
        """The names that a label holds."""
        if isinstance(value, str):
            return [part.strip() for part in value.split(self.separator) if part.strip()]
        if isinstance(value, dict):
            return [str(name) for name, said in value.items() if said]
        items = list(value) if isinstance(value, list | tuple | set | np.ndarray) else [value]
        return [name_of(item) for item in items if not is_empty(item)]

    def right(self, record: Record) -> list[str] | None:
        """The right names of a record; None where it is not known."""
        if self.columns:
            if lacking := [c for c in self.columns if c not in record]:
                raise UserError(f"no field {lacking[0]!r}; {nearest(lacking[0], record)}")
            cells = {c: record[c] for c in self.columns}
            if all(is_empty(cell) for cell in cells.values()):
                return None
            return [
                c for c, cell in cells.items() if not is_empty(cell) and name_of(cell).lower() in ("1", "true", "yes")
            ]
        value = record.get(self.label)
        if is_empty(value):
            return [] if self.none and self.label in record else None
        behind = self.info.get("classes") or ()
        if isinstance(value, int | np.integer) and not isinstance(value, bool) and 0 <= value < len(behind):
            value = behind[value]
        known = set(self.candidates.names) if isinstance(self.candidates, Marks) else set()
        out = []
        for name in self.cut(value):
            if name not in known and name.isdecimal() and int(name) < len(behind):
                name = str(behind[int(name)])  # a number that the source counts its classes by
            if known and name not in known:
                raise UserError(f"unknown class {name!r} in the data; {nearest(name, known)}")
            out.append(name)
        return out

    def marks(self, record: Record) -> list[float] | None:
        """0 or 1 for each name, in their order."""
        right = self.right(record)
        assert isinstance(self.candidates, Marks)
        return None if right is None else [float(name in right) for name in self.candidates.names]

    def example(self, record: Record, rng: torch.Generator | None = None) -> Example:
        marks = self.marks(record)
        if marks is None and rng is not None:
            raise UserError(
                f"the record has no {self.label!r}: it is empty (none=true would mean that no name is right)"
            )
        labels = None if marks is None else torch.tensor([marks])
        return Example([self.question(labels), *self.input_spans(record, rng)], record=str(record.get("id", "")))

    def joined(self, names: list[str]) -> str:
        return self.separator.join(names)

    def said(self, log_p: Tensor) -> Tensor:
        """The probability of each name: Float[... 2K] -> Float[... K]."""
        assert isinstance(self.candidates, Marks)
        return self.candidates.yes(log_p)

    def score(self, log_p: Float[Tensor, "M ... K"], labels: Shaped[Tensor, "M ..."]) -> dict[str, Mean]:
        return {"exact match": mean_of(((self.said(log_p) >= SAID) == (labels > 0)).all(-1))}

    def keep(self, kept: lines.Kept) -> lines.Columns:
        p = self.said(kept.log_p.double())
        names = torch.arange(p.shape[-1]).expand(p.shape)
        owner = kept.owner.unsqueeze(1).expand(p.shape)
        found = {"record": owner, "label": names, "truth": kept.labels.long(), "p": p}
        return {name: value.reshape(-1).numpy() for name, value in found.items()}

    def answer(self, log_p: Tensor, names: list[str], top: int = 3) -> list[tuple[str, float]]:
        assert isinstance(self.candidates, Marks)
        said = self.candidates.read_off(log_p, self.modalities)
        return list(zip(said.names, said.probabilities, strict=True))[:top]

    def correct(self, log_p: Tensor, label: Tensor) -> bool | None:
        return bool(((self.said(log_p) >= SAID) == (label > 0)).all())

    def truth(self, record: Record) -> str:
        return ", ".join(self.right(record) or ()) or "none"
