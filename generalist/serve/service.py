"""What a served model answers: each question put together from raw values, asked in company, told as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import torch

from generalist.adapt.kept import read_part, wearing
from generalist.data.base.errors import UserError, nearest
from generalist.data.base.files import is_regular
from generalist.data.batch.types import Span
from generalist.hf.detection import detection_task
from generalist.hf.predict import as_given, ask, load_for_asking, task_of
from generalist.model import ask as asking
from generalist.serve.batching import Batcher
from generalist.serve.index import Index, place_of
from generalist.tasks.base.task import Task


class Read(dict[str, Any]):
    """A record beside the question that was already made of it."""

    question: list[Span]


class Service:
    """A model folder, the prompts that may be worn, and the thread that answers."""

    def __init__(
        self,
        folder: Path,
        prompts: Mapping[str, Path],
        batcher: Batcher,
        precision: str = "fp32",
        index: Path | None = None,
    ) -> None:
        self.model, self.processor = load_for_asking(folder)
        self.model.eval()
        self.parts = {name: read_part(path, self.model) for name, path in prompts.items()}
        self.batcher, self.precision = batcher, precision
        asking.in_precision(precision, self.model.device)  # one that does not exist is said before anybody asks
        self.index: Index | None = None
        if index is not None:
            self.index = Index(index, self.model, self.processor, place_of(index)[1], precision)

    def about(self) -> dict[str, Any]:
        """What can be asked: modalities, tasks with their inputs and answers, prompts."""
        tasks = {
            name: {
                "kind": type(task).kind,
                "inputs": list(task.given()),
                "answers": task.candidates.choices()[:200] if task.candidates is not None else [],
            }
            for name, task in self.processor.tasks.items()
        }
        modalities = {
            name: {"words": one.reads_words} for name, one in self.processor.built.items() if name != "summary"
        }
        indexed = 0 if self.index is None else len(self.index.items)
        return {"modalities": modalities, "tasks": tasks, "prompts": sorted(self.parts), "indexed": indexed}

    def rank(
        self, raw: dict[str, Any], candidates: list[str] | None, task: str | None, prompts: str | None
    ) -> Future[Any]:
        """{"task", "answers": [[name, probability], ...]}; of numbers their mean and quantiles."""
        given = self.processor.task(task) if task else task_of(self.processor, raw, candidates is not None)
        if candidates is None and given.candidates is None:
            raise UserError(f"task {given.name!r} ranks what you give it; send candidates")
        return self._asked("rank", given, raw, candidates, prompts)

    def forecast(self, raw: dict[str, Any], task: str | None, prompts: str | None) -> Future[Any]:
        return self._asked("forecast", self._of(task, "forecasts", lambda t: t.foretells), raw, None, prompts)

    def describe(self, raw: dict[str, Any], task: str | None, prompts: str | None) -> Future[Any]:
        return self._asked("describe", self._of(task, "writes captions", lambda t: t.writes), raw, None, prompts)

    def detect(self, raw: dict[str, Any], names: list[str] | None, threshold: float, task: str | None) -> Future[Any]:
        if not 0 <= threshold <= 1:
            raise UserError(f"threshold {threshold} is no probability; give a number from 0 to 1")
        found: Any = copy(detection_task(self.processor, task))
        found = found.among(names) if names else found
        found.threshold = threshold
        return self._asked(("detect", threshold), found, raw, None, None, tuple(names or ()))

    def encode(self, raw: dict[str, Any], side: str, prompts: str | None) -> Future[Any]:
        """{"vector": [...]}: the unit vector of one record."""
        part = self._part(prompts)
        sequence = self.processor(**{name: [value] for name, value in raw.items()})[0]

        @torch.no_grad()
        def answer(sequences: list[Any]) -> Sequence[Any]:
            with self._wearing(part), asking.in_precision(self.precision, self.model.device):
                vectors = self.model.encode(sequences, side=side)
            return [{"vector": [round(v, 6) for v in row]} for row in vectors.float().tolist()]

        return self.batcher.ask(("encode", side, prompts, frozenset(raw)), sequence, answer)

    def nearest(self, raw: dict[str, Any], most: int) -> Future[Any]:
        """{"nearest": [{"item", "file", "modality", "cosine"}, ...]} of the index that is served."""
        index = self._index()
        if len(raw) != 1:
            raise UserError("the index is searched by one input; send one modality")
        ((modality, value),) = raw.items()
        sequence = self.processor(**{modality: [value]})[0]

        def answer(sequences: list[Any]) -> Sequence[Any]:
            found = index.nearest(index.encode(sequences, modality), most)
            return [{"nearest": [self._item(number, cosine) for number, cosine in row]} for row in found]

        return self.batcher.ask(("nearest", modality, most), sequence, answer)

    def _item(self, number: int, cosine: float) -> dict[str, Any]:
        item = self._index().items[number]
        return {"item": number, "file": item.file, "modality": item.modality, "cosine": round(cosine, 6)}

    def _index(self) -> Index:
        if self.index is None:
            raise UserError("no index is served; make one with generalist index, and serve with --index DIR")
        return self.index

    def look(self, number: int) -> Path:
        """The file of an item of the index. UserError where there is no such item, or the file is gone."""
        index = self._index()
        if 0 <= number < len(index.items) and is_regular(str(path := index.folder / index.items[number].file)):
            return path
        raise UserError("no such item; GET /about says how many there are")

    def _of(self, name: str | None, does: str, fits: Any) -> Task:
        found = {key: task for key, task in self.processor.tasks.items() if fits(task)}
        if not found:
            raise UserError(f"no task of this model {does}; its tasks: {', '.join(self.processor.tasks)}")
        if name is not None and name not in found:
            raise UserError(f"task {name!r} does not do that; {nearest(name, found)}")
        return found[name or next(iter(found))]

    def _part(self, prompts: str | None) -> dict[str, torch.Tensor] | None:
        if prompts is None:
            return None
        if prompts not in self.parts:
            raise UserError(f"no prompts {prompts!r} are served; {nearest(prompts, self.parts)}")
        return self.parts[prompts]

    def _asked(
        self,
        kind: Any,
        task: Task,
        raw: dict[str, Any],
        candidates: list[str] | None,
        prompts: str | None,
        more: tuple[str, ...] = (),
    ) -> Future[Any]:
        """The record's place among those that ask the same; what cannot be read is said before it waits."""
        part = self._part(prompts)
        asked, values = as_given(task, raw, candidates)
        record = Read(values)
        try:
            record.question = asked.asked(record)
        except (
            UserError
        ) as error:  # which speaks of a record's field; the sender gave modalities, and the cause names one
            raise (error.__cause__ if isinstance(error.__cause__, UserError) else error) from None
        key = (kind, task.name, tuple(candidates or ()), more, prompts, frozenset(raw))
        return self.batcher.ask(key, record, partial(self._answers, asked, part))

    def _wearing(self, part: dict[str, torch.Tensor] | None) -> AbstractContextManager[Any]:
        return nullcontext() if part is None else wearing(self.model, part)

    def _answers(self, task: Task, part: dict[str, torch.Tensor] | None, records: list[Any]) -> Sequence[Any]:
        ready: Any = copy(task)
        ready.asked = lambda record: record.question  # read once, in its request's own thread
        with self._wearing(part), asking.in_precision(self.precision, self.model.device):
            found = ask(self.model, self.processor, ready, records, asking.BATCH)
        return [{"task": task.name, **_plain(answer)} for answer in found]


def _plain(answer: Any) -> dict[str, Any]:
    """An answer as JSON: boxes without their masks' pixels, a number with its interval."""
    told = answer.to_dict()
    if answer.boxes or not told["answers"]:
        told["boxes"] = [{k: v for k, v in hit.items() if k != "mask"} for hit in answer.boxes]
    if isinstance(answer.value, float):
        told |= {"value": answer.value, "mean": answer.mean, "interval": answer.interval}
    if answer.text is not None:
        told["text"] = answer.text
    return told
