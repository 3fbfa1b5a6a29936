"""Where a model errs: its worst answers, what it takes for what, and the parts of the data where it errs most.

worst        the records whose right answer was given the least probability; of numbers, the largest absolute error;
             of retrieval, where the right partner stands furthest back
confusion    how often each class was answered for each: rows are right, columns answered; of many classes those with
             the most mistakes, the rest together, so that all records are counted once
slices       the task's measure by the values of any column (`generalist.inspect.slices`)
duplicates   records that stand in the training data, to the byte or nearly
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from generalist.data.base.errors import UserError
from generalist.data.stream.source import Records
from generalist.evaluate.answer import Answers, answer, samples
from generalist.evaluate.leakage import find_leaks
from generalist.inspect.base import Analyser
from generalist.inspect.drawn import small
from generalist.inspect.slices import slices
from generalist.inspect.training import Training
from generalist.model.objective import Objective
from generalist.tasks.base.task import Task
from generalist.tasks.measures.lines import LEAST, Columns

SHOWN = 12  # worst answers, and duplicates, that are shown
CLASSES = 20  # of a confusion matrix, the others together
PAIRS = 10  # of classes most often confused
P = "p of the right answer"


def _told(cost: float) -> str:
    return f"{cost:.4g}"


def _told_p(nll: float) -> str:
    return f"{np.exp(-nll):.2g}"


def _marked(columns: Columns) -> np.ndarray:
    p = np.where(columns["truth"] > 0, columns["p"], 1 - columns["p"])
    return -np.log(np.maximum(p.astype(float), np.exp(LEAST)))


# kind of line -> what its cost is called, the cost of every answer, of a record with several the mean; how it is told
COSTS: dict[str, tuple[str, Callable[[Columns], np.ndarray], Callable[[float], str]]] = {
    "named": (P, lambda columns: np.nan_to_num(columns["nll"].astype(float), nan=-LEAST), _told_p),
    "numbers": ("absolute error", lambda columns: np.abs(columns["median"] - columns["value"]), _told),
    "gallery": ("rank of the right partner", lambda columns: columns["rank"] + 1.0, _told),
    "marks": (P, _marked, _told_p),
}


def worst(answers: Answers) -> tuple[str, list[int], np.ndarray]:
    """What a cost is called, the records with the highest first, and the cost by record."""
    task = answers.task
    if task.line_kind not in COSTS:
        raise UserError(
            f"task {task.name} answers with {task.line_kind}, which are not right or wrong one by one; errors are told "
            f"of answers of the kinds {', '.join(COSTS)}"
        )
    name, cost, _ = COSTS[task.line_kind]
    record, values = answers.columns["record"], cost(answers.columns)
    count = np.bincount(record, minlength=len(answers.records))
    total = np.bincount(record, weights=values, minlength=len(answers.records))
    mean = np.divide(total, count, out=np.full(len(total), -np.inf), where=count > 0)
    order = np.argsort(-mean, kind="stable")
    return name, order[count[order] > 0].tolist(), mean


def confusion(columns: Columns, names: list[str], most: int = CLASSES, shown_pairs: int = PAIRS) -> dict[str, Any]:
    """{"names", "counts" [right][answered], "pairs" [right, answered, count] of the most frequent mistakes}.

    most: classes that stand in the matrix by themselves, the others together. "seen": how many are right or answered.
    """
    label, said = columns["label"].astype(int), columns["answer"].astype(int)
    missed = label != said
    mistakes = np.bincount(label[missed & (label >= 0)], minlength=len(names))
    mistakes = mistakes + np.bincount(said[missed], minlength=len(names))
    seen = np.unique(np.concatenate([label[label >= 0], said]))
    kept = np.sort(seen[np.argsort(-mistakes[seen], kind="stable")][:most])
    place = np.full(len(names) + 1, len(kept))  # the last is a right answer that is no candidate
    place[kept] = np.arange(len(kept))
    counts = np.zeros((len(kept) + 1, len(kept) + 1), int)
    np.add.at(counts, (place[label], place[said]), 1)
    rest = bool(counts[-1].sum() + counts[:, -1].sum())
    shown = [names[i] for i in kept] + ([] if not rest else ["others"] if len(seen) > most else ["no candidate"])
    pairs, often = np.unique(np.stack([label[missed], said[missed]]), axis=1, return_counts=True)
    order = np.argsort(-often, kind="stable")[:shown_pairs]
    called = [*names, "no candidate"]
    return {
        "names": shown,
        "counts": counts[: len(shown), : len(shown)].tolist(),
        "classes": len(names),
        "seen": len(seen),
        "pairs": [[called[pairs[0, i]], called[pairs[1, i]], int(often[i])] for i in order],
    }


class Errors(Analyser):
    """The analysis `--what errors`."""

    needs_answers: ClassVar[bool] = True

    def run(
        self, task: Task, records: Records, objective: Objective, training: Training | None = None
    ) -> dict[str, Any]:
        answers = answer(task, records, objective)
        by, order, cost = worst(answers)
        leaks, compared = duplicates(training, answers)
        lines = samples(answers, which=order[:SHOWN])
        for line, number in zip(lines, order, strict=False):
            line["input"] = small(line["input"])
            line |= {"cost": float(cost[number]), "told": COSTS[task.line_kind][2](float(cost[number]))}
            if number in leaks:
                line["note"] = f"also in training: {leaks[number]['training']} ({leaks[number]['how']})"
        found = {"task": task.name, "metric": task.metric, "value": float(answers.metrics[task.metric])}
        found |= {"n": len(answers.records), "by": by, "worst": lines}
        if {"label", "answer"} <= set(answers.columns) and task.candidates is not None:
            found["confusion"] = confusion(answers.columns, task.candidates.labels(task.modalities))
        found["slices"] = slices(task, answers.columns, answers.records)
        return found | ({} if compared is None else {"duplicates": compared})

    def table(self, found: dict[str, Any]) -> str:
        """The worst, the classes confused, the slices and the duplicates."""
        lines = [
            f"{found['task']}: {found['metric']} {found['value']:.4g} over {found['n']} records; worst by {found['by']}"
        ]
        for one in found["worst"]:
            said = f"said {one['answers'][0][0]}" if one["answers"] else ""
            note = f" ({one['note']})" if "note" in one else ""
            lines.append(f"  {one['told']:>10}  {one['id']}: {one['truth']}; {said}{note}")
        for right, said, count in found.get("confusion", {}).get("pairs", ()):
            lines.append(f"  {count} times {right!r} was taken for {said!r}")
        for column in found["slices"]:
            values = ", ".join(f"{v['value']} {v['measure']:.4g} (n={v['n']})" for v in column["values"])
            lines.append(f"  {found['metric']} by {column['column']}: {values}")
        if "duplicates" in found:
            lines.append(f"  {found['duplicates']['said']}")
        return "\n".join(lines)


def duplicates(training: Training | None, answers: Answers) -> tuple[dict[int, dict[str, Any]], dict[str, Any] | None]:
    """{record: its leak}, and what is told of them; where the training data cannot be opened, why not."""
    if training is None:
        return {}, None
    try:
        known, fields, where = training.compared()
        leaks = find_leaks(known, answers.records, fields)
    except UserError as error:
        return {}, {"said": f"not compared with training data: {error}", "count": None, "samples": []}
    of = f"{len(leaks)} of {len(answers.records)} records"
    said = f"{of} are, to the byte or nearly, among {len(known)} training samples"
    few = [{key: leak[key] for key in ("id", "how", "training")} for leak in leaks[:SHOWN]]
    return {leak["record"]: leak for leak in leaks}, {"said": f"{said}: {where}", "count": len(leaks), "samples": few}
