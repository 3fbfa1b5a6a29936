"""Records in the place of data that are not there yet, as many as a plan needs, out of the examples of modalities."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from generalist.data.base.errors import UserError
from generalist.data.stream.source import Record, Records
from generalist.tasks.base.examples import TaskExamples
from generalist.tasks.base.task import Task
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.examples import File

COUNT = 64  # records; a batch takes them as often as it needs
LONG = "some words that are here to be counted "  # a text is said so often that the model's longest is reached


@dataclass
class StandIn:
    """A source of these records, the same in every split."""

    rows: list[Record]
    info: dict[str, Any] = field(default_factory=dict)

    def open(self, split: str) -> Records:
        return Records(self.rows, dict(self.info))


def stand_in(tasks: Iterable[Task], modalities: dict[str, Modality]) -> dict[str, str]:
    """Give every task whose training data cannot be opened records that stand in for them; {task: what was missing}.

    Texts are as long as the model takes, all else is of the size of the modality's own example, and classes are those
    of the task, else of the kind's example.
    """
    missing = {}
    for task in tasks:
        if task.source is None:
            continue
        try:
            task.source.open("train")
        except (UserError, OSError) as error:
            missing[task.name] = str(error)
            task.source = of(task, modalities)
    return missing


def of(task: Task, modalities: dict[str, Modality]) -> StandIn:
    """Records with every field that the task reads. UserError where its kind shows no example to take them from."""
    shown = TaskExamples(*type(task).examples())
    if not shown.good:
        raise UserError(f"task {task.name}: its data are not there, and its kind shows no example to plan with")
    kind = type(task)(name=task.name, source=StandIn([]), **shown.settings)
    names = vars(task)[task.names_in] if task.names_in else None
    rows = []
    for i in range(COUNT):
        example = shown.good[i % len(shown.good)]
        row: Record = {"id": f"stand-in {i}"}
        for modality, name in {**task.inputs, **task.other_side()}.items():
            row[name] = raw(modalities[modality])
        for setting in task.reads:
            if (name := vars(task)[setting]) and name not in row:
                row[name] = names[i % len(names)] if names else example.get(vars(kind)[setting])
        rows.append(row)
    own = {task.names_in: vars(kind)[task.names_in]} if task.names_in and not names else {}
    return StandIn(rows, {**shown.info, **own})


def raw(modality: Modality) -> Any:
    """A raw value to count with. UserError where the modality shows none."""
    if modality.reads_words:
        return LONG * 200
    for value in modality.examples().good:
        if not isinstance(value, File):
            return value
    raise UserError(f"{modality.name}: its data are not there, and it shows no example to plan with")
