"""Samples of a held-out split that cannot be read: counted, named and bounded by the rule that training has."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generalist.data.base.errors import Mismatch, UserError
from generalist.recipe.specs import FaultSpec
from generalist.train.faults import GRACE

FILE = "bad_samples.{split}.jsonl"


@dataclass
class Unread:
    """What was left out of one split. rate: share of its samples that may be, beyond the first few.

    mismatches: a class that is no candidate counts as well; False: it is a mistake in what was asked for.
    """

    split: str = "test"
    mismatches: bool = True
    rate: float = field(default_factory=lambda: FaultSpec().bad_rate)
    lines: list[dict[str, Any]] = field(default_factory=list)
    seen: int = 0
    first: str = ""

    def takes(self, error: UserError) -> bool:
        """Whether a record with this error may be left out."""
        return self.mismatches or not isinstance(error.__cause__, Mismatch)

    def add(self, error: UserError) -> None:
        """One more, whose error says task and record."""
        self.first = self.first or str(error)
        task, _, rest = str(error).removeprefix("task ").partition(", record ")
        record, _, reason = rest.partition(": ")
        self.lines.append({"split": self.split, "task": task, "record": record, "error": reason})

    def check(self, read: int) -> None:
        """UserError when too many of those seen so far are broken, or none of all could be read."""
        if self.lines and not read:
            raise UserError(f"no sample of the {self.split} split can be read; {self.first}")
        if len(self.lines) > GRACE and len(self.lines) > self.rate * self.seen:
            raise UserError(
                f"{len(self.lines)} of {self.seen} samples of the {self.split} split cannot be decoded, more than "
                f"faults.bad_rate={self.rate}; {self.first}"
            )

    def write(self, out: Path) -> str:
        """Lists them in the run's folder; what to say of them in a line, "" where there are none."""
        if not self.lines:
            return ""
        file = out / FILE.format(split=self.split)
        with file.open("a", encoding="utf-8") as listed:
            for line in self.lines:
                listed.write(json.dumps(line, ensure_ascii=False) + "\n")
        return f"{self.said} ({file.name})"

    @property
    def said(self) -> str:
        """Count and the first one, in a line; "" where all were read."""
        if not self.lines:
            return ""
        return f"{len(self.lines)} of {self.seen} {self.split} samples cannot be read; {self.first}"
