"""New rows answered in a batch by the folder of a run: every row a line, with probabilities or an interval."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generalist.data.base.errors import UserError, nearest
from generalist.data.sources.tabular import ENDINGS
from generalist.data.stream.source import ReadsAnew, Record, Records, from_sound
from generalist.data.tables.identity import is_key
from generalist.evaluate.together.combined import Weights, looked_at
from generalist.evaluate.unread import Unread, readable
from generalist.evaluate.widths import worn
from generalist.hf.predict import load_for_asking
from generalist.model.ask import in_precision, likelihoods
from generalist.recipe.load import read_recipe
from generalist.tasks.base.task import Task
from generalist.tasks.baselines.budget import budget
from generalist.tasks.baselines.guesses import Guessed
from generalist.tasks.baselines.ordinary import guesses
from generalist.tokenizers_mod.base.capabilities import Compares

SHOWN = 20  # classes up to which every probability is a column
BATCH = 256
ANSWER = ("answer", "probability", "low", "median", "high", "error")  # columns of what is said
HALF = 0.5  # probability from which one name of several is said


class Asked:
    """A run's model, ready to answer rows: read once, from its folder and nothing else."""

    def __init__(self, run: Path, task: str = "", model_only: bool = False) -> None:
        if not (run / "recipe.json").is_file():
            raise UserError(
                f"{run} is no run's folder (no recipe.json); rows are answered by one that fit or train wrote"
            )
        recipe = read_recipe(run / "recipe.json")
        self.model, processor = load_for_asking(run)
        tasks = {t.name: t for t in recipe.tasks}
        if task and task not in tasks:
            raise UserError(f"{run}: no task {task!r}; {nearest(task, tasks)}")
        if not task and len(tasks) > 1:
            raise UserError(f"{run} has several tasks, {', '.join(tasks)}; choose one with --task")
        self.task: Task = tasks[task or next(iter(tasks))]
        self.modalities = processor.built
        self.task.bind(self.modalities, processor.sets.get(self.task.name), {})
        self.ahead = self.task.foretells  # each row is a step of time, and the next are asked for
        if not (self.task.asks_once or self.ahead) or self.task.candidates is None:
            raise UserError(f"task {self.task.name}: rows of a table are no questions to a {self.task.kind}")
        self.notes: list[str] = []  # what a reader of the answers should know
        self.weights = None if model_only else weights_in(run, self.task.name)

    def records(self, data: Any) -> Records:
        """The records of a file, a folder or a data frame, answers left out. UserError: a column is not there."""
        source = self.task.source
        if not isinstance(source, ReadsAnew):
            raise UserError(f"task {self.task.name}: its data is no table; ask it with predict --image, --text ...")
        rows = source.unanswered(data)
        needed = self.columns()
        if len(rows):
            have = rows[0]
            wanted = [*needed, *(f for f in self.task.inputs.values() if f != "row")]
            if lacking := [c for c in wanted if c not in have]:
                hint = nearest(lacking[0], [c for c in have if c != "row"])
                raise UserError(f"{told(data)} lacks the column {lacking[0]!r}, which the model reads; {hint}")
        if not source.answered_in():  # no rows of a table
            return rows
        found = [record_of(rows[i], needed) for i in range(len(rows))]
        # what is left out of a row there is not what the model reads here
        notes = [note for note in rows.notes if not note.endswith("takes it in)")]
        return Records(found, {"notes": [*notes, *self.strange(found, source)]})

    def strange(self, rows: list[Record], source: ReadsAnew) -> list[str]:
        """What these rows hold that training did not: categories, and columns that nothing is known of."""
        of_row = [name for name, field in self.task.inputs.items() if field == "row"]
        cells = [row["row"] for row in rows]
        tables = [modality for name in of_row if isinstance(modality := self.modalities[name], Compares)]
        out = [line for table in tables for line in table.strange(self.task.name, cells)]
        known = {
            *self.columns(),
            *source.carried(),
            source.answered_in(),
            *self.task.inputs.values(),
            "id",
            "row",
            "label",
        }
        more = [name for name in (rows[0] if rows else ()) if name not in known]
        return [*out, *([f"{', '.join(more)}: not read, training had no such column"] if more else [])]

    def columns(self) -> list[str]:
        """The columns of the row that its modality was trained on."""
        of_row = [name for name, field in self.task.inputs.items() if field == "row"]
        return [column for name in of_row for column in self.modalities[name].sources(self.task.name)]

    def carried(self, records: Records) -> list[dict[str, Any]]:
        """Of every record the cells that no model reads and that name it: they tell the user whose answer it is."""
        source, rows = self.task.source, [records[i] for i in range(len(records))]
        found = {}
        names = source.carried() if isinstance(source, ReadsAnew) else list[str]()
        for name in names:
            cells = [row.get(name) for row in rows]
            plain = all(cell is None or isinstance(cell, str | int | float) for cell in cells)
            own = name not in (*self.task.inputs.values(), "id", *ANSWER)
            if own and plain and (len(set(cells)) > 1 or is_key(name, [c for c in cells if c is not None])):
                found[name] = cells
        return [{name: cells[i] for name, cells in found.items()} for i in range(len(rows))]

    def log_p(self, records: Records) -> tuple[Tensor, dict[int, str]]:
        """log p of every candidate for every record, Float[n K], NaN for those that cannot be read; why they cannot."""
        lost: dict[int, str] = {}
        found = [own.squeeze(0).float() for own, _ in likelihoods(self.model, self.task, records, BATCH, lost)]
        width = len(found[0]) if found else 0
        out = torch.full((len(records), width), float("nan"))
        there = [i for i in range(len(records)) if i not in lost]
        if found:
            out[there] = torch.stack(found)
        if self.weights is not None and there:
            out[there] = self.joined(out[there], records.only(there), self.weights).float()
        return out, lost

    def joined(self, log_p: Tensor, records: Records, weights: Weights) -> Tensor:
        """The model's log p with that of the ordinary method, which is fitted again on the training data.

        The model's alone, and a note, where these are not there any more or have changed.
        """
        if weights.way == "model":
            return weights.join(log_p, np.zeros(log_p.shape))
        try:
            train = self.task.open("train")
            if len(train) != weights.rows:
                raise UserError(f"{weights.rows} training rows were learnt, now there are {len(train)}")
            self.task.info = train.info
            val = looked_at(self.task, self.task.open("val"))
            val = readable(self.task, val, Unread("val", rate=1.0))
            with budget(0.0, strong=True):

                def ordinary(sound: Records) -> Guessed | None:
                    return guesses(self.task, sound, val, [records], weights.method, weights.refit)

                guessed = from_sound(ordinary, train, self.task.example)
        except UserError as error:
            self.notes.append(f"the model alone answers, without {weights.method}: {error}")
            return log_p
        return log_p if guessed is None else weights.join(log_p, guessed.log_p[1])

    def answers(self, records: Records) -> list[dict[str, Any]]:
        """A dict a record: "answer" and what stands beside it; {"error"} where it cannot be read."""
        if self.ahead:
            return self.steps(records)
        log_p, lost = self.log_p(records)
        with worn(self.task, self.wide()):
            return self._told(log_p, lost)

    def wide(self) -> list[float]:
        """How wide intervals are: of both together where both answer, else of the model."""
        own = [] if self.task.numbered is None else self.task.numbered.widths
        return own if self.weights is None or self.notes else self.weights.widths

    def _told(self, log_p: Tensor, lost: dict[int, str]) -> list[dict[str, Any]]:
        return [
            {"answer": None, "error": lost[i]} if i in lost else self._shown(row)
            for i, row in enumerate(log_p.double())
        ]

    def steps(self, records: Records) -> list[dict[str, Any]]:
        """A dict a series and step ahead: {"id", "step", "answer" (the median), "low", "high"}; one with "error"."""
        lost: dict[int, str] = {}
        found = list(likelihoods(self.model, self.task, records, BATCH, lost))
        there = [i for i in range(len(records)) if i not in lost]
        out = [{"id": records[i]["id"], "answer": None, "error": why} for i, why in lost.items()]
        told, weights = [own for own, _ in found], self.weights
        if weights is not None and there:
            whole = torch.cat(told)
            joined = self.joined(whole, records.only(there), weights)
            told = list(joined.float().split([len(own) for own in told]))
        for number, log_p, (_, rows) in zip(there, told, found, strict=True):
            with worn(self.task, self.wide()):
                said = self.task.read(records[number], log_p, rows)
            assert isinstance(said.value, list) and said.interval is not None
            steps = enumerate(zip(said.value, *said.interval, strict=True), 1)
            name = records[number]["id"]
            out += [{"id": name, "step": n, "answer": v, "low": low, "high": high} for n, (v, low, high) in steps]
        return out

    def _shown(self, log_p: Tensor) -> dict[str, Any]:
        """The likeliest name or number with what stands beside it: probabilities, or median and 80 % interval."""
        chosen = self.task.candidates
        assert chosen is not None
        said = chosen.read_off(log_p, self.modalities)
        if said.interval is not None:
            return {"answer": said.mean, "low": said.interval[0], "median": said.value, "high": said.interval[1]}
        names, p = chosen.choices(), chosen.shares(log_p).tolist()
        every = {f"p({name})": value for name, value in zip(names, p, strict=True)} if len(names) <= SHOWN else {}
        if said.apart:
            return {"answer": self.task.joined([n for n, v in zip(names, p, strict=True) if v >= HALF]), **every}
        return {"answer": said.names[0], "probability": said.probabilities[0], **every}


def weights_in(run: Path, task: str) -> Weights | None:
    """How the run's validation data weighs model and ordinary method; None where they were not joined."""
    try:
        found = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["tasks"][task].get("together")
    except (OSError, ValueError, KeyError):
        return None
    names = {one.name for one in fields(Weights)}
    return Weights(**{name: value for name, value in found.items() if name in names}) if found else None


def record_of(row: Record, columns: Sequence[str]) -> Record:
    """A row with the columns of its table modality alone in "row"."""
    return row | {"row": {name: row[name] for name in columns}}


def told(data: Any) -> str:
    return str(data) if isinstance(data, str | Path) else "the data frame"


def predict_file(
    run: Path, data: str, out: Path | None, task: str = "", model_only: bool = False, precision: str = "fp32"
) -> tuple[int, int]:
    """Answer every row of a file; the answers go to `out` as CSV, or to the standard output: (rows, not readable)."""
    if out is not None and out.suffix.lower() in ENDINGS and out.suffix.lower() != ".csv":
        raise UserError(f"answers are written as CSV: --out {out.with_suffix('.csv')} instead of {out.name}")
    asked = Asked(run, task, model_only)
    records = asked.records(data)
    for note in records.notes:
        print(f"  {asked.task.name}: {note}", file=sys.stderr)
    with in_precision(precision, asked.model.device):
        answers = asked.answers(records)
    for note in asked.notes:
        print(note, file=sys.stderr)
    names = list(dict.fromkeys(["id", *(k for answer in answers for k in answer)]))
    if not asked.ahead:
        carried = asked.carried(records)
        ids = [{"id": str(records[i].get("id", i))} | own for i, own in enumerate(carried)]
        answers = [own | answer for own, answer in zip(ids, answers, strict=True)]
        names = list(dict.fromkeys([*(k for own in ids for k in own), *names]))
    try:
        stream: Any = sys.stdout if out is None else out.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror}); choose another --out") from error
    try:
        writer = csv.DictWriter(stream, names, restval="")
        writer.writeheader()
        for answer in answers:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in answer.items()})
    finally:
        if out is not None:
            stream.close()
    return len(answers), sum("error" in answer for answer in answers)
