"""Captions written for a whole split, and what is saved and measured of them (BLEU-4, CIDEr)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from generalist.evaluate import measures, predictions
from generalist.evaluate.answer import Answers
from generalist.hf.model import GeneralistModel
from generalist.model.decode import decode, vocabulary_features
from generalist.tasks.lines import Columns

HEAD = {"lines": "captions", "metric": "CIDEr"}


def captions(model: GeneralistModel, answers: Answers, steps: int = 21, beam: int = 1, batch: int = 32) -> Columns:
    """One caption a record, beside those that people gave it. steps: most sub-words, the end among them."""
    task: Any = answers.task
    text, summary = task.modalities["text"], task.modalities["summary"]
    name = task.name if task.name in model.sides.trained else None  # a task of the model's own, or a kind of task
    members = vocabulary_features(model, text, summary, task.inputs, name)
    steps = min(steps, text.max_length)
    written, references = [], []
    for start in range(0, len(answers.records), batch):
        records = [answers.records[i] for i in range(start, min(start + batch, len(answers.records)))]
        inputs = [task.beginning(record) for record in records]
        found = decode(model, inputs, text, members, task.scale, beam=beam, steps=steps, task=name)
        written += [text.decode(found.words(row)) for row in range(len(inputs))]
        references += [task.captions(record) for record in records]
    given = np.empty(len(references), dtype=object)
    given[:] = references
    return {"record": np.arange(len(written)), "written": np.array(written, dtype=object), "references": given}


def measured(
    model: GeneralistModel, answers: Answers, path: Path | None, seed: int = 0, resamples: int = measures.RESAMPLES
) -> dict[str, Any]:
    """Writes, saves to `path` where one is given, and measures; {} for a task that writes nothing."""
    if not answers.task.about().get("writes"):
        return {}
    columns = captions(model, answers)
    if path is not None:
        predictions.save(path, HEAD, answers.ids, columns)
    return measures.intervals("captions", columns, seed, resamples)
