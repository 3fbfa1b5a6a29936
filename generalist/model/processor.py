"""`Processor`: what a person has in hand -> sequences that the model takes, with the tasks that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from generalist.data.base.errors import UserError, blame, nearest
from generalist.data.batch.types import Span
from generalist.tasks.base.task import Task
from generalist.tasks.candidates.names import CandidateSet, Names, candidate_set
from generalist.tasks.registry.load import saved_task
from generalist.tokenizers_mod.audio.rates import at_rate
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.modalities import build_modalities

LISTS = 16  # lists of candidates that are kept


class Processor:
    """modalities: {name: settings}; candidate_sets: {name: values}, both JSON; tasks: {name: task, or its JSON values}.

    Plain; `generalist.hf.processor.GeneralistProcessor` is the same as a processor of transformers.
    """

    def __init__(
        self,
        modalities: dict[str, Any] | None = None,
        candidate_sets: dict[str, Any] | None = None,
        tasks: dict[str, Any] | None = None,
    ) -> None:
        self.modalities = modalities or {}
        self.candidate_sets = candidate_sets or {}
        self._tasks: dict[str, Task] = {}
        self._bound = False
        self._named: dict[tuple[str, ...], list[list[Span]]] = {}  # of the last lists of candidates, the latest last
        self.tasks = tasks or {}

    @property
    def tasks(self) -> dict[str, Task]:
        """What the model was trained on, ready to be asked; a task of modalities that the model lacks cannot be."""
        if not self._bound:
            sets = self.sets
            for name, task in self._tasks.items():
                if {"summary", *task.inputs} <= self.built.keys():
                    task.bind(self.built, sets.get(name), {})
                else:
                    task.modalities = self.built
            self._bound = True
        return self._tasks

    @tasks.setter
    def tasks(self, given: Mapping[str, Task | Mapping[str, Any]]) -> None:
        values = {name: task.about() if isinstance(task, Task) else task for name, task in given.items()}
        self._tasks = {name: saved_task(name, value) for name, value in values.items()}
        self._bound = False

    @property
    def built(self) -> dict[str, Modality]:
        """{name: modality}, built once."""
        if "_built" not in self.__dict__:
            self._built = build_modalities(self.modalities)
        return self._built

    @property
    def sets(self) -> dict[str, CandidateSet]:
        """The candidate sets that the model was trained with, by task."""
        return {name: candidate_set(values) for name, values in self.candidate_sets.items()}

    def __call__(self, **inputs: Any) -> Any:
        """Raw inputs by modality -> sequences [summary·, spans...], asked at the summary.

        A list or tuple is a batch (one sequence an item); anything else is one sample. Several modalities
        make one sequence of them all, in the order given; batches must then have the same length. `sampling_rate` is
        that of the waveforms given.
        """
        if (rate := inputs.pop("sampling_rate", None)) is not None:
            inputs = at_rate(inputs, rate, self.built)
        if not inputs:
            raise UserError(f"give an input by modality, such as image=...; this model has {list(self.built)}")
        columns = {name: value if isinstance(value, list | tuple) else [value] for name, value in inputs.items()}
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise UserError(f"inputs of one batch differ in length: {lengths}")
        if not next(iter(lengths.values())):
            raise UserError("the batch is empty")
        return [
            [
                self.summary(),
                *(self._told(name, column[i]) for name, column in columns.items() if column[i] is not None),
            ]
            for i in range(next(iter(lengths.values())))
        ]

    def _told(self, name: str, raw: Any) -> Span:
        """A span that asks nothing itself: the question is asked at the summary."""
        span = self.span(name, raw)
        return span if span.asked is None else replace(span, asked=None, labels=None)

    def summary(self) -> Span:
        return self.built["summary"].span(None).ask([0])

    def span(self, modality: str, raw: Any) -> Span:
        """One raw input of a modality -> its span."""
        if modality not in self.built:
            raise UserError(f"this model has no modality {modality!r}; {nearest(modality, self.built)}")
        tokenizer = self.built[modality]
        return blamed(modality, tokenizer.span, tokenizer.read(raw))

    def candidates(self, names: list[str]) -> list[list[Span]]:
        """Candidate names (two or more, each once) -> sequences [summary·, name]; lists that come again are kept."""
        chosen = Names(names)
        key = tuple(chosen.names)
        found = self._named.pop(key, None) or chosen.sequences(self.built)
        self._named[key] = found
        while len(self._named) > LISTS:
            self._named.pop(next(iter(self._named)))
        return [list(spans) for spans in found]

    def task(self, name: str) -> Task:
        """A task of the model by its name."""
        if name not in self.tasks:
            raise UserError(f"this model has no task {name!r}; {nearest(name, self.tasks)}")
        return self.tasks[name]

    def task_candidates(self, task: str) -> CandidateSet:
        """The candidate set of a task that the model was trained on."""
        if task not in self.candidate_sets:
            raise UserError(f"no candidate set for task {task!r}; {nearest(task, self.candidate_sets)}")
        return candidate_set(self.candidate_sets[task])


def blamed(name: str, make: Any, value: Any) -> Any:
    """make(value), whose every error is one line about the modality `name`."""
    try:
        return make(value)
    except Exception as error:
        raise blame(error, name) from error
