"""`GeneralistProcessor`: what a person has in hand -> what the model takes, saved in the model's folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import BatchFeature, ProcessorMixin

from generalist.data.base.errors import UserError, blame, nearest
from generalist.data.base.trust import trusting
from generalist.data.batch.types import Span
from generalist.tasks.base.task import Task
from generalist.tasks.candidates.names import CandidateSet, Names, candidate_set
from generalist.tasks.registry.load import saved_task
from generalist.tokenizers_mod.audio.rates import at_rate
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.capabilities import Writes
from generalist.tokenizers_mod.base.modalities import build_modalities, modality_class
from generalist.tokenizers_mod.text.lengths import LENGTHS, check, fitted
from generalist.tokenizers_mod.text.text_tensors import TextTensors

WORDS = (*LENGTHS, "sampling_rate")  # what clients say beside the inputs

LISTS = 16  # lists of candidates that are kept


class Prepared(list[list[Span]]):
    """Sequences for `model.encode`, `rank` and `log_likelihood`; by name, as any other processor's batch, the padded
    arrays of the same inputs: for `model(**batch)` and for the rows that `datasets.map` keeps."""

    def __init__(self, sequences: list[list[Span]], padded: Callable[[], BatchFeature]) -> None:
        super().__init__(sequences)
        self._padded, self._arrays = padded, None

    @property
    def arrays(self) -> BatchFeature:
        """{input_ids: Int[B n], ...}, made when first asked for."""
        if self._arrays is None:
            self._arrays = self._padded()
        return self._arrays

    def __getitem__(self, key: Any) -> Any:
        return self.arrays[key] if isinstance(key, str) else super().__getitem__(key)

    def keys(self) -> Any:
        return self.arrays.keys()

    def values(self) -> Any:
        return self.arrays.values()

    def items(self) -> Any:
        return self.arrays.items()

    def __reduce__(self) -> Any:
        return list, (list(self),)  # to another process go the sequences


Mapping.register(Prepared)  # what `datasets` and accelerate ask of a batch


class GeneralistProcessor(ProcessorMixin):
    """modalities: {name: settings}; candidate_sets: {name: values}, both JSON; tasks: {name: task, or its JSON values}.

    `processor(image=..., text=...)` gives sequences for `model.encode`, `rank` and `log_likelihood`.
    """

    def __init__(
        self,
        tokenizer: Any = None,
        modalities: dict[str, Any] | None = None,
        candidate_sets: dict[str, Any] | None = None,
        tasks: dict[str, Any] | None = None,
        chat_template: Any = None,
    ) -> None:
        super().__init__(tokenizer, chat_template=chat_template)  # a model always reads text: its candidates are text
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

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """A saved processor; trust_remote_code=True also allows the modules of foreign modalities that it names."""
        with trusting(bool(kwargs.get("trust_remote_code"))):
            found = super().from_pretrained(*args, **kwargs)
            for name, settings in found.modalities.items():
                modality_class(name, settings.get("class"))
        return found

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

    def __getstate__(self) -> dict[str, Any]:
        """What it was made of, without what a call leaves behind: `datasets` knows by this what it has done before."""
        live = ("_built", "_tasks", "_bound", "_named")
        state = {key: value for key, value in self.__dict__.items() if key not in live}
        return state | {"tasks": {name: task.about() for name, task in self._tasks.items()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        tasks = state.pop("tasks")
        self.__dict__.update(state, _named={})
        self.tasks = tasks

    def to_dict(self) -> dict[str, Any]:
        live: dict[str, Any] = {
            key: self.__dict__.pop(key) for key in ("_built", "_tasks", "_bound") if key in self.__dict__
        }
        try:  # live objects do not belong in the JSON
            return super().to_dict() | {"tasks": {name: task.about() for name, task in live["_tasks"].items()}}
        finally:
            self.__dict__.update(live)

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """The processor with what other tools look for: their processors, remote code, a card where there is none."""
        from generalist.hf.card import write_card
        from generalist.hf.folder import PROCESSOR_MAP, write_processors, write_remote, write_sentence_transformers

        self.auto_map = {"AutoProcessor": PROCESSOR_MAP["AutoProcessor"]}
        try:
            written = super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)
        finally:
            del self.auto_map  # of the folder, not of the processor: a loaded one has none
        folder = Path(save_directory)
        write_remote(folder)
        write_processors(folder, self)
        write_sentence_transformers(folder, self)
        if not (folder / "README.md").is_file():
            scales = [task.scale for task in self._tasks.values()]
            write_card(folder, "A generalist model", self, scales[0] if scales else "default")
        return written

    def __call__(self, *texts: Any, **inputs: Any) -> Any:  # type: ignore[override]
        """Raw inputs by modality -> sequences [summary·, spans...], asked at the summary.

        A list or tuple is a batch (one sequence an item); anything else is one sample. Several modalities
        make one sequence of them all, in the order given; batches must then have the same length.

        They are the padded arrays too, by name (`Prepared`).

        With return_tensors="pt" (or a word about lengths) the modalities stay apart and padded tensors come back by
        their standard names, ready for `model(**tensors)`; there `images` is another word for image, and text=""
        beside it is a caption of which nothing is written yet. `sampling_rate` is that of the waveforms given;
        `padding`, `truncation` and `max_length` are said of texts (`generalist.tokenizers_mod.text.lengths`). What is
        given without a name is text.
        """
        if texts:
            if len(texts) > 1 or "text" in inputs or not _is_text(texts[0]):
                raise UserError(f"give inputs by modality, such as image=...; this model has {list(self.built)}")
            inputs["text"] = texts[0]
        for words in [inputs.pop(name) for name in list(inputs) if name.endswith("_kwargs")]:
            said = {word: value for word, value in (words or {}).items() if word in ("return_tensors", *WORDS)}
            inputs |= {word: value for word, value in said.items() if inputs.get(word) is None}
        if any(inputs.get(word) is not None for word in ("return_tensors", *LENGTHS)):
            return self.padded(inputs)
        for word in ("return_tensors", *LENGTHS):
            inputs.pop(word, None)
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
        sequences = [
            [
                self.summary(),
                *(self._told(name, column[i]) for name, column in columns.items() if column[i] is not None),
            ]
            for i in range(next(iter(lengths.values())))
        ]
        return Prepared(sequences, lambda: self.padded(dict(columns)))

    def _told(self, name: str, raw: Any) -> Span:
        """A span that asks nothing itself: the question is asked at the summary."""
        span = self.span(name, raw)
        return span if span.asked is None else replace(span, asked=None, labels=None)

    def padded(self, inputs: dict[str, Any]) -> BatchFeature:
        """Raw inputs by modality -> padded tensors, each modality by itself."""
        kind = inputs.pop("return_tensors", None)
        words = {word: inputs.pop(word) for word in WORDS if inputs.get(word) is not None}
        if "images" in inputs:
            inputs["image"] = inputs.pop("images")
        if "sampling_rate" in words:
            inputs = at_rate(inputs, words["sampling_rate"], self.built)
        check(words, any(isinstance(self.built.get(name), TextTensors) for name in inputs))
        data: dict[str, Any] = {}
        if all(raw is None for raw in inputs.values()):
            raise UserError(f"give an input by modality, such as image=...; this model has {list(self.built)}")
        for name, raw in inputs.items():
            if raw is None:
                continue
            if name not in self.built:
                raise UserError(f"this model has no modality {name!r}; {nearest(name, self.built)}")
            modality = self.built[name]
            blank = isinstance(raw, str) and not raw.strip() and len(inputs) > 1
            if blank and isinstance(modality, Writes):
                data |= modality.beginning()
                continue
            values = [modality.read(item) for item in (raw if isinstance(raw, list | tuple) else [raw])]
            if not values:
                raise UserError("the batch is empty")
            made = _blamed(name, modality.tensors, values)
            data |= fitted(made, modality, words) if isinstance(modality, TextTensors) else made
        return BatchFeature({k: v.numpy() for k, v in data.items()}, tensor_type=kind)

    def summary(self) -> Span:
        return self.built["summary"].span(None).ask([0])

    def span(self, modality: str, raw: Any) -> Span:
        """One raw input of a modality -> its span."""
        if modality not in self.built:
            raise UserError(f"this model has no modality {modality!r}; {nearest(modality, self.built)}")
        tokenizer = self.built[modality]
        return _blamed(modality, tokenizer.span, tokenizer.read(raw))

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


def _is_text(raw: Any) -> bool:
    return isinstance(raw, str) or (isinstance(raw, list) and bool(raw) and all(isinstance(one, str) for one in raw))


def _blamed(name: str, make: Any, value: Any) -> Any:
    """make(value), whose every error is one line about the modality `name`."""
    try:
        return make(value)
    except Exception as error:
        raise blame(error, name) from error
