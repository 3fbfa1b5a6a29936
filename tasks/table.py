"""The one explicit table of tasks; recipes name the classes themselves, this is for `generalist info`."""

from __future__ import annotations

from tasks.answer import Answer
from tasks.base import Task
from tasks.classify import Classify
from tasks.describe import Describe
from tasks.detect import Detect
from tasks.fill import Fill
from tasks.forecast import Forecast
from tasks.multilabel import MultiLabel
from tasks.regress import Regress
from tasks.restore import Restore, RestoreCodes
from tasks.retrieve import Retrieve
from tasks.segment import Segment

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
