"""Masked modelling over a codebook: one mechanism for every modality whose tokens show something, on real records."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from small import Listed

from generalist.data.base.errors import UserError
from generalist.data.sources.embedded import Embedded
from generalist.data.stream.source import Records
from generalist.evaluate.answer import answer
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.model.objective import Objective
from generalist.recipes import all_modalities
from generalist.tasks.baselines.ordinary import baseline
from generalist.tasks.candidates.codebook import Codes, learn_codes
from generalist.tasks.candidates.names import candidate_set
from generalist.tasks.kinds.restore import Restore, RestoreCodes
from generalist.tokenizers_mod.base.modalities import build_modalities, modality_settings
from generalist.tokenizers_mod.geometry.graph import EDGE, NODE
from generalist.tokenizers_mod.tables.tokens import MISSING

EMBEDDED = {
    "image": ({"size": 16, "patch": 4}, "digits", "image"),
    "audio": ({"rate": 8000, "mels": 20, "patch": [20, 4], "stride": [20, 4]}, "tones", "audio"),
    "points": ({"groups": 16, "size": 8, "hidden": 8}, "solids", "points"),
    "series": ({"patch": 8}, "series", "past"),
    "table": ({}, "wine", "row"),
}
# modality -> settings, task of the joint recipe, field
SHARED = {
    "graph": ({}, "mutag", "graph"),
    "spectral": ({"bands": 4, "patch": 1}, "landsat", "cube"),
    "imu": ({"channels": 6, "patch": 8, "window": 256}, "watch", "signal"),
    "video": ({"size": 16, "patch": 8, "frames": 8, "tubelet": 2}, "lpc_action", "clip"),
    "xray": ({"size": 28, "patch": 7}, "pneumonia", "image"),
}


@dataclass
class Some:
    """The first records of each split of another source."""

    source: object
    count: int = 60

    def open(self, split):
        records = self.source.open(split)
        return Records([records[i] for i in range(min(self.count, len(records)))], records.info)


def prepared(modality, settings, source, field, **more):
    """The task as it stands after `prepare`, and its objective."""
    torch.manual_seed(0)
    found = build_modalities({"summary": {}, modality: dict(settings)})
    task = RestoreCodes(name="r", source=source, inputs={modality: field}, **{"codes": 12, "rate": 0.3} | more)
    records = source.open("train")
    task.learn(found, records)
    task.bind(found, None, records.info)
    task.adopt(task.candidate_set(records))
    config = GeneralistConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        modalities=modality_settings(found),
        scales=["default", task.scale],
    )
    return task, Objective(GeneralistModel(config), {task.name: task.candidates}, found)


def check(task, objective, modality):
    """Hidden tokens show nothing, labels are right, the loss trains, evaluation and its baseline have all parts."""
    records, tokenizer = task.source.open("train"), task.modalities[modality]
    codes = task.candidates
    assert 2 <= codes.size <= 12
    again = candidate_set(codes.to_dict())
    for i in range(3):
        whole = task.input_spans(records[i])[0]
        shown = task.example(records[i]).inputs[1]
        rest = torch.ones(whole.length, dtype=torch.bool)
        rest[shown.asked] = False
        for key, value in whole.data.items():
            blank = tokenizer.content().get(key)
            assert torch.equal(shown.data[key][rest], value[rest])
            if blank is None:
                assert torch.equal(shown.data[key], value), key
            else:
                assert bool((shown.data[key][shown.asked] == blank).all()), key
        own = {k: v[shown.asked] for k, v in whole.data.items()}
        assert torch.equal(shown.labels, codes.assign(own)) and torch.equal(again.assign(own), shown.labels)
    batch = task.collate([task.example(records[i]) for i in range(8)])
    loss = objective(batch)
    loss.backward()
    assert loss.isfinite().all() and objective.model.encoder.layers[0].mlp.up.weight.grad.abs().sum() > 0
    found = answer(task, Records(records[:20]), objective)
    assert 0 <= found.metrics["accuracy"] <= 1 and np.isfinite(found.metrics["nll"])
    small = Records([records[i] for i in range(20)])
    line = baseline(task, small, small, small)
    assert 0 <= line["chance"] <= line["value"] + 0.3 and line["baseline"] in ("commonest code", "code before")


@pytest.mark.parametrize("modality", list(EMBEDDED))
def test_every_modality_restores_its_own_tokens_on_embedded_sets(modality):
    settings, name, field = EMBEDDED[modality]
    check(*prepared(modality, settings, Some(Embedded(name)), field), modality)


@pytest.mark.parametrize("modality", list(SHARED))
def test_every_modality_restores_its_own_tokens_on_real_files(modality, shared):
    settings, name, field = SHARED[modality]
    source = {t.name: t for t in all_modalities.tasks(shared / "data")}[name].source
    check(*prepared(modality, settings, Some(source), field), modality)


def rings(count=40):
    """Graphs whose node's category is that of both neighbours plus one, round and round."""
    rows = []
    for i in range(count):
        n = 3 * (2 + i % 3)
        edges = [[a, (a + 1) % n] for a in range(n)]
        rows.append({"id": f"r{i}", "graph": {"nodes": [(a + i) % 3 for a in range(n)], "edges": edges}})
    return Listed({"train": rows})


def test_a_node_is_asked_for_its_label_and_an_edge_without_one_never_is():
    task, _ = prepared("graph", {}, rings(), "graph")
    assert task.candidates.size == 3
    assert task.candidates.rows("type").tolist() == [NODE] * 3
    shown = task.example(task.source.open("train")[0]).inputs[1]
    assert (shown.data["type"][shown.asked] == NODE).all() and (shown.data["type"] == EDGE).any()


def test_a_cell_is_asked_among_the_codes_of_all_columns_and_a_missing_one_never_is():
    rows = [
        {"id": str(i), "row": {"size": float(i % 5), "city": "ab"[i % 2], "note": None if i % 3 else "x"}}
        for i in range(30)
    ]
    task, _ = prepared("table", {}, Listed({"train": rows}), "row", codes=9, rate=0.9)
    codes = task.candidates
    assert codes.kinds_of_codes().unique().tolist() == [0, 1, 2]
    assert (codes.rows("category") != MISSING).all() and codes.size <= 9
    for row in rows[:6]:
        span = task.example(row).inputs[1]
        asked = span.data["category"][span.asked]
        assert (asked == MISSING).all() and (span.labels >= 0).all()  # a hidden cell looks like a missing one
        column = codes.rows("column")[span.labels]
        assert torch.equal(column, span.data["column"][span.asked])
        present = [i for i, k in enumerate(row["row"]) if row["row"][k] is not None]
        assert set(span.asked.tolist()) <= set(present)


def test_it_learns_what_the_visible_cells_tell_of_the_hidden_one():
    rows = [
        {"id": f"{i}x", "row": {"size": float(i % 5), "city": "abcde"[i % 5], "note": "pq"[i % 2]}} for i in range(40)
    ]
    task, objective = prepared("table", {"unknown": 0.0}, Listed({"train": rows}), "row", rate=0.34)
    records = task.source.open("train")
    before = answer(task, records, objective).metrics["accuracy"]
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-2)
    for step in range(120):
        draw = torch.Generator().manual_seed(step)
        batch = task.collate([task.example(records[int(i)], draw) for i in torch.randint(40, (16,), generator=draw)])
        optimizer.zero_grad()
        (objective(batch) / batch.count).backward()
        optimizer.step()
    after = answer(task, records, objective).metrics["accuracy"]
    line = baseline(task, records, records, records)
    assert after > before and after > line["value"] + 0.1


def test_codes_are_the_clusters_of_what_tokens_show():
    modality = build_modalities({"image": {"size": 4, "patch": 2}})["image"]
    flat = torch.stack([torch.full((1, 4, 4), v) for v in (0.1, 0.5, 0.9)])
    spans = [modality.span(f + 0.01 * torch.rand(1, 4, 4)) for f in flat for _ in range(5)]
    codes = learn_codes(modality, spans, 3)
    levels = sorted(float(v) * modality.std + modality.mean for v in codes.rows("patch").mean(1))
    np.testing.assert_allclose(levels, [0.105, 0.505, 0.905], atol=0.005)
    assert not codes.rows("position").any()  # a code has no place
    near = codes.assign(modality.span(torch.full((1, 4, 4), 0.47)).data)
    assert len(near.unique()) == 1 and abs(float(codes.rows("patch")[near[0]].mean()) * 0.5 + 0.5 - 0.505) < 0.01


def test_a_kind_that_training_never_saw_is_not_asked():
    task, objective = prepared("graph", {"node_columns": [5]}, rings(), "graph", rate=0.9)
    record = {"id": "new", "graph": {"nodes": [4, 4, 4], "edges": [[0, 1], [1, 2]]}}
    span = task.example(record).inputs[1]
    assert (span.labels == -1).all()
    log_p = torch.zeros(len(span.labels), task.candidates.size).log_softmax(-1)
    assert np.isnan(task.score(log_p, span.labels)["accuracy"].value)
    assert objective(task.collate([task.example(record)])).item() == 0


def test_what_cannot_be_restored_is_said():
    with pytest.raises(UserError, match="at least two"):
        RestoreCodes(name="r", source=None, inputs={"image": "image"}, codes=1)
    number = build_modalities({"number": {}})["number"]
    with pytest.raises(UserError, match=r"number.*cannot be hidden"):
        learn_codes(number, [], 5)
    image = build_modalities({"image": {"size": 8, "patch": 4}})["image"]
    with pytest.raises(UserError, match="alike"):
        learn_codes(image, [image.span(torch.zeros(1, 8, 8))] * 3, 5)
    task, _ = prepared("graph", {}, rings(), "graph")
    bare = {"id": "x", "graph": {"edges": [[0, 1]], "node_count": 2}}
    with pytest.raises(UserError, match="graph"):
        task.example(bare)


def test_number_labels_are_means_of_the_measured_values_only():
    modalities = build_modalities({"summary": {}, "imu": {"channels": 1, "patch": 4}})
    rows = [{"id": str(i), "signal": np.array([i, i, np.nan, i + 3.0, 7, 7, 7, 7])[:, None]} for i in range(9)]
    task = Restore(name="r", source=Listed({"train": rows}), inputs={"imu": "signal"}, bins=5)
    task.bind(modalities, None, {})
    span = modalities["imu"].span(modalities["imu"].read(rows[2]["signal"]))
    torch.testing.assert_close(task.values(span), torch.tensor([3.0, 7.0]))


def test_a_codebook_survives_the_settings_of_a_processor():
    codes = Codes(
        "image",
        {},
        {"patch": [[0.5, 1.0], [2.0, 3.0]]},
        {"patch": [2], "position": [2]},
        {"patch": "float32", "position": "int64"},
    )
    again = candidate_set(codes.to_dict())
    assert again == codes and torch.equal(again.rows("patch"), torch.tensor([[0.5, 1.0], [2.0, 3.0]]))
    assert again.members == ("image",) and again.labels({}) == ["image code 0", "image code 1"]
