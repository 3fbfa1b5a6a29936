"""`GeneralistProcessor`: what a person has in hand -> what the model takes, saved in the model's folder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import BatchFeature, ProcessorMixin

from generalist.data.base.errors import UserError, nearest
from generalist.data.base.trust import trusting
from generalist.data.batch.types import Span
from generalist.hf.processors import GeneralistFeatureExtractor, GeneralistImageProcessor
from generalist.model.processor import Processor, blamed
from generalist.tokenizers_mod.audio.rates import at_rate
from generalist.tokenizers_mod.base.capabilities import Writes
from generalist.tokenizers_mod.base.modalities import modality_class
from generalist.tokenizers_mod.text.lengths import LENGTHS, check, fitted
from generalist.tokenizers_mod.text.text_tensors import TextTensors

WORDS = (*LENGTHS, "sampling_rate")  # what clients say beside the inputs


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


class GeneralistProcessor(ProcessorMixin, Processor):
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
        # a model always reads text: its candidates are text
        ProcessorMixin.__init__(self, tokenizer, chat_template=chat_template)
        Processor.__init__(self, modalities, candidate_sets, tasks)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """A saved processor; trust_remote_code=True also allows the modules of foreign modalities that it names."""
        with trusting(bool(kwargs.get("trust_remote_code"))):
            found = super().from_pretrained(*args, **kwargs)
            for name, settings in found.modalities.items():
                modality_class(name, settings.get("class"))
        return found

    @property
    def model_input_names(self) -> list[str]:
        """The names of the padded tensors of texts, pictures and sounds, whichever the model reads."""
        faces = {"image": GeneralistImageProcessor, "audio": GeneralistFeatureExtractor}
        more = [name for kind, face in faces.items() if kind in self.modalities for name in face.model_input_names]
        return [*super().model_input_names, *more]

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
        sequences = Processor.__call__(self, **inputs)
        columns = {name: value if isinstance(value, list | tuple) else [value] for name, value in inputs.items()}
        return Prepared(sequences, lambda: self.padded(columns))

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
            made = blamed(name, modality.tensors, values)
            data |= fitted(made, modality, words) if isinstance(modality, TextTensors) else made
        return BatchFeature({k: v.numpy() for k, v in data.items()}, tensor_type=kind)


# What other tools look for by name. It is said and not written above: the order in which inputs are given is the order
# of their spans, and an argument with a name has no place among the others. A sound is not named: it needs its rate.
GeneralistProcessor.__call__.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY),
        *(
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=Any)
            for name in ("text", "images")
        ),
        inspect.Parameter("inputs", inspect.Parameter.VAR_KEYWORD, annotation=Any),
    ]
)


def _is_text(raw: Any) -> bool:
    return isinstance(raw, str) or (isinstance(raw, list) and bool(raw) and all(isinstance(one, str) for one in raw))
