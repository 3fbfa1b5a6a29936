"""How little of the input it takes to change an answer: one token disturbed at a time, by nature and on purpose.

fooled: share of the answers, right ones where labels are known, that change when one token is disturbed: another
candidate, of a number a median outside the 10 to 90 % of before. rise: mean rise of -log p of the answer, in nats.
temperature: of all attention, softmax(q k / (sqrt(d) T)), a defence: T > 1 looks less sharply (2111.10659).
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.batch.at import At
from generalist.data.stream.source import Records
from generalist.evaluate.answer import answer
from generalist.inspect.asking.attack import Attack, one_each
from generalist.inspect.asking.heats import heats
from generalist.inspect.asking.look import Look, frozen, looks
from generalist.inspect.asking.pool import Pool
from generalist.inspect.base import Analyser
from generalist.inspect.explain.explain import said
from generalist.inspect.heads import weighing
from generalist.inspect.training import Training
from generalist.model.objective import Objective
from generalist.tasks.base.task import Task
from generalist.tasks.candidates.base import changed

KINDS = ("natural", "adversarial")
MOST = 64  # records
PLACES = 4  # tokens of each
SHOWN, TRIED, STEPS = 4, 32, 10  # records that are drawn, tokens of each that are tried, steps of their attacks


class Temperature:
    """A tap that makes attention as if its scores had been divided by T. found: whether there was any."""

    def __init__(self, value: float) -> None:
        self.value, self.found = value, False

    def __call__(self, name: str, x: Tensor, at: At) -> Tensor:
        if not name.endswith(".weights"):
            return x
        self.found = True
        if self.value == 1:
            return x
        powered = (x / x.amax(-1, keepdim=True)) ** (1 / self.value)
        return powered / powered.sum(-1, keepdim=True)


@dataclass
class Robust(Analyser):
    """The analysis `--what robust`. temperature: also with all attention at T. places: tokens of each record, one at a
    time, drawn; the paper tries every one."""

    temperature: float | None = None
    places: int = PLACES

    needs_answers: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.temperature is not None and not 0 < self.temperature < float("inf"):
            raise UserError(f"--temperature {self.temperature:g}: it must be above 0, such as 1.5")

    def run(
        self, task: Task, records: Records, objective: Objective, training: Training | None = None
    ) -> dict[str, Any]:
        right = right_ones(task, records, objective)
        chosen = records if right is None else records.only(right)
        if not len(chosen):
            raise UserError(
                f"task {task.name}: none of {len(records)} records is answered rightly, so none can be fooled"
            )
        chosen = chosen.spread(MOST)
        with frozen(objective.model):
            pool = Pool(looks(task, records, objective))
            found = self._measured(task, chosen, objective, pool)
            found["samples"] = drawn(task, chosen.spread(SHOWN), objective, pool)
        about: dict[str, Any] = {"task": task.name, "metric": task.metric}
        about["of"] = "all" if right is None else "right ones"
        if right is not None:
            about["value"] = float(answer(task, records, objective).metrics[task.metric])
        found = about | found
        if self.temperature is not None:
            found["temperature"] = self._tempered(task, records, chosen, objective, pool, right is not None)
        return found

    def _tempered(
        self, task: Task, records: Records, chosen: Records, objective: Objective, pool: Pool, labelled: bool
    ) -> dict[str, Any]:
        assert self.temperature is not None
        tap = Temperature(self.temperature)
        with ExitStack() as inside:
            inside.enter_context(weighing(objective.model))
            inside.enter_context(objective.model.tapped(tap))
            inside.enter_context(frozen(objective.model))
            found: dict[str, Any] = {"T": self.temperature, **self._measured(task, chosen, objective, pool)}
            if labelled:
                found["value"] = float(answer(task, records, objective).metrics[task.metric])
        if not tap.found:
            raise UserError("--temperature: this model has no attention; none of its token mixers is one")
        return found

    def _measured(self, task: Task, records: Records, objective: Objective, pool: Pool) -> dict[str, Any]:
        """What one token does, at `places` of every record's tokens."""
        sums = {kind: {"fooled": 0.0, "rise": 0.0} for kind in KINDS}
        tried, rng = 0, torch.Generator().manual_seed(0)
        for look in looks(task, records, objective):
            with torch.no_grad():
                before = look.log_p()
            answers = look.chosen(before)
            for place in range(self.places):
                tokens = one_each(look, place)
                own = torch.zeros(look.count, dtype=torch.bool, device=before.device)
                own[look.packed.owner[tokens]] = True
                tried += int(own.sum())
                attack = Attack(look, tokens, rng, pool)
                for kind, x in (("natural", attack.natural()), ("adversarial", attack.adversarial(answers))):
                    with torch.no_grad():
                        after = look.log_p(x)
                    other = look.mean(_each(changed(task.candidates, before, after).double()))
                    rise = look.of(before, answers) - look.of(after, answers)
                    sums[kind]["fooled"] += float(other[own].sum())
                    sums[kind]["rise"] += float(rise[own].sum())
        found = {kind: {name: value / max(tried, 1) for name, value in own.items()} for kind, own in sums.items()}
        return {"n": len(records), "tried": tried, **found}

    def table(self, found: dict[str, Any]) -> str:
        """Fooled and rise, natural and adversarial, plain and at a temperature."""
        value = f"{found['metric']} {found['value']:.4g}; " if "value" in found else ""
        tries = f"one token of {found['n']} records ({found['of']}) disturbed, {found['tried']} tries"
        lines = [f"{found['task']}: {value}{tries}"]
        for T, own in ((1.0, found), *((own["T"], own) for own in [found.get("temperature")] if own)):
            told = (f"{kind}: fooled {own[kind]['fooled']:.3f}, rise {own[kind]['rise']:.3g}" for kind in KINDS)
            worth = f"  {found['metric']} {own['value']:.4g}" if "value" in own and own is not found else ""
            lines.append(f"  attention at T = {T:g}   {'   '.join(told)}{worth}")
        return "\n".join(lines)


def right_ones(task: Task, records: Records, objective: Objective) -> list[int] | None:
    """The records that are answered rightly; all with an answer, where answers are not right or wrong; None without
    labels."""
    fields = task.answer_fields()
    if fields and any(records[i].get(name) is None for i in range(len(records)) for name in fields):
        return None
    columns = answer(task, records, objective).columns
    if not {"label", "answer"} <= set(columns):
        return list(range(len(records)))
    wrong = set(columns["record"][columns["label"] != columns["answer"]].tolist())
    return [number for number in sorted(set(columns["record"].tolist())) if number not in wrong]


def _each(of_questions: Tensor) -> Tensor:
    return of_questions if of_questions.ndim == 1 else of_questions.flatten(1).mean(1)


def drawn(task: Task, records: Records, objective: Objective, pool: Pool) -> list[dict[str, Any]]:
    """A few records with the rise of -log p that each of their tokens brings alone."""
    out, rng = [], torch.Generator().manual_seed(0)
    for look in looks(task, records, objective):
        with torch.no_grad():
            before = look.log_p()
        answers = look.chosen(before)
        clean = look.of(before, answers)
        rises = {kind: torch.full((len(look.x),), torch.nan, device=look.x.device) for kind in KINDS}
        most = max(int((look.open & (look.packed.owner == b)).sum()) for b in range(look.count))
        for place in range(min(most, TRIED)):
            tokens = one_each(look, place)
            attack = Attack(look, tokens, rng, pool)
            for kind, x in (("natural", attack.natural()), ("adversarial", attack.adversarial(answers, STEPS))):
                with torch.no_grad():
                    rise = clean - look.of(look.log_p(x), answers)
                rises[kind][tokens] = rise[look.packed.owner[tokens]].to(rises[kind].dtype)
        out += [_sample(look, records, place, answers, clean, rises) for place in range(look.count)]
    return out


def _sample(
    look: Look, records: Records, place: int, answers: Tensor, clean: Tensor, rises: dict[str, Tensor]
) -> dict[str, Any]:
    record = records[look.numbers[place]]
    about = {"id": str(record.get("id", look.numbers[place])), "answer": said(look, record, place, answers)}
    return about | {"p": float(clean[place].exp()), "heats": heats(look, place, record, rises)}
