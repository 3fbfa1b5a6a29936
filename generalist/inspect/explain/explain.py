"""Which tokens of its input an answer rests on, by a trained mask and by attention rollout, and how faithful they are.

The head of the mask (`generalist.inspect.explain.tame`) is trained on one half of the records, drawn by turns, without
their labels; all that is told is of the other half. Beside both stand masks with the same values at random tokens.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.stream.source import Records
from generalist.inspect.asking.disturb import blanked
from generalist.inspect.asking.heats import heats
from generalist.inspect.asking.look import Look, frozen, looks
from generalist.inspect.base import Analyser
from generalist.inspect.explain import tame
from generalist.inspect.explain.faithful import SHARES, average_drop, drawn_anew, increase, topped, under, unit
from generalist.inspect.explain.rollout import flows
from generalist.inspect.training import Training
from generalist.model.objective import Objective
from generalist.tasks.base.task import Task

MOST = 1024  # records of each half
SHOWN = 12
LEAST = 8


class Explain(Analyser):
    """The analysis `--what explain`."""

    needs_answers: ClassVar[bool] = False

    def run(
        self, task: Task, records: Records, objective: Objective, training: Training | None = None
    ) -> dict[str, Any]:
        if len(records) < LEAST:
            why = "an explanation is trained on one half and measured on the other"
            raise UserError(f"{len(records)} records: {why}; give at least {LEAST}")
        learnt, told = (records.only(list(range(start, len(records), 2))).spread(MOST) for start in (1, 0))
        with frozen(objective.model):
            batches = list(looks(task, learnt, objective))
            head, layers = tame.train(batches)
            found = self._measured(task, told, objective, head)
        about = {"task": task.name, "n": len(told), "learnt": len(learnt), "layers": layers}
        return about | found

    def _measured(self, task: Task, records: Records, objective: Objective, head: tame.Tame) -> dict[str, Any]:
        p: dict[str, list[Tensor]] = defaultdict(list)
        rng, samples, lacking, divided = torch.Generator().manual_seed(0), list[dict[str, Any]](), "", False
        shown = set(np.linspace(0, len(records) - 1, min(SHOWN, len(records))).astype(int).tolist())
        for look in looks(task, records, objective):
            divided |= max((piece.length for piece, _ in look.spans()), default=0) > 1
            heat, answers = tame.heat(head, look)
            masks = {"T-TAME": unit(look, heat)}
            try:
                masks["rollout"] = flows(look)
            except UserError as error:
                lacking = str(error)
            blank = blanked(look)
            with torch.no_grad():
                p["clean"].append(look.of(look.log_p(), answers).exp().double())
            for name, mask in (masks | {"random": drawn_anew(look, masks["T-TAME"], rng)}).items():
                for share in SHARES:
                    p[f"{name} {share}"].append(under(look, blank, topped(look, mask, share), answers))
            samples += self._samples(look, records, answers, p["clean"][-1], masks, shown)
        if not divided:
            raise UserError(f"task {task.name}: its inputs are one token each, which no explanation can divide")
        known = {name: torch.cat(parts) for name, parts in p.items()}
        clean = known.pop("clean")
        measures: dict[str, dict[str, Any]] = defaultdict(dict)
        for name, own in known.items():
            method, part = name.rsplit(" ", 1)
            measures[method][f"{float(part):.0%}"] = {"AD": average_drop(clean, own), "IC": increase(clean, own)}
        found: dict[str, Any] = {"measures": dict(measures), "samples": samples}
        return found | ({"lacking": lacking} if lacking else {})

    def _samples(
        self,
        look: Look,
        records: Records,
        answers: Tensor,
        p: Tensor,
        masks: dict[str, Tensor],
        shown: set[int],
    ) -> list[dict[str, Any]]:
        out = []
        for place, number in enumerate(look.numbers):
            if number not in shown:
                continue
            record = records[number]
            answer = said(look, record, place, answers)
            line = {"id": str(record.get("id", number)), "answer": answer, "p": float(p[place])}
            out.append(line | {"heats": heats(look, place, record, masks)})
        return out

    def table(self, found: dict[str, Any]) -> str:
        """AD and IC of every method and share."""
        head = (
            f"{found['task']}: explanations of {found['n']} records, the mask learnt on {found['learnt']} others from "
            f"{', '.join(found['layers'])}; AD, average drop, less is better, and IC, increase in confidence, in %"
        )
        lines = [head]
        for name, shares in found["measures"].items():
            told = (f"{share} AD {m['AD']:.1f} IC {m['IC']:.1f}" for share, m in shares.items())
            lines.append(f"  {name:<8} top {'   top '.join(told)}")
        return "\n".join([*lines, *([f"  {found['lacking']}"] if "lacking" in found else [])])


def said(look: Look, record: Any, place: int, answers: Tensor) -> str:
    """What is answered to a record, in words; "" where several questions have no one answer."""
    task = look.task
    own = answers[look.packed.asked_owner == place].flatten()
    if len(own) != 1:
        return ""
    if task.candidates is not None:
        return task.candidates.labels(task.modalities)[int(own)]
    return f"partner {int(own)} of its batch"
