"""A saved model asked: records of one of its tasks, one or many, and nothing but the folder is needed.

model, processor = load_model(folder)
ask(model, processor, "digits", {"image": "seven.png"})          # one record, or a list of them
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch

from generalist.data.base.errors import UserError, nearest
from generalist.data.stream.source import Record
from generalist.hf.saved import read_for_asking, read_model
from generalist.model import ask as asking
from generalist.model.model import PackedModel
from generalist.model.processor import Processor
from generalist.shipped import model_folder
from generalist.tasks.base.task import Task
from generalist.tasks.candidates.answers import Answer

if TYPE_CHECKING:
    from generalist.hf.model import GeneralistModel
    from generalist.hf.pretrained.config import GeneralistConfig
    from generalist.hf.processor import GeneralistProcessor


def load_model(folder: Path) -> tuple[GeneralistModel, GeneralistProcessor]:
    """The model of a run's folder, of a model folder or of a name that comes with the package."""
    return read_model(_home(folder))


def config_of(folder: Path) -> GeneralistConfig:
    """The configuration alone of what `load_model` loads."""
    from generalist.hf.pretrained.config import GeneralistConfig

    return GeneralistConfig.from_pretrained(_home(folder))


def load_for_asking(folder: Path) -> tuple[PackedModel, Processor]:
    """The same as plain classes: asked, not saved or handed to transformers' tools, which are not imported."""
    return read_for_asking(_home(folder))


def _home(folder: Path) -> Path:
    home = model_folder(folder)
    if home is None:
        raise UserError(f"{folder} holds no trained model (no model/config.json); give the folder of a finished run")
    return home


def load(place: str | Path) -> tuple[GeneralistModel, GeneralistProcessor]:
    """The model and processor of a name that comes with the package ("starter"), or of a folder."""
    return load_model(Path(place))


@overload
def ask(model: PackedModel, processor: Processor, task: str | Task, record: Record, batch: int = ...) -> Answer: ...
@overload
def ask(
    model: PackedModel, processor: Processor, task: str | Task, record: Sequence[Record], batch: int = ...
) -> list[Answer]: ...
def ask(
    model: PackedModel,
    processor: Processor,
    task: str | Task,
    record: Record | Sequence[Record],
    batch: int = asking.BATCH,
) -> Answer | list[Answer]:
    """What the model says of a record {field: raw value}, or of every one of several, which are packed `batch` a pass.

    task: a task of the model, or its name; the fields are those that it was trained on, of which some may be None.
    """
    chosen = processor.task(task) if isinstance(task, str) else task
    if isinstance(record, Mapping):
        return asking.ask(model, chosen, [record])[0]
    return asking.ask(model, chosen, record, batch)


def predict(
    folder: Path, inputs: dict[str, str], candidates: list[str] | None, task: str | None, precision: str = "fp32"
) -> dict[str, Any]:
    """{"answers": [[name, probability], ...]}, likeliest first; of a forecast {"quantiles": ...} too.

    precision: in which the model answers, "fp32" or "bf16".
    """
    if not inputs:
        raise UserError("no input given; add one such as --image FILE")
    model, processor = load_for_asking(folder)
    raw = raw_inputs(processor, inputs)
    chosen = processor.task(task) if task else task_of(processor, raw, candidates is not None)
    if candidates is None and chosen.candidates is None:
        raise UserError(f"task {chosen.name!r} ranks what you give it; add --candidates NAME NAME ...")
    try:
        with asking.in_precision(precision, model.device):
            told = ask(model, processor, *as_given(chosen, raw, candidates)).to_dict()
    except UserError as error:  # which speaks of a record's field; here modalities are given, and the cause names one
        raise (error.__cause__ if isinstance(error.__cause__, UserError) else error) from None
    return told if "quantiles" in told else {"task": chosen.name, **told}


def raw_inputs(processor: Processor, inputs: Mapping[str, str]) -> dict[str, Any]:
    """{modality: word of a command line} -> {modality: raw value}. UserError for a modality that the model lacks."""
    for modality in inputs:
        if modality not in processor.built:
            raise UserError(f"this model has no modality {modality!r}; {nearest(modality, processor.built)}")
    return {modality: processor.built[modality].from_command_line(word) for modality, word in inputs.items()}


def as_given(task: Task, raw: Mapping[str, Any], candidates: list[str] | None = None) -> tuple[Task, dict[str, Any]]:
    """The task as it is asked of {modality: raw value}, among these candidates, and the record.

    What lacks of the task's inputs is missing; where others are given, all of them are asked about at the summary.
    """
    fields = task.given()
    if not set(raw) <= set(fields):
        task, fields = task.with_inputs({modality: modality for modality in raw}), {m: m for m in raw}
    if candidates is not None:
        task = task.among(candidates)
    return task, {field: raw.get(modality) for modality, field in fields.items()}


def task_of(processor: Processor, given: Collection[str], candidates: bool) -> Task:
    """The first task with these inputs (and with candidates of its own, when none are given)."""
    if not processor.tasks:
        raise UserError("this model was saved without a task; ask it from Python: model.rank(inputs, candidates)")
    fitting = [task for task in processor.tasks.values() if set(task.given()) == set(given)]
    if not candidates:
        fitting = [task for task in fitting if task.candidates is not None]
    elif not fitting:
        fitting = list(processor.tasks.values())
    if not fitting:
        raise UserError(f"no task of this model takes {' + '.join(given)} alone; give --candidates NAME NAME ...")
    if not candidates and len(fitting) > 1:
        several = f"several tasks take {' + '.join(given)}: {', '.join(task.name for task in fitting)}"
        raise UserError(f"{several}; choose one with --task, or give --candidates")
    return fitting[0]


def captions(
    folder: Any, inputs: dict[str, str], task: str | None = None, seed: int = 0, **options: Any
) -> list[tuple[str, float]]:
    """Captions of one input with their scores, best first, by a model folder. options: those of `decode`."""
    if len(inputs) != 1:
        raise UserError("give one input, such as --image FILE")
    model, processor = load_for_asking(folder)
    writing = {name: own for name, own in processor.tasks.items() if own.writes}
    if not writing:
        raise UserError("no task of this model writes captions; train one with a Describe task in its recipe")
    if task is None and len(writing) != 1:
        raise UserError(f"{len(writing)} tasks of this model write captions; choose one: {list(writing)}")
    if task is not None and task not in writing:
        raise UserError(f"task {task!r} of this model does not write; {nearest(task, writing)}")
    chosen, record = copy(writing[task or next(iter(writing))]), raw_inputs(processor, inputs)
    chosen.inputs = {modality: modality for modality in record}
    options["generator"] = torch.Generator(device=model.device).manual_seed(seed)
    return next(asking.written(model, chosen, [record], **options))
