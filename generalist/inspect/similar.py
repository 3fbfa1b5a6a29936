"""The training samples nearest to a test sample by the model's own features: what it may have learnt the answer from.

Nearness is the cosine of the features at the question, over every training sample, or MOST of them evenly spread. A
sample asked at several places counts by the mean of their directions. Test samples come worst answered first.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn.functional import normalize

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Role, Span
from generalist.data.stream.source import Record, Records
from generalist.evaluate.answer import answer, samples
from generalist.inspect.base import Analyser
from generalist.inspect.drawn import small
from generalist.inspect.errors import worst
from generalist.inspect.training import Samples, Training
from generalist.model.objective import Objective
from generalist.tasks.base.task import Task

SHOWN = 8  # test samples
NEAREST = 5  # training samples of each
MOST = 20_000  # training samples that are encoded
BATCH = 64


@torch.no_grad()
def vectors(task: Task, records: Records, objective: Objective) -> tuple[np.ndarray, list[int], str]:
    """Unit vectors Float32[n D] of the records that can be read, their numbers, and what is wrong with the first other.

    UserError where none can be read.
    """
    model = objective.model
    was_training = model.training
    model.eval()
    role = Role(other=task.kinds_of(task.answers_in()), task=task.name)
    parts, sound, wrong = list[np.ndarray](), list[int](), ""
    for start in range(0, len(records), BATCH):
        sequences: list[list[Span]] = []
        for number in range(start, min(start + BATCH, len(records))):
            try:
                sequences.append(task.asked(records[number]))
                sound.append(number)
            except UserError as error:
                wrong = wrong or f"training sample {number}: {error}"
        if sequences:
            parts.append(_encoded(task, sequences, role, objective))
    model.train(was_training)
    if not parts:
        raise UserError(
            f"there is no sample to compare with; {wrong}" if wrong else "there is no sample to compare with"
        )
    return np.concatenate(parts), sound, wrong


def _encoded(task: Task, sequences: list[list[Span]], role: Role, objective: Objective) -> np.ndarray:
    packed = pack(sequences, role)
    if not len(packed.asked_owner):  # the task asks while it writes; its beginning is asked at the summary
        packed = pack([[task.question(), *sequence] for sequence in sequences], role)
    packed = packed.to(objective.model.device)
    found = normalize(objective.model.features(packed).float(), dim=-1).flatten(1)
    total = torch.zeros(len(sequences), found.shape[1], device=found.device)
    return normalize(total.index_add(0, packed.asked_owner, found), dim=-1).cpu().numpy()


class Similar(Analyser):
    """The analysis `--what similar`."""

    needs_answers: ClassVar[bool] = True

    def run(
        self, task: Task, records: Records, objective: Objective, training: Training | None = None
    ) -> dict[str, Any]:
        if training is None:
            raise UserError("no training data to look for similar samples in; name them with --training")
        answers = answer(task, records, objective)
        by, order, cost = worst(answers)
        order = order[:SHOWN]
        known = training.samples(task)
        if not len(known.records):
            raise UserError(f"there is no training sample to compare with in {known.where}")
        compared = known.records.spread(MOST)
        queries, *_ = vectors(task, answers.records.only(order), objective)
        theirs, sound, wrong = vectors(known.task, compared, objective)
        cosines = queries @ theirs.T
        out = []
        for line, row, number in zip(samples(answers, which=order), cosines, order, strict=True):
            best = np.argsort(-row, kind="stable")[:NEAREST]
            line |= {"input": small(line["input"]), "cost": float(cost[number])}
            line["near"] = [_neighbour(known, compared[sound[i]], sound[i], float(row[i])) for i in best]
            out.append(line)
        found: dict[str, Any] = {"task": task.name, "n": len(answers.records), "by": by, "where": known.where}
        found |= {"compared": len(sound), "training": len(known.records), "samples": out}
        return found | ({"unread": f"{len(compared) - len(sound)} cannot be read; {wrong}"} if wrong else {})

    def table(self, found: dict[str, Any]) -> str:
        """Each test sample and its nearest."""
        lines = [
            f"{found['task']}: nearest of {found['compared']} training samples, {found['where']}; "
            f"worst by {found['by']}"
        ]
        lines += [found["unread"]] if "unread" in found else []
        for one in found["samples"]:
            said = f"said {one['answers'][0][0]}" if one["answers"] else ""
            lines.append(f"{one['id']}: {one['truth']}; {said}")
            lines += [f"    {near['cosine']:.4f}  {near['id']}  {near['truth'][:60]}" for near in one["near"]]
        return "\n".join(lines)


def _neighbour(known: Samples, record: Record, number: int, cosine: float) -> dict[str, Any]:
    given = ((modality, name) for modality, name in known.task.inputs.items() if record.get(name) is not None)
    modality, name = next(given, ("", ""))
    shown = small(known.task.modalities[modality].show(record[name])) if name else {"kind": "text", "text": ""}
    return {"id": str(record.get("id", number)), "cosine": cosine, "truth": known.truth(record), "input": shown}
