"""`GeneralistConfig`: the configuration of a model as transformers' tools use it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedConfig

from generalist.model.config import ModelConfig


class GeneralistConfig(PreTrainedConfig, ModelConfig):
    """A `ModelConfig` in config.json and behind the Auto classes; earlier names of its keys are understood."""

    model_type = "generalist"

    if TYPE_CHECKING:  # transformers makes it of the fields, and takes other names besides
        id2label: Any
        label2id: Any

        def __init__(self, **kwargs: Any) -> None: ...

    def __post_init__(self, **kwargs: Any) -> None:
        self.settle()
        kwargs.pop("initializer_range", None)  # of earlier files, read by nobody
        unnamed = self.id2label is None and kwargs.get("num_labels") is None
        super().__post_init__(**kwargs)
        if unnamed:  # transformers' own two, LABEL_0 and LABEL_1, would be taken for a user's
            self.id2label = self.label2id = None
        self.check()

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"moe": asdict(self.moe)}
