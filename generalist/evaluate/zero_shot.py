"""Any saved model on any data, among any candidates, as any kind of task; nothing is trained.

Candidates are encoded once and kept by a hash of the model's weights and of the candidates, so that the next
evaluation of the same model finds them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from generalist.data.base.errors import Mismatch, UserError, nearest
from generalist.data.stream.source import Record, Records
from generalist.evaluate import measures, predictions
from generalist.evaluate.answer import Answers, answer
from generalist.evaluate.calibration import plot_reliability
from generalist.evaluate.unread import Unread
from generalist.hf.saved import weights_hash
from generalist.model.model import PackedModel
from generalist.model.objective import Objective
from generalist.model.processor import Processor
from generalist.recipe.keys import override
from generalist.tasks.base.task import Task
from generalist.tasks.base.told import Told
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.measures.lines import Columns
from generalist.tasks.registry.table import TASKS

LISTED = 100  # candidates up to which the log-likelihood of every one is saved with an answer

# --- candidates, encoded once ---


def content_hash(model: PackedModel, candidates: list[str] | dict[str, Any]) -> str:
    """Of every weight, the modalities' settings and the candidates (their names in order, or a set's values)."""
    asked = json.dumps([candidates, model.config.modalities], sort_keys=True, default=str).encode()
    return weights_hash(model.state_dict(), asked)


@dataclass
class Cache:
    """Candidate features in a folder, a file each; None keeps nothing."""

    folder: Path | None = None

    def features(self, objective: Objective, name: str) -> Tensor:
        """f of each member of a set Float[K D], not normalised."""
        if self.folder is None:
            return Objective.members(objective, name)
        chosen = objective.sets[name]
        asked = chosen.to_dict()
        if objective.model.router is not None:  # experts look at more than the candidates themselves
            asked["role"] = asdict(chosen.role(name))
        file = self.folder / f"{content_hash(objective.model, asked)}.safetensors"
        if file.is_file():
            return load_file(str(file))["features"].to(objective.model.device)
        found = Objective.members(objective, name)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file({"features": found.cpu().contiguous()}, str(file))
        except OSError as error:
            raise UserError(f"cannot write to {self.folder} ({error.strerror}); choose another --cache") from error
        return found


class Judge(Objective):
    """An objective whose candidates come from a cache."""

    def __init__(self, model: PackedModel, task: Task, cache: Path | None = None) -> None:
        sets = {} if task.candidates is None else {task.name: task.candidates}
        super().__init__(model, sets, task.modalities)
        self.cache = Cache(cache)

    @torch.no_grad()
    def members(self, name: str) -> Tensor:
        return self.cache.features(self, name)


# --- the task ---


@dataclass
class Asked:
    """What to ask. kind: a task of the model, whose candidates and inputs are taken over, or a kind of task.

    inputs, partners: {modality: field of the record}. classes: candidate names, in the order of the labels; template:
    what is asked for a name, such as "a photo of {}". keys: further settings of the task, "key=value". usual: the
    inputs where none are given and the task or kind says none.
    """

    kind: str = "classify"
    inputs: dict[str, str] = field(default_factory=dict)
    partners: dict[str, str] = field(default_factory=dict)
    classes: list[str] | None = None
    template: str = "{}"
    scale: str | None = None
    keys: list[str] = field(default_factory=list)
    usual: dict[str, str] = field(default_factory=dict)


def task_for(asked: Asked, model: PackedModel, processor: Processor, records: Records) -> Task:
    """The task bound to the model and its candidates.

    UserError for what the model or the data do not have.
    """
    own = processor.tasks.get(asked.kind)
    if own is None and asked.kind not in TASKS:
        known = [*processor.tasks, *TASKS]
        raise UserError(f"{asked.kind!r} is no task of this model and no kind of task; {nearest(asked.kind, known)}")
    if "{}" not in asked.template:
        raise UserError(f"the template {asked.template!r} has no {{}} for the name")
    if not len(records):
        raise UserError("there is no record to evaluate")
    records = named(records)
    task = TASKS[asked.kind](name=asked.kind) if own is None else own.of(records[0])
    task.inputs = asked.inputs or task.inputs or dict(asked.usual)
    if asked.partners:
        task.take_partners(asked.partners)
    override(task, *asked.keys)
    for name in {**task.inputs, **asked.partners}.values():
        if name not in records[0]:
            raise UserError(f"no field {name!r}; {nearest(name, records[0])}")
    for modality in {**task.inputs, **asked.partners}:
        if modality not in processor.built:
            raise UserError(f"this model has no modality {modality!r}; {nearest(modality, processor.built)}")
    scale = asked.scale or task.scale
    task.scale = scale if asked.scale or scale in model.log_scales else model.config.zero_shot_scale
    model.log_scale(task.scale)
    candidates = None if own is None else own.candidates
    task.bind(processor.built, candidates, records.info)
    if asked.classes is not None:
        task.take_classes(asked.classes)
    if asked.classes is not None or candidates is None:
        candidates = task.candidate_set(records)
        if candidates is None:
            return task
    task = task.asking_in(candidates, asked.template)
    if model.sides.by_task and task.name not in (model.config.tasks or []):
        told = Told.from_dict(task.sides())
        task.name = model.sides.chosen(told.inputs, told.answers, told.writes) or task.name
    return task


# --- labels ---


class Fields(dict):
    """A record; a field that it does not have is the user's mistake."""

    def __missing__(self, name: str) -> Any:
        raise Mismatch(f"no field {name!r}; {nearest(name, self)}")


@dataclass
class Named(Sequence):
    """Records in which a missing field is told in one line."""

    rows: Sequence[Record]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: Any) -> Any:
        return Fields(self.rows[i])


def read_labels(path: Path, records: Records, label: str = "label") -> Records:
    """Records with the labels of a text file, one a line in their order: a class name or its number.

    UserError: the file cannot be read, or holds another number of labels than there are records.
    """
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the labels {path} ({error})") from error
    while found and not found[-1]:
        found.pop()
    if len(found) != len(records):
        raise UserError(f"{path} holds {len(found)} labels, the data {len(records)} records; give one a line for each")
    names = [str(name) for name in records.info.get("classes", [])]
    given = [int(word) if word.isdecimal() and word not in names else word for word in found]
    return Records(Given(records.rows, label, given), dict(records.info))


@dataclass
class Given(Sequence):
    """Records with a field given apart."""

    rows: Sequence[Record]
    name: str
    values: list[Any]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: Any) -> Any:
        return {**self.rows[i], self.name: self.values[i]}


def named(records: Records) -> Records:
    """The same records, a field that one lacks told in one line."""
    return Records(Named(records.rows), dict(records.info))


# --- evaluation ---


def evaluate_on(
    model: PackedModel,
    processor: Processor,
    records: Records,
    asked: Asked,
    cache: Path | None = None,
    unread: Unread | None = None,
) -> tuple[Answers, Columns]:
    """Every record asked; the answers and what is saved of them (`generalist.tasks.measures.lines`).

    unread: takes those that cannot be read; without it one ends the evaluation.
    """
    task = task_for(asked, model, processor, records)
    answers = answer(task, named(task.answered(records)), Judge(model, task, cache), unread=unread)
    columns = predictions.kept(answers)
    if "choices" in columns and "answer" in columns and int(columns["choices"].max()) <= LISTED:
        listed = np.empty(len(columns["record"]), dtype=object)
        listed[:] = answers.log_p(slice(None)).tolist()
        columns["log_p"] = listed
    return answers, columns


def result_of(answers: Answers, columns: Columns, seed: int = 0) -> dict[str, Any]:
    """What result.json holds: the task, its candidates and every measure with its interval and chance."""
    task = answers.task
    head: dict[str, Any] = {"task": task.kind, "metric": task.metric, "scale": task.scale}
    if task.candidates is not None and (names := task.candidates.offered()):
        head["candidates"] = names
    found = measures.measure(task.line_kind, columns, seed, known=answers.derived)
    return head | {"about": answers.records.info.get("about", "")} | found


def zero_shot(
    model: PackedModel,
    processor: Processor,
    records: Records,
    inputs: dict[str, str],
    label: str = "label",
    classes: list[str] | None = None,
    template: str = "{}",
    scale: str | None = None,
    cache: Path | None = None,
    seed: int = 0,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Classification by names: result.json and one line a sample: {"id", "label", "answer", "log_p"}.

    log_p is left out where there are more than 100 candidates.
    """
    asked = Asked(Classify.kind, inputs, {}, classes, template, scale or model.config.zero_shot_scale)
    asked.keys = [f"label={label}"]
    answers, columns = evaluate_on(model, processor, records, asked, cache)
    task: Any = answers.task
    names = task.classes
    samples = [
        {"id": answers.ids[i] or str(i), "label": names[y], "answer": names[a]}
        for i, y, a in zip(*(columns[c].tolist() for c in ("record", "label", "answer")), strict=True)
    ]
    for sample, row in zip(samples, columns.get("log_p", ()), strict=False):
        sample["log_p"] = row
    return result_of(answers, columns, seed), samples


def save_result(out: Path, result: dict[str, Any], answers: Answers, columns: Columns) -> None:
    """result.json and predictions.jsonl; the plot of the reliability diagram beside them."""
    predictions.save(out / "predictions.jsonl", predictions.head_of(answers.task), answers.ids, columns)
    try:
        (out / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
        if "reliability" in result:
            plot_reliability(result, out / "reliability.svg")
    except OSError as error:
        raise UserError(f"cannot write to {out} ({error.strerror}); choose another --out") from error
