"""Every kind of task shows records that it takes and records that it refuses, and passes what is tried on them."""

import pytest
import torch

from generalist.commands.check.lines import LeftOut
from generalist.commands.check.task import CHECKS
from generalist.commands.check.task_subject import Subject
from generalist.tasks.registry.table import TASKS

# what each of its questions has for an answer, and how many questions its good records ask
ASKED = {
    "classify": (6, torch.long),
    "multilabel": (6, torch.float32),
    "retrieve": (6, None),
    "fill": (4, torch.long),
    "describe": (6, torch.long),
    "answer": (6, torch.long),
    "regress": (6, torch.float32),
    "forecast": (6, torch.float32),
    "detect": (3, torch.long),
    "segment": (3, torch.long),
    "restore": (6, torch.float32),
    "restore_codes": (6, torch.long),
}
BOUNDED = [name for name in CHECKS if name not in ("save and load", "bf16")]  # these are the model's, tried elsewhere


@pytest.mark.parametrize("kind", TASKS)
def test_every_task_passes_on_its_own_examples(kind):
    assert set(ASKED) == set(TASKS)
    found = TASKS[kind].examples()
    assert len(found.good) >= 2 and found.bad  # a record that it refuses, beside those that lack a field
    subject, (records, answers) = Subject.of(TASKS[kind]), ASKED[kind]
    examples = subject.examples()
    assert len(examples) == records
    labels = subject.task.collate(examples).inputs.labels
    assert labels is None if answers is None else labels.dtype == answers and len(labels) >= records
    for check in BOUNDED:
        try:
            assert CHECKS[check](subject)
        except LeftOut:
            assert check in ("mask", "padded = packed", "batched = alone")
