"""What a model was trained on, for analyses that compare test samples with it."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from pathlib import Path

from generalist.data.base.errors import UserError
from generalist.data.stream.source import Record, Records
from generalist.evaluate.trained_on import recipe_of
from generalist.tasks.base.task import Task


@dataclass
class Samples:
    """Training samples with the task that reads them; answered: whether they have their right answers with them."""

    task: Task
    records: Records
    where: str
    answered: bool

    def truth(self, record: Record) -> str:
        """The right answer in words, "" where it is not known."""
        known = self.answered and all(record.get(name) is not None for name in self.task.answer_fields())
        return self.task.truth(record) if known else ""


@dataclass
class Training:
    """model: the folder; given: whether the training data were named by hand.

    compared: opens the records with the fields of the evaluated ones, the fields to compare, and where they are from.
    """

    model: Path
    given: bool
    compared: Callable[[], tuple[Records, set[str], str]]

    def samples(self, task: Task) -> Samples:
        """Those of the run's own task of this name; else whatever of the training has the task's modalities."""
        own = None if self.given else self._own(task)
        if own is not None:
            return own
        records, fields, where = self.compared()
        if not fields:
            raise UserError(f"task {task.name}: no field to compare; say what goes in with --input")
        theirs = copy(task)
        theirs.bind(task.modalities, task.candidates, records.info)
        return Samples(theirs, records, where, self.given or recipe_of(self.model) is None)

    def _own(self, task: Task) -> Samples | None:
        from generalist.recipe.load import load_recipe

        place = recipe_of(self.model)
        for own in load_recipe(str(place)).tasks if place is not None else ():
            if own.name == task.name and type(own) is type(task):
                records = own.open("train")
                own.bind(task.modalities, task.candidates, records.info)
                return Samples(own, records, "what the run was trained on (recipe.json)", True)
        return None
