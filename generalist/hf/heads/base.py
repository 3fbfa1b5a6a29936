"""What all heads share: which modality one takes, and as which task of the model it asks.

The task is config.head_task, else the first of the saved model that takes this modality alone and has candidates of the
head's kinds; the scale, and the classes where a user names none, are those of the task.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar
from warnings import warn

from transformers.utils import cached_file

from generalist.data.base.errors import UserError, nearest
from generalist.hf.model import GeneralistModel
from generalist.tasks.candidates.names import CandidateSet, candidate_set

FILE = "processor_config.json"
HUB = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


class Head(GeneralistModel):
    """among: kinds of the candidate sets that it asks among."""

    accepts_loss_kwargs = False  # the loss is a batch's own mean
    among: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """A saved model, asked as the task that `head_task` names or as the first that fits."""
        found = super().from_pretrained(*args, **kwargs)
        place = args[0] if args else kwargs["pretrained_model_name_or_path"]
        model = found[0] if isinstance(found, tuple) else found
        options = {key: kwargs[key] for key in HUB if kwargs.get(key) is not None}
        if model.open and (task := model.fitting(candidate_sets(place, options))) is not None:
            model.take(*task)
        return found

    @property
    def open(self) -> bool:
        """Whether a task of the model has something to say that the configuration does not."""
        return not self.config.head_task

    def fitting(self, sets: dict[str, dict[str, Any]]) -> tuple[str, CandidateSet] | None:
        """The task as which this head asks and its candidates; None where no task fits. sets: those of the model."""
        named = self.config.head_task
        fits = [name for name, values in sets.items() if values.get("kind") in self.among]
        if named and fits and named not in fits:
            raise UserError(f"head_task={named!r} asks nothing that this head does; {nearest(named, fits)}")
        alone = [name for name, told in self.sides.trained.items() if told.inputs == [self.headed()]]
        fits = [name for name in fits if name == named or name in alone]
        if not named and len(fits) > 1:
            line = f"this head can ask as {', '.join(fits)}; taken as of task {fits[0]!r}"
            warn(f"{line}; choose another with head_task=...", stacklevel=4)
        chosen = named if named in fits else next(iter(fits), None)
        return None if chosen is None else (chosen, candidate_set(sets[chosen]))

    def take(self, task: str, candidates: CandidateSet) -> None:
        """Ask as this task from now on."""
        self.config.head_task = task

    @classmethod
    def main_tensor(cls) -> str:
        """The tensor that the head reads."""
        assert cls.main_input_name is not None
        return cls.main_input_name

    def headed(self) -> str:
        """The modality that the head reads. UserError where the model has none."""
        for name, modality in self.modalities.items():
            if modality.tensor_names[:1] == (self.main_tensor(),):
                return name
        raise UserError(f"no modality of this model takes {self.main_tensor()}: {type(self).__name__} reads nothing")

    def one_modality(self, tensors: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The modality whose tensors are given, and they. UserError where there are two."""
        found = self.given_modalities({k: v for k, v in tensors.items() if k != "token_type_ids"})
        if len(found) > 1:
            raise UserError(f"{len(found)} modalities given ({', '.join(found)}); a head takes one")
        return next(iter(found.items()))

    def head_scale(self, modality: str, members: tuple[str, ...]) -> str:
        """The logit scale of the head's task, else that of such questions."""
        told = self.sides.trained.get(self.config.head_task)
        return self.sides.scale({modality}, members) if told is None else told.scale


def candidate_sets(place: Any, options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """{task: values of its candidate set} of a saved model, here or on the hub; empty where none are said."""
    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    path = cached_file(place, FILE, **quiet, **options)
    return {} if path is None else json.loads(Path(path).read_text(encoding="utf-8")).get("candidate_sets") or {}
