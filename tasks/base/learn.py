"""What modalities learn from a task's training records, a table's schema above all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from generalist.data.base.errors import UserError
from generalist.data.stream.source import Records
from generalist.tasks.base.task import Task
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.capabilities import Learns


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
