"""What an ordinary method reaches at a task, on the same splits: one function a kind of task, in one table.

Results as in `generalist.tasks.baselines.baselines`. A task's own class, or the nearest above it, says which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from generalist.data.batch.types import IGNORE
from generalist.data.stream.source import Record, Records
from generalist.tasks.base.task import Task
from generalist.tasks.baselines import baselines
from generalist.tasks.baselines import guesses as guessing
from generalist.tasks.baselines.foretold import futures
from generalist.tasks.baselines.guesses import Guessed, Matched
from generalist.tasks.baselines.methods import Result
from generalist.tasks.candidates.codebook import Codes
from generalist.tasks.candidates.names import Names, Numbers
from generalist.tasks.kinds.answer import Answer
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.fill import Fill
from generalist.tasks.kinds.forecast import Forecast
from generalist.tasks.kinds.multilabel import MultiLabel
from generalist.tasks.kinds.regress import Regress, as_number
from generalist.tasks.kinds.restore import Restore, RestoreCodes
from generalist.tasks.kinds.retrieve import Retrieve

Val = Records | None  # None where the data has none; what is chosen is then chosen on training data


def baseline(task: Task, train: Records, val: Val, test: Records) -> Result:
    """{"value", "chance", "baseline" (its name)}; {} for a task that no ordinary method is known for."""
    found = next((ORDINARY[kind] for kind in type(task).__mro__ if kind in ORDINARY), None)
    return {} if found is None else found(task, train, val, test)


def guesses(
    task: Task, train: Records, val: Records, asked: list[Records], method: str = "", refit: bool = False
) -> Guessed | None:
    """What a fitted ordinary method says of the validation records and of those asked, over this task's candidates.

    method: its name, "" = the best on validation data; refit: as in `tasks.baselines.guesses`. None where there is none
    for the task.
    """
    found = next((GUESSES[kind] for kind in type(task).__mro__ if kind in GUESSES), None)
    return None if found is None else found(task, train, val, asked, method, refit)


def matched(task: Task, train: Records, val: Records, test: Records) -> Matched | None:
    """The same for a task whose answers are each other's partners; None for another."""
    if not isinstance(task, Retrieve):
        return None
    first = [Records([task.versions(part[i])[0] for i in range(len(part))], part.info) for part in (val, test)]
    return guessing.pairs(task.inputs, task.partners, train, first[0], first[1], task.modalities)


def classified(task: Classify, train: Records, val: Val, test: Records) -> Result:
    def told(record: Record) -> int | None:
        return None if record.get(task.label) is None else task.index(record)

    return baselines.classification(task.inputs, told, train, val, test, task.name, task.modalities)


def marked(task: MultiLabel, train: Records, val: Val, test: Records) -> Result:
    return baselines.multilabel(task.inputs, task.marks, train, test, task.name, task.modalities)


def retrieved(task: Retrieve, train: Records, val: Val, test: Records) -> Result:
    """Where a record has several right partners, the first of them counts."""

    def first(part: Records) -> Records:
        return Records([task.versions(part[i])[0] for i in range(len(part))], part.info)

    told = None if val is None else first(val)
    return baselines.retrieval(task.inputs, task.partners, train, told, first(test), task.name, task.modalities)


def regressed(task: Regress, train: Records, val: Val, test: Records) -> Result:
    def told(record: Record) -> float | None:
        return as_number(record.get(task.target))

    return baselines.regression(task.inputs, told, train, val, test, task.name, task.modalities)


def forecast(task: Forecast, train: Records, val: Val, test: Records) -> Result:
    past = next(iter(task.inputs.values()))
    return baselines.forecasting(past, task.future, val, test, task.name, train, task.units, task.series)


def filled(task: Fill, train: Records, val: Val, test: Records) -> Result:
    text: Any = task.modalities["text"]
    name = task.inputs["text"]
    sequences = [text.ids(text.read(train[i][name])).numpy() for i in range(len(train))]

    def asked(records: Records) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for i in range(len(records)):
            span = task.example(records[i]).inputs[1]
            labels = np.full(span.length, IGNORE)
            labels[span.asked] = span.labels
            yield span.data["ids"].numpy(), labels

    told = None if val is None else list(asked(val))
    return baselines.masked_word_baseline(sequences, list(asked(test)), text.vocabulary, told, task.name)


def answered(task: Answer, train: Records, val: Val, test: Records) -> Result:
    """The commonest answer of the training records."""
    counted = Counter(task.truth(train[i]) for i in range(len(train)))
    best = counted.most_common(1)[0][0]
    value = sum(task.truth(test[i]) == best for i in range(len(test))) / len(test)
    return {"value": value, "chance": 1 / len(task.among_kind(Names).names), "baseline": "commonest answer"}


def restored(task: Restore, train: Records, val: Val, test: Records) -> Result:
    """The mean of a sample's visible tokens, for each of its hidden ones; chance: the training mean."""
    numbers = task.among_kind(Numbers)
    wrong, guess, count = 0.0, 0.0, 0
    for i in range(len(test)):
        asked = task.example(test[i]).inputs[1]
        whole = (task.values(task.whole(test[i])) - numbers.mean) / numbers.std
        visible = torch.ones(asked.length, dtype=torch.bool) if asked.mask is None else asked.mask.clone()
        assert asked.asked is not None and asked.labels is not None
        visible[asked.asked] = False
        middle = whole[visible].mean() if bool(visible.any()) else torch.zeros(())
        wrong += float(((asked.labels - middle) ** 2).sum())
        guess += float((asked.labels**2).sum())
        count += len(asked.labels)
    return {"value": wrong / count, "chance": guess / count, "baseline": "mean of the visible tokens"}


def restored_codes(task: RestoreCodes, train: Records, val: Val, test: Records) -> Result:
    """The code of the nearest visible token before, or the commonest code, whichever validation data prefer."""
    codes = task.among_kind(Codes)
    kinds = codes.kinds_of_codes()
    count = torch.zeros(codes.size)
    for i in range(0, len(train), max(1, len(train) // 500)):
        span = task.whole(train[i])
        found = codes.assign({k: v[task.modalities[span.modality].hideable(span)] for k, v in span.data.items()})
        count += torch.bincount(found[found >= 0], minlength=codes.size)
    # the commonest code of every kind of token (a table's column): what hidden tokens still tell
    usual = torch.stack([count.masked_fill(kinds != k, -1).argmax() for k in kinds])

    def right(records: Records) -> dict[str, float]:
        hits, asked = torch.zeros(3), 0
        for i in range(len(records)):
            given, whole = task.example(records[i]).inputs[1], task.whole(records[i])
            assert given.asked is not None and given.labels is not None
            own = codes.assign(whole.data)
            visible = task.modalities[given.modality].hideable(whole) & (own >= 0)
            visible[given.asked] = False
            for at, label in zip(given.asked.tolist(), given.labels.tolist(), strict=True):
                if label < 0:
                    continue
                before = visible[:at].nonzero()
                near = int(own[before[-1]]) if len(before) else int(count.argmax())
                hits += torch.tensor([usual[label] == label, near == label, count.argmax() == label])
                asked += 1
        return dict(zip(("commonest code", "code before", "chance"), (hits / max(asked, 1)).tolist(), strict=True))

    told, reached = right(train.spread(200) if val is None else val), right(test)
    method = max(("commonest code", "code before"), key=told.__getitem__)
    return {"value": reached[method], "chance": reached["chance"], "baseline": method}


def guessed_classes(
    task: Classify, train: Records, val: Records, asked: list[Records], method: str, refit: bool
) -> Guessed:
    count = len(task.among_kind(Names).names)
    return guessing.classes(task.inputs, task.index, count, train, val, asked, task.modalities, method, refit)


def guessed_marks(
    task: MultiLabel, train: Records, val: Records, asked: list[Records], method: str, refit: bool
) -> Guessed:
    return guessing.marks(task.inputs, task.marks, train, val, asked, task.modalities)


def guessed_numbers(
    task: Regress, train: Records, val: Records, asked: list[Records], method: str, refit: bool
) -> Guessed:
    def told(record: Record) -> float | None:
        return as_number(record[task.target])

    among = task.among_kind(Numbers)
    return guessing.numbers(task.inputs, told, among, train, val, asked, task.modalities, method, refit)


ORDINARY: dict[type[Task], Callable[[Any, Records, Val, Records], Result]] = {
    Classify: classified,
    MultiLabel: marked,
    Retrieve: retrieved,
    Regress: regressed,
    Forecast: forecast,
    Fill: filled,
    Answer: answered,
    Restore: restored,
    RestoreCodes: restored_codes,
}

GUESSES: dict[type[Task], Callable[[Any, Records, Records, list[Records], str, bool], Guessed | None]] = {
    Classify: guessed_classes,
    MultiLabel: guessed_marks,
    Regress: guessed_numbers,
    Forecast: futures,
}
