"""What tuning leaves: the table, per-sample predictions, the model, and small parts that are put on and taken off.

A part is the few tensors that a method trained, saved apart with a fingerprint of the weights that it belongs to.
Several parts can be held at once and swapped on one running model, request by request.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.hf.saved import weights_hash
from generalist.nn.prompts import PART_OF, heads_of, prompts_of
from generalist.tokenizers_mod.text.text_tokens import TextTokens

FINGERPRINT = "fingerprint"


def tunable(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of prompt tuning: prompts, summary bias, norms, linear heads."""
    return {n: p for n, p in model.named_parameters() if any(part in PART_OF for part in n.split("."))}


def fingerprint(model: nn.Module) -> str:
    """A hash of the weights that no part replaces: equal for all parts of one model, different for another model."""
    own = tunable(model)
    return weights_hash({name: value for name, value in model.state_dict().items() if name not in own})


def save_part(model: nn.Module, path: Path) -> None:
    """The prompt-tuned tensors of a model into one safetensors file."""
    tensors = {n: p.detach().cpu().contiguous() for n, p in tunable(model).items()}
    save_file(tensors, str(path), metadata={FINGERPRINT: fingerprint(model)})


def read_part(path: Path, model: nn.Module) -> dict[str, Tensor]:
    """A part's tensors. UserError when the file is damaged or belongs to another model.

    The model may be the one that the part was tuned from, which has no prompts, or one with more or fewer of them.
    """
    try:
        with safe_open(str(path), "pt") as file:
            found = (file.metadata() or {}).get(FINGERPRINT)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is not a readable prompt file ({error})") from error
    if found != fingerprint(model) or _sizes(tensors) != _sizes(tunable(model)):
        raise UserError(f"{path} holds the prompts of another model; load it on the model that it was tuned with")
    return tensors


def _sizes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    """The shapes of what every part of a model has: its norms."""
    return {name: value.shape for name, value in tensors.items() if not added(name)}


def added(name: str) -> bool:
    """Whether a tensor of a part is new to the model that was tuned: prompts, summary bias or linear head."""
    return any(PART_OF.get(word) not in (None, "layer norms") for word in name.split("."))


@contextmanager
def wearing(model: nn.Module, part: dict[str, Tensor]) -> Iterator[nn.Module]:
    """The model with a part put on; its own tensors come back afterwards, also after an error.

    Prompts, summary biases and linear heads that the part lacks are taken off; those that the model lacks are put on.
    """
    own = tunable(model)
    kept = {name: parameter.data for name, parameter in own.items() if not added(name)}
    changes = list(_changes(model, part))
    before = [(module, name, getattr(module, name)) for module, name, _ in changes]
    try:
        for name in kept:
            own[name].data = part[name].to(own[name].device, own[name].dtype)
        for module, name, value in changes:
            setattr(module, name, value)
        yield model
    finally:
        for name, data in kept.items():
            own[name].data = data
        for module, name, value in before:
            setattr(module, name, value)


def _changes(model: nn.Module, part: dict[str, Tensor]) -> Iterator[tuple[nn.Module, str, nn.Module | Tensor | None]]:
    """(module, attribute, value for the time being) of what a part adds to a model."""
    like = next(model.parameters())
    part = {name: tensor.to(like.device, like.dtype) for name, tensor in part.items()}
    yield model, "prompts", prompts_of(part)
    yield model, "linear_heads", heads_of(part)
    for path, module in model.named_modules():
        if isinstance(module, TextTokens):
            bias = part.get(f"{path}.spe_bias")
            yield module, "spe_bias", None if bias is None else nn.Parameter(bias, requires_grad=False)


@dataclass
class Keeper:
    """What is kept of every draw as it ends; nothing is written where `out` is None.

    answers/METHOD-SIZE-SEED.jsonl     every test record, from which each number follows (`predictions.derived`)
    prompts.safetensors, lora/         the last draw's prompts (`read_part`) and low-rank updates (peft's own folder)
    """

    out: Path | None
    task: Any
    ids: list[str]
    last: Any = None  # the last draw that changed the model
    measures: dict[str, list[dict[str, float]]] = field(default_factory=dict)

    def __call__(self, how: Any, draw: int, tuned: Any) -> None:
        """After a draw (`adapt.curve`)."""
        from generalist.evaluate.measures import values

        columns = answers_of(tuned)
        self.measures.setdefault(how.place, []).append(values(self.task.line_kind, columns))
        if self.out is None:
            return
        with _written(self.out):
            save_answers(self.out / "answers" / f"{how.place}-seed{how.seed + draw}.jsonl", self, columns)
            if how.random_encoder:
                return
            save_answers(self.out / "predictions.jsonl", self, columns)
            if tuned.model.prompts is not None and "deep prompts" in tuned.trained:
                save_part(tuned.model, self.out / "prompts.safetensors")
            if tuned.adapter is not None:
                settings, tensors = tuned.adapter
                settings.save_pretrained(str(self.out / "lora"))
                save_file(tensors, str(self.out / "lora" / "adapter_model.safetensors"))
        if tuned.changed:
            self.last = tuned


@contextmanager
def _written(out: Path) -> Iterator[None]:
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(f"cannot write to {out} ({error.strerror}); choose another --out") from error


def answers_of(tuned: Any) -> dict[str, Any]:
    """A draw's answers as columns (`tasks.measures.lines`), every candidate's log p among them where they are few."""
    from generalist.evaluate.zero_shot import LISTED
    from generalist.tasks.measures.lines import named

    columns: dict[str, Any] = {"record": np.arange(len(tuned.labels)), **named(tuned.log_p, tuned.labels)}
    if tuned.log_p.shape[1] <= LISTED:
        columns["log_p"] = np.empty(len(tuned.labels), dtype=object)
        columns["log_p"][:] = tuned.log_p.tolist()
    return columns


def save_answers(path: Path, keeper: Keeper, columns: dict[str, Any]) -> None:
    """The columns as the lines that `generalist eval` writes."""
    from generalist.evaluate import predictions

    predictions.save(path, predictions.head_of(keeper.task), keeper.ids, columns)


def save_tuned(out: Path, lines: list[dict[str, Any]], keeper: Keeper, processor: Any) -> None:
    """tuning.json, and in out/model the tuned model of the last draw, whose task it knows."""
    task = keeper.task
    with _written(out):
        (out / "tuning.json").write_text(json.dumps(lines, indent=1), encoding="utf-8")
        if keeper.last is None:  # a probe beside the model, or nothing, was trained
            return
        config = keeper.last.model.config
        config.task_sides = {**config.task_sides, task.name: task.sides()}
        keeper.last.model.save_pretrained(out / "model")
        processor.modalities = keeper.last.model.config.modalities
        processor.candidate_sets = {**processor.candidate_sets, task.name: task.candidates.to_dict()}
        processor.tasks = {**processor.tasks, task.name: task}
        processor.save_pretrained(out / "model")
