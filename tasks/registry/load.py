"""A task out of a model's folder: what `Task.about` says, or the plainer words of an earlier version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from warnings import warn

from generalist.data.base.errors import UserError
from generalist.data.base.trust import find_class
from generalist.tasks.base.task import Task
from generalist.tasks.registry.table import TASKS


@dataclass(kw_only=True)
class Unknown(Task):
    """A task whose own class is not at hand: it asks at the summary, among its candidates, and is saved as it came."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.values: dict[str, Any] = {}

    def about(self) -> dict[str, Any]:
        return dict(self.values)


def saved_task(name: str, values: Mapping[str, Any]) -> Task:
    """The task `name` of a model's folder, without a source. UserError for values that are no task's."""
    if "class" not in values:
        return _plainer(name, values)
    path = str(values["class"])
    try:
        kind = find_class(path, f"the model's task {name!r}")
    except UserError as error:
        warn(f"{error}. Until then {name!r} is asked at the summary, among its candidates", stacklevel=2)
        return _unknown(name, values)
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise UserError(f"the model's task {name!r} names {path!r}, which is no task")
    try:
        return kind(name=name, **_own(kind, values))
    except (TypeError, ValueError) as error:
        raise UserError(f"the model's task {name!r} does not fit this version ({error})") from error


def _own(kind: type[Task], values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a task, lists of pairs as the dicts that they are."""
    dicts = {f.name for f in fields(kind) if str(f.type).startswith("dict")}
    own = {key: value for key, value in values.items() if key not in ("class", "name")}
    return {key: dict(v) if key in dicts and isinstance(v, list) else v for key, v in own.items()}


def _unknown(name: str, values: Mapping[str, Any], **known: Any) -> Task:
    shared = {f.name for f in fields(Task)}
    own = {key: value for key, value in values.items() if key in shared - known.keys()}
    task = Unknown(name=name, **_own(Task, own), **known)
    task.values = dict(values)
    return task


def _plainer(name: str, values: Mapping[str, Any]) -> Task:
    """{"kind", "scale", "inputs": modalities, "answers": modalities} and a forecast's shape: no field is known."""
    inputs = {modality: modality for modality in values.get("inputs", ())}
    kind = TASKS.get(values.get("kind", ""))
    told: dict[str, Any] = {"scale": values.get("scale", "")} | ({"inputs": inputs} if inputs else {})
    if kind is None:
        return _unknown(name, values, inputs=inputs)
    own = {f.name for f in fields(kind)}
    if "partners" in own and values.get("answers"):
        told["partners"] = {modality: modality for modality in values["answers"]}
    told |= {key: values[key] for key in ("horizon", "slot", "relative", "newest") if key in own & set(values)}
    task = kind(name=name, **told)
    task.usual_answers = tuple(values.get("answers", ()))
    return task
