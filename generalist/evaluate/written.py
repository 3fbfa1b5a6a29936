"""Captions written for a whole split, and what is saved and measured of them (BLEU-4, CIDEr)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from generalist.evaluate import measures, predictions
from generalist.evaluate.answer import Answers
from generalist.model.ask import written
from generalist.model.model import PackedModel
from generalist.tasks.measures.lines import Columns

HEAD = {"lines": "captions", "metric": "CIDEr"}


def captions(model: PackedModel, answers: Answers, steps: int = 21, beam: int = 1, batch: int = 32) -> Columns:
    """One caption a record, beside those that people gave it. steps: most sub-words, the end among them."""
    task: Any = answers.task
    steps = min(steps, task.modalities["text"].max_length)
    found = [best[0][0] for best in written(model, task, answers.records, batch, beam=beam, steps=steps)]
    references = np.empty(len(found), dtype=object)
    references[:] = [task.captions(answers.records[i]) for i in range(len(found))]
    return {"record": np.arange(len(found)), "written": np.array(found, dtype=object), "references": references}


def measured(
    model: PackedModel, answers: Answers, path: Path | None, seed: int = 0, resamples: int = measures.RESAMPLES
) -> dict[str, Any]:
    """Writes, saves to `path` where one is given, and measures; {} for a task that writes nothing."""
    if not answers.task.writes:
        return {}
    columns = captions(model, answers)
    if path is not None:
        predictions.save(path, HEAD, answers.ids, columns)
    return measures.intervals("captions", columns, seed, resamples)
