"""`GeneralistProcessor`: what a person has in hand -> what the model takes, saved in the model's folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import BatchFeature, ProcessorMixin

from generalist.data.base.errors import UserError, blame, nearest
from generalist.data.base.trust import trusting
from generalist.data.batch.types import Span
from generalist.tasks.candidates import CandidateSet, Names, candidate_set
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.capabilities import Writes
from generalist.tokenizers_mod.base.modalities import build_modalities, modality_class


class GeneralistProcessor(ProcessorMixin):
    """modalities: {name: settings}; candidate_sets: {name: values}; tasks: {name: {"scale": ...}}, all JSON.

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
        self.tasks = tasks or {}

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

    def to_dict(self) -> dict[str, Any]:
        built = self.__dict__.pop("_built", None)  # live objects do not belong in the JSON
        try:
            return super().to_dict()
        finally:
            if built is not None:
                self._built = built

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
        write_sentence_transformers(folder)
        if not (folder / "README.md").is_file():
            tasks = list(self.tasks.values())
            write_card(folder, "A generalist model", self, tasks[0].get("scale", "default") if tasks else "default")
        return written

    def __call__(self, **inputs: Any) -> Any:  # type: ignore[override]
        """Raw inputs by modality -> sequences [summary·, spans...], asked at the summary.

        A list or tuple is a batch (one sequence an item); anything else is one sample. Several modalities
        make one sequence of them all, in the order given; batches must then have the same length.

        With return_tensors="pt" the modalities stay apart and padded tensors come back by their standard names,
        ready for `model(**tensors)`; there `images` is another word for image, and text="" beside it is a caption of
        which nothing is written yet.
        """
        for words in [inputs.pop(name) for name in list(inputs) if name.endswith("_kwargs")]:
            inputs["return_tensors"] = inputs.get("return_tensors") or (words or {}).get("return_tensors")
        if inputs.get("return_tensors") is not None:
            return self.padded(inputs)
        inputs.pop("return_tensors", None)
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

    def padded(self, inputs: dict[str, Any]) -> BatchFeature:
        """Raw inputs by modality -> padded tensors, each modality by itself; words about padding are let pass."""
        kind = inputs.pop("return_tensors", None)
        for word in ("padding", "truncation", "max_length", "sampling_rate"):
            inputs.pop(word, None)
        if "images" in inputs:
            inputs["image"] = inputs.pop("images")
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
            data |= _blamed(name, modality.tensors, values)
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
        """Candidate names (two or more, each once) -> sequences [summary·, name]."""
        return Names(names).sequences(self.built)

    def task_candidates(self, task: str) -> CandidateSet:
        """The candidate set of a task that the model was trained on."""
        if task not in self.candidate_sets:
            raise UserError(f"no candidate set for task {task!r}; {nearest(task, self.candidate_sets)}")
        return candidate_set(self.candidate_sets[task])


def _blamed(name: str, make: Any, value: Any) -> Any:
    """make(value), whose every error is one line about the modality `name`."""
    try:
        return make(value)
    except Exception as error:
        raise blame(error, name) from error
