"""One input of any modality -> ranked candidates, from a saved model folder and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from generalist.data.base.errors import UserError, nearest
from generalist.hf.model import GeneralistModel
from generalist.hf.processor import GeneralistProcessor
from generalist.hf.saved import read_model
from generalist.model.decode import decode, vocabulary_features
from generalist.tasks.candidates import Names, Numbers
from generalist.tasks.origin import Origin


def load_model(folder: Path) -> tuple[GeneralistModel, GeneralistProcessor]:
    """The model of a run's folder or of a model folder."""
    home = folder / "model" if (folder / "model" / "config.json").is_file() else folder
    if not (home / "config.json").is_file():
        raise UserError(f"{folder} holds no trained model (no model/config.json); give the folder of a finished run")
    return read_model(home)


def predict(folder: Path, inputs: dict[str, str], candidates: list[str] | None, task: str | None) -> dict[str, Any]:
    """{"answers": [[name, probability], ...]}, likeliest first; of a forecast {"quantiles": ...} too."""
    if not inputs:
        raise UserError("no input given; add one such as --image FILE")
    model, processor = load_model(folder)
    for modality in inputs:
        if modality not in processor.built:
            raise UserError(f"this model has no modality {modality!r}; {nearest(modality, processor.built)}")
    raw = {modality: processor.built[modality].from_command_line(word) for modality, word in inputs.items()}
    task = task or _task_for(processor, list(raw), candidates)
    if task not in processor.tasks:
        raise UserError(f"this model has no task {task!r}; {nearest(task, processor.tasks)}")
    about = processor.tasks[task]
    if candidates is None and task not in processor.candidate_sets:
        raise UserError(f"task {task!r} ranks what you give it; add --candidates NAME NAME ...")
    chosen = processor.task_candidates(task) if candidates is None else Names(candidates)
    if about.get("horizon") and candidates is None:
        return forecast(model, processor, chosen, raw, {**about, "name": task})
    sequences = processor(**{modality: [value] for modality, value in raw.items()})  # a batch of one
    log_p = model.log_likelihood(sequences, chosen.sequences(processor.built), about["scale"], task)[0]
    return {"task": task, "answers": read_off(log_p, chosen, chosen.labels(processor.built))}


def _task_for(processor: GeneralistProcessor, given: list[str], candidates: list[str] | None) -> str:
    """The first task with these inputs (and with candidates of its own, when none are given)."""
    fitting = [n for n, t in processor.tasks.items() if set(t["inputs"]) == set(given)]
    if candidates is None:
        fitting = [n for n in fitting if n in processor.candidate_sets]
    elif not fitting:
        fitting = list(processor.tasks)
    if not fitting:
        raise UserError(f"no task of this model takes {' + '.join(given)} alone; give --candidates NAME NAME ...")
    if candidates is None and len(fitting) > 1:
        several = f"several tasks take {' + '.join(given)}: {', '.join(fitting)}"
        raise UserError(f"{several}; choose one with --task, or give --candidates")
    return fitting[0]


def read_off(log_p: torch.Tensor, chosen: Any, names: list[str]) -> list[list[Any]]:
    """What a set of candidates says of its members; of number candidates the quantiles."""
    if isinstance(chosen, Numbers):
        unit = [chosen.quantile(log_p, q) * chosen.std + chosen.mean for q in (0.1, 0.5, 0.9)]
        mean = chosen.expectation(log_p) * chosen.std + chosen.mean
        shown = {"mean": mean, "median": unit[1], "10 % quantile": unit[0], "90 % quantile": unit[2]}
        return [[name, f"{float(value):.6g}"] for name, value in shown.items()]
    return chosen.read(log_p, names)


def forecast(
    model: GeneralistModel, processor: GeneralistProcessor, numbers: Any, raw: dict[str, Any], about: dict[str, Any]
) -> dict[str, Any]:
    """Quantiles of every future step in the series' own units."""
    origin, levels = Origin(raw, processor.built, about), (0.1, 0.5, 0.9)
    log_p = model.log_likelihood([origin.question()], numbers.sequences(processor.built), about["scale"], about["name"])
    found = origin.quantiles(numbers, log_p, levels)
    quantiles = {str(q): values.tolist() for q, values in zip(levels, found, strict=True)}
    answers = [[f"step +{i + 1}", f"{v:.6g}"] for i, v in enumerate(quantiles["0.5"])]
    return {"answers": answers, "quantiles": quantiles}


def captions(
    folder: Any, inputs: dict[str, str], task: str | None = None, seed: int = 0, **options: Any
) -> list[tuple[str, float]]:
    """Captions of one input with their scores, best first, by a model folder. options: those of `decode`."""

    if len(inputs) != 1:
        raise UserError("give one input, such as --image FILE")
    model, processor = load_model(folder)
    writing_tasks = [name for name, about in processor.tasks.items() if about.get("writes")]
    if not writing_tasks:
        raise UserError("no task of this model writes captions; train one with a Describe task in its recipe")
    if task is None and len(writing_tasks) != 1:
        raise UserError(f"{len(writing_tasks)} tasks of this model write captions; choose one: {writing_tasks}")
    task = task or writing_tasks[0]
    chosen = processor.tasks.get(task)
    if chosen is None or not chosen.get("writes"):
        raise UserError(f"task {task!r} of this model does not write; {nearest(task, writing_tasks)}")
    modality, word = next(iter(inputs.items()))
    if modality not in processor.built:
        raise UserError(f"this model has no modality {modality!r}; {nearest(modality, processor.built)}")
    span = processor.span(modality, processor.built[modality].from_command_line(word))
    text, summary = processor.built["text"], processor.built["summary"]
    members = vocabulary_features(model, text, summary, task=task)
    options |= {"generator": torch.Generator(device=members.device).manual_seed(seed), "task": task}
    found = decode(model, [[summary.span(None), span]], text, members, chosen["scale"], **options)
    texts = [text.decode(found.words(0, rank)) for rank in range(found.ids.shape[1])]  # type: ignore[attr-defined]
    return list(zip(texts, found.score[0].tolist(), strict=True))
