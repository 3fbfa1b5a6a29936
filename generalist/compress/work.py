"""A model under way: what methods change of it, and what its file will hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from generalist.compress.lessons import Lessons
from generalist.data.base.errors import UserError
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.model.folder.referred import prefix_of
from generalist.model.folder.stored import LEFT, RIGHT, as_int8

OF_FILES = ("model_type", "auto_map", "architectures", "transformers_version", "dtype", "referred", "custom_pipelines")


@dataclass
class Work:
    """A model under way. source: the folder it was read from. learn: opens what it can be taught and looked at with.

    factors: {tensor: (left [out r], right [r in])} of weights that are stored as two factors. other: whether it is no
    longer the model that the source's config.json describes.
    """

    model: Any
    source: Path | None = None
    learn: Callable[[], Lessons] | None = None
    factors: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    int8: bool = False
    other: bool = False
    _lessons: Lessons | None = None

    @property
    def lessons(self) -> Lessons:
        """The model's tasks with their training records, opened by the first method that asks."""
        if self._lessons is None:
            if self.learn is None:
                raise UserError("this method looks at training data; give a run's folder, or DATA")
            self._lessons = self.learn()
        return self._lessons

    def becomes(self, model: GeneralistModel) -> None:
        """Another model takes the place of this one."""
        self.model, self.other = model.eval(), True
        self.factors.clear()

    def weights(self, kinds: tuple[type[nn.Module], ...]) -> dict[str, nn.Module]:
        """{module's name: module} of these kinds, each weight once, without those that the model only names."""
        elsewhere = tuple(prefix_of(name) for name in self.model.config.referred or {})
        found: dict[str, nn.Module] = {}
        seen: set[int] = set()
        for name, module in self.model.named_modules():
            own = dict(module.named_parameters(recurse=False)).get("weight")
            if not isinstance(module, kinds) or own is None or id(own) in seen:
                continue
            seen.add(id(own))
            if not (elsewhere and f"{name}.".startswith(elsewhere)):
                found[name] = module
        return found

    def stored(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the file holds of a model whose folder holds `tensors`: the same names and dtypes, or smaller."""
        state = self.model.state_dict()
        parts: dict[str, Tensor] = {}
        for name, before in tensors.items():
            left, right = self.factors.get(name, (None, None))
            if left is not None and right is not None:
                parts |= {name + LEFT: left.to(before.dtype), name + RIGHT: right.to(before.dtype)}
            else:
                parts[name] = state[name].to(before.dtype) if name in state else before
        if not self.int8:
            return {name: value.contiguous().clone() for name, value in parts.items()}
        own = {name for name, _ in self.model.named_parameters()}
        found: dict[str, Tensor] = {}
        for name, value in parts.items():
            is_weight = name.removesuffix(LEFT).removesuffix(RIGHT) in own
            found |= as_int8(name, value) if is_weight else {name: value}
        return {name: value.contiguous().clone() for name, value in found.items()}


def with_settings(model: Any, **changes: Any) -> GeneralistModel:
    """A fresh model of the same configuration but for `changes`. UserError where the changes do not fit together."""
    settings = {k: v for k, v in model.config.to_dict().items() if k not in OF_FILES}
    made = GeneralistModel(GeneralistConfig(**{**settings, **changes}))
    return made.to(device=model.device, dtype=model.dtype)


def with_state(model: Any, state: dict[str, Tensor], **changes: Any) -> GeneralistModel:
    """The same with these tensors; all of them, and no others."""
    made = with_settings(model, **changes)
    made.load_state_dict(state)
    return made.eval()
