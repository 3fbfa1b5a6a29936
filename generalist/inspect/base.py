"""`Analyser`: one look into a model while it answers a task's records, and the table of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from generalist.data.base.errors import UserError, nearest
from generalist.data.base.named import named
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
    "paths": "generalist.inspect.paths:PathEffects",
    "keep": "generalist.inspect.keep:KeptTokens",
    "concepts": "generalist.inspect.concepts.concepts:Concepts",
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

    def files(self) -> dict[str, bytes]:
        """What else is kept of the last run beside its JSON, by path."""
        return {}

    def table(self, found: dict[str, Any]) -> str:
        """The findings as text."""
        ...


def analyser(kind: str, **settings: Any) -> Analyser:
    """The analyser of a name, with settings of its own. UserError names the nearest valid one."""
    if kind not in ANALYSERS:
        raise UserError(f"--what {kind}: there is no such analysis; {nearest(kind, ANALYSERS)}")
    return named(ANALYSERS[kind])(**settings)


def save(out: Path, kind: str, found: dict[str, Any], files: dict[str, bytes] | None = None) -> Path:
    """out/inspect/KIND.json, and the files out/inspect/KIND/... UserError where they cannot be written."""
    path = out / "inspect" / f"{kind}.json"
    every = {path: json.dumps(found, indent=1).encode()}
    every |= {path.with_suffix("") / name: content for name, content in (files or {}).items()}
    try:
        if owned.is_run(out):
            owned.claim(out, [one.relative_to(out).as_posix() for one in every])
        for one, content in every.items():
            one.parent.mkdir(parents=True, exist_ok=True)
            one.write_bytes(content)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}); choose another --out") from error
    return path
