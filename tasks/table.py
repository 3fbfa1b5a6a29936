"""The one explicit table of tasks; recipes name the classes themselves, this is for `generalist info`."""

from __future__ import annotations

from generalist.tasks.answer import Answer
from generalist.tasks.base import Task
from generalist.tasks.classify import Classify
from generalist.tasks.describe import Describe
from generalist.tasks.detect import Detect
from generalist.tasks.fill import Fill
from generalist.tasks.forecast import Forecast
from generalist.tasks.multilabel import MultiLabel
from generalist.tasks.regress import Regress
from generalist.tasks.restore import Restore, RestoreCodes
from generalist.tasks.retrieve import Retrieve
from generalist.tasks.segment import Segment

TASKS: dict[str, type[Task]] = {
    kind.kind: kind
    for kind in (
        Classify,
        MultiLabel,
        Retrieve,
        Fill,
        Describe,
        Answer,
        Regress,
        Forecast,
        Detect,
        Segment,
        Restore,
        RestoreCodes,
    )
}
