"""The one explicit table of tasks; recipes name the classes themselves, this is for `generalist info`."""

from __future__ import annotations

from generalist.tasks.base.task import Task
from generalist.tasks.kinds.answer import Answer
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.describe import Describe
from generalist.tasks.kinds.fill import Fill
from generalist.tasks.kinds.forecast import Forecast
from generalist.tasks.kinds.multilabel import MultiLabel
from generalist.tasks.kinds.regions.detect import Detect
from generalist.tasks.kinds.regions.segment import Segment
from generalist.tasks.kinds.regress import Regress
from generalist.tasks.kinds.restore import Restore, RestoreCodes
from generalist.tasks.kinds.retrieve import Retrieve

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
