"""What no tokenizer can read ends in one line that names task, sample and field."""

import pytest
import torch
from small import Listed

from generalist.data.base.errors import UserError
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.stream import Feed, Steps
from generalist.evaluate.answer import batches
from generalist.tasks.kinds.classify import Classify
from generalist.tokenizers_mod.base.examples import raw_at
from generalist.tokenizers_mod.base.modalities import MODALITIES, build_modalities, modality_class

NAN = float("nan")
SHOWN = {name: modality_class(name).examples() for name in MODALITIES}
BAD = [
    pytest.param(name, raw, says, id=f"{name}-{number}")
    for name, shown in SHOWN.items()
    for number, (raw, says) in enumerate(shown.bad)
]


def task_of(modality):
    task = Classify(name="judge", source=None, inputs={modality: "payload"}, classes=["no", "yes"], batch=1)
    found = build_modalities({name: dict(SHOWN[name].settings) for name in ("summary", "text", modality)})
    task.bind(found, None, {})
    task.adopt(task.candidate_set(Listed({"train": []}).open("train")))
    return task


@pytest.mark.parametrize(("modality", "raw", "says"), BAD)
def test_a_bad_input_ends_in_one_line_with_task_sample_and_field(modality, raw, says, tmp_path):
    task = task_of(modality)
    record = {"id": "sample-7", "payload": raw_at(raw, tmp_path), "label": 1}
    records = Listed({"train": [record]}).open("train")
    steps = Steps({"judge": Feed(records, task.example, task.collate, 1)}, Schedule(["judge"], [1.0]), 0)
    for run in (lambda: steps[0], lambda: list(batches(task, records))):
        with pytest.raises(UserError, match=says) as caught:
            run()
        line = str(caught.value)
        assert "task judge, record sample-7: field 'payload': " in line and "\n" not in line


def test_a_row_of_missing_values_is_the_missing_token_of_every_column():
    table = build_modalities({"table": dict(SHOWN["table"].settings)})["table"]
    spans = [table.span(table.read({"age": age, "city": city})) for age, city in ((None, NAN), ("", "?"))]
    assert torch.equal(spans[0].data["category"], torch.ones(2, dtype=torch.long))
    assert torch.equal(spans[1].data["category"], spans[0].data["category"]) and not spans[1].data["value"].any()
