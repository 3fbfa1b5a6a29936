"""`Analyser`: one look into a model while it answers a task's records, and the table of them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from generalist.data.base.errors import UserError, nearest
from generalist.data.stream.source import Records
from generalist.inspect.training import Training
from generalist.model.objective import Objective
from generalist.tasks.base.task import Task
from generalist.train.checkpoints import owned

ANALYSERS: dict[str, str] = {
    "heads": "generalist.inspect.heads:Heads",
    "errors": "generalist.inspect.errors:Errors",
    "similar": "generalist.inspect.similar:Similar",
    "explain": "generalist.inspect.explain.explain:Explain",
    "robust": "generalist.inspect.robust:Robust",
}


@runtime_checkable
class Analyser(Protocol):
    """It sees the model through taps only, and leaves it as it was. needs_answers: looks at records with a right answer
    alone."""

    needs_answers: ClassVar[bool]

    def run(
        self, task: Task, records: Records, objective: Objective, training: Training | None = None
    ) -> dict[str, Any]:
        """The findings as JSON, which the report draws. UserError where this model has nothing to look at.

        training: what the model was trained on, opened by those that compare with it.
        """
        ...

    def table(self, found: dict[str, Any]) -> str:
        """The findings as text."""
        ...


def analyser(kind: str, **settings: Any) -> Analyser:
    """The analyser of a name, with settings of its own. UserError names the nearest valid one."""
    if kind not in ANALYSERS:
        raise UserError(f"--what {kind}: there is no such analysis; {nearest(kind, ANALYSERS)}")
    module, _, name = ANALYSERS[kind].partition(":")
    return getattr(importlib.import_module(module), name)(**settings)


def save(out: Path, kind: str, found: dict[str, Any]) -> Path:
    """out/inspect/KIND.json. UserError where it cannot be written."""
    path = out / "inspect" / f"{kind}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if owned.is_run(out):
            owned.claim(out, [path.relative_to(out).as_posix()])
        path.write_text(json.dumps(found, indent=1), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}); choose another --out") from error
    return path
