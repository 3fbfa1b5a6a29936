"""What can be known before the first step, so that no run ends after training: splits, fields, labels, candidates,
what every record says of itself, and whether an ordinary baseline can be had.

What would leave a task without results is a UserError in one line; what only makes its line poorer is a note.
"""

from __future__ import annotations

from generalist.data.base.errors import UserError
from generalist.data.stream.source import Records
from generalist.evaluate.answer import examples_of
from generalist.evaluate.heldout import reason, validation
from generalist.recipe.recipe import Recipe
from generalist.tasks.base.task import Task
from generalist.tasks.baselines.budget import rehearsal
from generalist.tasks.baselines.ordinary import baseline
from generalist.train.prepare import Prepared

FIRST = 8  # records that are tried
MORE = 64  # and when all of those are broken


def preflight(prepared: Prepared, recipe: Recipe) -> list[str]:
    """Notes on the tasks, a line each. UserError: a task that could not be trained or evaluated."""
    notes = []
    for name, task in prepared.tasks.items():
        train = prepared.records[name]
        test = held_out(task)
        val, said = validation(task)
        parts = {"train": train, "val": val, "test": test}
        for split, records in parts.items():
            if records is not None:
                check_split(task, split, records, train)
        if recipe.baseline:
            notes += [f"  {name}: {note}" for note in [*said, *rehearsed(task, train, val, test)]]
    return notes


def held_out(task: Task) -> Records:
    """The test records. UserError where there are none to evaluate on."""
    try:
        found = task.open("test")
    except UserError as error:
        raise UserError(f"task {task.name}: there is no test data to evaluate on; {error}") from error
    if not len(found):
        raise UserError(f"task {task.name}: the test split is empty; give the source one with records")
    return found


def check_split(task: Task, split: str, records: Records, train: Records) -> None:
    """UserError: a split of other classes than training's, records the task refuses, none that can be read."""
    told, own = train.info.get("classes"), records.info.get("classes")
    if told and own and list(own) != list(told):
        new = [str(name) for name in own if name not in told]
        what = f"has {new[0]!r}, which training lacks" if new else "has them in another order, or fewer"
        raise UserError(f"task {task.name}: the {split} split {what}; give classes=[...] or split the data anew")
    if not len(records):
        raise UserError(f"task {task.name}: its {split} data is empty")
    task.check(records, split)
    examples = []
    first: UserError | None = None
    for number in tried(records):
        try:
            examples += examples_of(task, records, number, [None])
        except UserError as error:
            first = first or error
        if examples and number >= min(FIRST, len(records)) - 1:
            break
    if not examples:
        raise UserError(f"{first} ({split} split; none of {len(tried(records))} records tried can be read)") from first
    batch = task.collate(examples)
    if batch.partners is None and batch.inputs.labels is None:
        have = ", ".join(map(str, records[0]))
        raise UserError(f"task {task.name}: no {split} record tried tells its answer; the records have {have}")


def tried(records: Records) -> list[int]:
    """The first records, then some of all."""
    count, most = len(records), min(MORE, len(records))
    return list(dict.fromkeys([*range(min(FIRST, count)), *(i * count // most for i in range(most))]))


def rehearsed(task: Task, train: Records, val: Records | None, test: Records) -> list[str]:
    """A note where the ordinary baseline cannot be had, found on a few records without fitting anything."""
    few = [None if part is None else part.only(list(range(min(2 * FIRST, len(part))))) for part in (train, val, test)]
    sound = [None if part is None else part.sound(task.example) for part in few]
    if any(part is not None and not len(part) for part in sound):
        return []  # nothing to tell from
    try:
        with rehearsal():
            assert sound[0] is not None and sound[2] is not None
            baseline(task, sound[0], sound[1], sound[2])
    except Exception as error:
        return [f"no baseline can be had: {reason(error)}"]
    return []
