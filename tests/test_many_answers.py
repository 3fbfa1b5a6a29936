"""An evaluation among more candidates than its answers' likelihoods could be held of says what it says among few."""

import numpy as np
import pytest
import torch
from test_candidates import WORDS, modalities

from generalist.data.stream.source import Records
from generalist.evaluate import answer as evaluate
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.model.objective import Objective
from generalist.tasks.candidates import likelihood
from generalist.tasks.candidates.names import Names, Vocabulary
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.describe import Describe
from generalist.tasks.kinds.retrieve import Retrieve
from generalist.tokenizers_mod.base.modalities import modality_settings

ROWS = [{"text": word, "label": WORDS[(3 * i) % 35], "other": WORDS[(5 * i) % 11]} for i, word in enumerate(WORDS)]
FEW = WORDS[:30]
TASKS = {
    "classify": (
        Classify(name="classify", inputs={"text": "text"}, label="label", classes=FEW),
        Names(FEW),
    ),
    "describe": (Describe(name="describe", inputs={"text": "other"}, caption="text"), Vocabulary()),
    "retrieve": (Retrieve(name="retrieve", inputs={"text": "text"}, partners={"text": "other"}), None),
}


def answered(name, most=None):
    made = modalities()
    torch.manual_seed(0)
    config = GeneralistConfig(
        hidden_size=20, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        modalities=modality_settings(made), scales=list(TASKS),
    )  # fmt: skip
    task, chosen = TASKS[name]
    records = Records([row for row in ROWS if name != "classify" or row["label"] in FEW], {"classes": FEW})
    task.bind(made, chosen, records.info)
    objective = Objective(GeneralistModel(config), {} if chosen is None else {name: chosen}, made)
    return evaluate.answer(task, records, objective)


@pytest.mark.parametrize("name", TASKS)
def test_answers_that_are_not_held_at_once_are_measured_as_those_that_are(name, monkeypatch):
    held = answered(name)
    assert held.at_once == evaluate.CHUNK
    monkeypatch.setattr(evaluate, "HELD", 4 * len(held.members) * 3 + 1)
    seen = []
    keep = type(held.task).keep
    monkeypatch.setattr(type(held.task), "keep", lambda self, kept: seen.append(kept.log_p.shape) or keep(self, kept))
    found = answered(name)
    assert found.at_once == 3 and len(seen) >= 10
    for column, values in held.columns.items():
        if values.dtype.kind == "f":  # products of another number of rows are summed up in another order
            np.testing.assert_allclose(found.columns[column], values, rtol=5e-6, err_msg=column)
        else:
            assert values.tolist() == found.columns[column].tolist(), column
    assert held.metrics.keys() == found.metrics.keys()
    for metric, value in held.metrics.items():
        assert f"{found.metrics[metric]:.5g}" == f"{value:.5g}", metric


def test_members_are_brought_to_length_one_once_for_all_blocks_and_say_the_same(monkeypatch):
    held = answered("describe")
    alone = [held.log_p(slice(i, i + 3)) for i in range(0, len(held.queries), 3)]
    made = []
    inner = likelihood.normalize
    monkeypatch.setattr(likelihood, "normalize", lambda x, **how: made.append(len(x)) or inner(x, **how))
    monkeypatch.setattr(evaluate, "HELD", 4 * len(held.members) * 3 + 1)
    told = held.reader()
    blocks = [told(slice(i, i + 3)) for i in range(0, len(held.queries), 3)]
    assert all(torch.equal(one, other) for one, other in zip(blocks, alone, strict=True))
    evaluate.kept(held)
    assert len(blocks) > 3 and made.count(len(held.members)) == 2  # for the reader, and for what is kept


def test_a_likelihood_that_is_no_number_is_never_found():
    from generalist.tasks.measures import lines

    log_p = torch.full((1, 5), torch.nan)
    assert lines.named(log_p, torch.tensor([2]))["rank"].tolist() == [4]
    assert lines.gallery(log_p, torch.eye(5, dtype=torch.bool)[:1], "forward")["rank"].tolist() == [4]
