"""Held-out evaluation: every task is a ranking of candidates under the one likelihood, so one routine serves all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from generalist.data.base.errors import UserError
from generalist.data.stream.source import Records
from generalist.evaluate import measures
from generalist.evaluate.unread import Unread, viewed
from generalist.evaluate.unread import batches as batches
from generalist.evaluate.unread import examples_of as examples_of
from generalist.evaluate.unread import readable as readable
from generalist.model.model import PackedModel
from generalist.model.objective import Objective
from generalist.tasks.base.reading import Reading
from generalist.tasks.base.task import Task
from generalist.tasks.candidates.likelihood import Unit
from generalist.tasks.measures.lines import Columns, Kept, joined
from generalist.tasks.measures.metrics import Mean, merge

CHUNK = 4096  # asked tokens whose likelihood over all candidates is held at once
HELD = 2**26  # bytes of likelihood that are held at once: among very many candidates, of fewer asked tokens


@dataclass
class Answers:
    """Everything asked of one task's split. queries: Float[M ... D]; members: Float[K D]; labels: [M ...].

    With partners as candidates, labels are the queries' keys Int[M] and keys those of the members Int[K]: every
    member with the query's key is a right answer.
    """

    task: Reading
    records: Records
    queries: Tensor
    members: Tensor
    labels: Tensor
    owner: Tensor  # Int[M], the record of each asked token
    score: Callable[[Tensor, Unit], Tensor]  # queries and members -> log p, the model's own
    keys: Tensor | None = None
    member_owner: Tensor | None = None  # Int[K], the record of each partner
    columns: Columns = field(
        default_factory=dict
    )  # what is kept of every answer (`generalist.tasks.measures.lines`): all follows from it
    derived: dict[str, float] = field(default_factory=dict)  # every measure of the columns
    metrics: dict[str, float] = field(default_factory=dict)  # the same, and what the task knows besides
    rows: dict[str, Tensor] = field(default_factory=dict)  # [M ...], what a tokenizer found besides tokens
    ids: list[str] = field(default_factory=list)  # names of the records, "" for one without
    views: int = 1  # more than one: queries are Float[M views ... D], and p is the mean over them

    def turned(self) -> Answers:
        """The members asked among the queries."""
        assert self.keys is not None and self.member_owner is not None
        return replace(
            self,
            queries=self.members,
            members=self.queries,
            labels=self.keys,
            keys=self.labels,
            owner=self.member_owner,
            member_owner=self.owner,
        )

    def log_p(self, rows: Tensor | slice) -> Tensor:
        return self.reader()(rows)

    @torch.no_grad()
    def reader(self) -> Callable[[Tensor | slice], Tensor]:
        """`log_p` for many blocks of asked tokens: members are brought to length one once, and held while it is."""
        members = Unit.of(self.members)

        @torch.no_grad()
        def log_p(rows: Tensor | slice) -> Tensor:
            found = self.score(self.queries[rows], members)
            return found if self.views == 1 else found.logsumexp(1) - math.log(self.views)

        return log_p

    @property
    def at_once(self) -> int:
        """Asked tokens whose likelihood over all candidates is held at once."""
        return max(1, min(CHUNK, HELD // (4 * max(1, len(self.members) * self.queries.shape[1:-1].numel()))))

    def targets(self, rows: Tensor | slice) -> Tensor:
        """What `Task.score` takes: the labels, or which members are right, Bool[m K]."""
        labels = self.labels[rows]
        return labels if self.keys is None else labels.unsqueeze(1) == self.keys


@torch.no_grad()
def answer(
    task: Task,
    records: Records,
    objective: Objective,
    progress: Callable[[int], Any] = lambda n: None,
    unread: Unread | None = None,
) -> Answers:
    """Encode a split and its candidates (each candidate once) and score it.

    unread: takes the samples that cannot be read; the answers are then of the others. Without it one ends it.
    """
    model: PackedModel = objective.model
    was_training = model.training
    model.eval()
    queries, labels, owner, partners, member_owner, seen = [], [], [], [], [], 0
    ids, sound = list[str](), list[int]()
    found: list[dict[str, Tensor]] = []
    for numbers, views in viewed(task, records, unread=unread):
        sound += numbers
        batch, *others = (view.to(model.device) for view in views)
        made = model.embedded(batch.inputs)
        first = model.features(batch.inputs, tokens=made.x)
        several = [first, *(model.features(view.inputs) for view in others)]
        queries.append(mean_or_all(several, batch.partners is not None) if others else first)
        owner.append(batch.inputs.asked_owner + seen)
        if batch.partners is not None:
            partners.append(model.features(batch.partners, candidate=True))
            labels.append(cast(Tensor, batch.keys))
            member_owner.append(cast(Tensor, batch.partner_owner) + seen)
        elif batch.inputs.labels is not None:
            found += [made.rows] if made.rows else []
            labels.append(batch.inputs.labels if made.labels is None else made.labels)
        seen += batch.inputs.sequences
        ids += batch.records
        progress(batch.inputs.sequences)
        if unread is not None:
            unread.check(len(sound), whole=False)
    if unread is not None:
        unread.check(len(sound))
    if not sound:
        raise UserError(f"task {task.name}: there is no record to evaluate")
    records = records if len(sound) == len(records) else records.only(sound)
    members = torch.cat(partners) if partners else objective.members(task.name)
    result = Answers(
        task,
        records,
        torch.cat(queries),
        members,
        torch.cat(labels),
        torch.cat(owner),
        partial(model.score, scale=task.scale),
        keys=torch.cat(labels)[torch.cat(member_owner)] if partners else None,
        member_owner=torch.cat(member_owner) if partners else None,
        rows={name: torch.cat([f[name] for f in found]) for name in found[0]} if found else {},
        ids=ids,
        views=1 if partners else len(views),
    )
    result = with_measures(result)  # by the model as it answers, not as it trains
    model.train(was_training)
    return result


def with_measures(result: Answers) -> Answers:
    """The same with what is kept of every answer and what follows from that."""
    backward = kept(result.turned(), "backward") if result.task.symmetric else []
    result.columns = joined([*kept(result), *backward])
    result.derived = measures.values(result.task.line_kind, result.columns)
    result.metrics = measured(result)
    return result


def kept(answers: Answers, direction: str = "forward", log_p: Callable[[slice], Tensor] | None = None) -> list[Columns]:
    """What the task keeps of its answers, whole records at a time; "record" is the record's number.

    log_p: of the asked tokens in a slice, in the place of the model's own.
    """
    tell = answers.reader() if log_p is None else log_p
    owner = answers.owner.cpu()
    starts = np.flatnonzero(np.diff(owner.numpy(), prepend=-1))  # of the records
    stops = np.append(starts[1:], len(owner))
    out, begin = [], 0
    while begin < len(starts):
        end = max(begin + 1, int(np.searchsorted(stops, starts[begin] + answers.at_once, side="right")))
        rows = slice(int(starts[begin]), int(stops[end - 1]))
        found = {name: value[rows].cpu() for name, value in answers.rows.items()}
        told, targets = tell(rows).cpu(), answers.targets(rows).cpu()
        out.append(answers.task.keep(Kept(told, targets, owner[rows], answers.records.__getitem__, found, direction)))
        begin = end
    return out


def measured(answers: Answers) -> dict[str, float]:
    """The measures of the kept columns, then those that a task's `score` and `measure` know beside them.

    `Task.score` is not asked again for what the columns say: whether it knows more is seen from one record's answers.
    """
    task = answers.task
    found = answers.derived | {name: answers.derived[known] for name, known in task.also_called.items()}
    first = slice(0, int((answers.owner == answers.owner[0]).sum()))
    own = {} if set(task.score(answers.log_p(first), answers.targets(first))) <= set(found) else _scored(answers)
    return own | task.measure(answers.records, answers.log_p, answers.owner, answers.rows) | found


def mean_or_all(views: list[Tensor], mean: bool) -> Tensor:
    """Features of several views, each Float[M ... D]: side by side Float[M views ... D], or their mean direction.

    The mean is for the side of a retrieval, which ranks and is ranked.
    """
    if mean:
        return torch.stack([normalize(view.float(), dim=-1) for view in views]).mean(0)
    return torch.stack(views, dim=1)


def _scored(answers: Answers) -> dict[str, float]:
    """`Task.score` over all answers; of a task that is asked both ways, its means and each direction."""
    forward = {name: mean.value for name, mean in _score(answers).items()}
    if not answers.task.symmetric:
        return forward
    backward = {name: mean.value for name, mean in _score(answers.turned()).items()}
    ways = {f"{n} forward": v for n, v in forward.items()} | {f"{n} backward": v for n, v in backward.items()}
    return {name: (forward[name] + backward[name]) / 2 for name in forward} | ways


def _score(answers: Answers) -> dict[str, Mean]:
    total: dict[str, Mean] = {}
    log_p = answers.reader()
    for start in range(0, len(answers.queries), answers.at_once):
        rows = slice(start, start + answers.at_once)
        total = merge(total, answers.task.score(log_p(rows), answers.targets(rows)))
    return total


def row(answers: Answers, baseline: dict[str, Any]) -> dict[str, Any]:
    """One line of metrics.json."""
    task = answers.task
    return {
        "metric": task.metric,
        "value": answers.metrics[task.metric],
        "chance": baseline.get("chance"),
        "baseline": baseline.get("value"),
        "baseline_name": baseline.get("baseline", "none"),
        "higher_is_better": task.higher_is_better,
        "n_test": len(answers.records),
        "synthetic": bool(answers.records.info.get("synthetic", False)),
        "about": answers.records.info.get("about", ""),
        "extra": answers.metrics,
    }


def reaches(line: dict[str, Any]) -> bool | None:
    """Whether the value is at least as good as the ordinary baseline; None where there is none."""
    if line.get("baseline") is None:
        return None
    better = line["value"] >= line["baseline"] if line["higher_is_better"] else line["value"] <= line["baseline"]
    return bool(better)


def samples(answers: Answers, count: int = 8, which: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """A few predictions with their input, for the report: evenly spread over the split, or the records `which`."""
    out = []
    task, records = answers.task, answers.records
    if task.candidates is not None:
        names = task.candidates.labels(task.modalities)
    else:
        names = [name for i in range(len(records)) for name in task.truths(records[i])]
    spread = np.linspace(0, len(records) - 1, min(count, len(records))).astype(int).tolist()
    for record in spread if which is None else which:
        asked = (answers.owner == record).nonzero().squeeze(1)
        if len(asked) == 0:
            continue
        log_p = answers.log_p(asked)
        source = records[record]
        more = {"rows": {name: value[asked] for name, value in answers.rows.items()}} if answers.rows else {}
        shown = task.show(source, log_p, answers.targets(asked), names, **more)
        out.append({"id": str(source.get("id", record)), **shown})
    return out


def space(all_answers: list[Answers], per_task: int = 200) -> dict[str, np.ndarray]:
    """Unit vectors of test inputs of all tasks in the shared space, with task and label: arrays for space.npz."""
    features, names, labels = [], [], []
    for answers in all_answers:
        queries = answers.queries.mean(1) if answers.views > 1 else answers.queries
        if queries.ndim != 2:
            continue
        _, first = np.unique(answers.owner.cpu().numpy(), return_index=True)
        rows = torch.as_tensor(first[np.linspace(0, len(first) - 1, min(per_task, len(first))).astype(int)])
        unit = normalize(queries[rows].float(), dim=-1)
        features.append(unit.cpu().numpy())
        names += [answers.task.name] * len(rows)
        labels += [answers.task.truth(answers.records[int(answers.owner[r])])[:40] for r in rows]
    if not features:  # forecasts alone: a slot asks many questions, none of which is the series' one vector
        return {"features": np.zeros((0, 2)), "task": np.array([], str), "label": np.array([], str)}
    return {"features": np.concatenate(features), "task": np.array(names), "label": np.array(labels)}


def joined_space(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of several tasks' `space` end to end; empty ones where there are none."""
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]} if parts else space([])
