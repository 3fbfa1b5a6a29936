"""Tables: the schema learnt from rows, missing and unknown cells, several tables, bad rows in one line."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.tables.schema import Schema
from generalist.tokenizers_mod.tables.table import Table
from generalist.tokenizers_mod.tables.tokens import FIRST, MISSING, NUMBER, UNKNOWN

ROWS = [
    {"age": 30, "job": "cook", "pay": "1.5", "y": 1},
    {"age": 50, "job": "?", "pay": "", "y": 0},
    {"age": None, "job": "smith", "pay": "2.5", "y": 1},
]
OTHER = [{"height": 1.0, "kind": 3.0}, {"height": 2.0, "kind": 4.0}, {"height": 9.0, "kind": 3.0}]


def two_tables() -> Table:
    return Table(
        schemas={"people": Schema.learn(ROWS, target="y"), "things": Schema.learn(OTHER, categorical=["kind"])},
        unknown=0.0,
    )


def test_the_schema_knows_kinds_scales_and_categories():
    schema = Schema.learn(ROWS, target="y")
    assert [(c.name, c.kind) for c in schema.columns] == [
        ("age", "numeric"),
        ("job", "categorical"),
        ("pay", "numeric"),
    ]
    age, job, pay = schema.columns
    assert (age.mean, age.std, pay.mean) == (40, 10, 2) and job.categories == ["cook", "smith"]
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


def test_rows_and_frames_teach_the_same_schema():
    frame = pd.DataFrame(ROWS)
    assert Schema.learn(frame, "y").to_json() == Schema.learn(ROWS, "y").to_json()


def test_rare_categories_beyond_the_limit_are_unknown():
    rows = [{"c": v} for v in "aaabbc"]
    assert Schema.learn(rows, most=2).columns[0].categories == ["a", "b"]


def test_cells_become_numbers_categories_missing_or_unknown():
    table = two_tables()
    value = table.read({"age": 60, "job": "pilot", "pay": float("nan")})
    assert value["column"].tolist() == [0, 1, 2]
    assert value["value"].tolist() == [2, 0, 0]
    assert value["category"].tolist() == [NUMBER, UNKNOWN, MISSING]
    value = table.read(pd.Series({"kind": 4, "height": "4"}))  # inferred from the columns, in the schema's order
    assert value["column"].tolist() == [3, 4]
    assert value["category"].tolist() == [NUMBER, FIRST + 3]


def test_the_target_may_stand_in_the_row():
    table = two_tables()
    row = {"age": 30, "job": "cook", "pay": 1}
    for a, b in zip(table.read(row).values(), table.read(row | {"y": 1}).values(), strict=True):
        assert torch.equal(a, b)


def test_the_bag_equals_each_columns_own_linear():
    table = two_tables()
    module = table.build(5)
    data = table.span(table.read({"height": 6.5, "kind": 3})).data
    z = (6.5 - 4) / np.std([1, 2, 9])
    edges = np.quantile([1, 2, 9], np.linspace(0, 1, 17))
    bins = ((6.5 - edges[:-1]) / np.diff(edges)).clip(0, 1)
    weight = module.weight.view(5, -1, 5)[3, : 1 + len(bins)]
    want = torch.tensor([np.arcsinh(z), *bins]).float() @ weight + module.column[3]
    torch.testing.assert_close(module(data)[0], want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(module(data)[1], module.column[4] + module.category[data["category"][1]])


def test_every_weight_gets_a_gradient_from_its_own_column_only():
    table = two_tables()
    module = table.build(5)
    module(table.span(table.read(OTHER[2])).data).sum().backward()
    rows = module.weight.grad.view(5, -1, 5).abs().sum((1, 2))
    assert rows[3] > 0 and rows[[0, 1, 2, 4]].sum() == 0


def test_training_tells_a_share_of_the_cells_as_missing_and_nothing_else_does():
    table = Table(schemas={"t": Schema.learn(ROWS, target="y")}, unknown=0.0, drop=0.5)
    value = table.read({"age": 30, "job": "cook", "pay": 2.5})
    rng = torch.Generator().manual_seed(0)
    drawn = [table.span(value, rng).data for _ in range(400)]
    hidden = torch.stack([data["category"] == MISSING for data in drawn])
    assert 0.4 < hidden.float().mean() < 0.6 and bool((hidden.any(0) & ~hidden.all(0)).all())
    for data, gone in zip(drawn, hidden, strict=True):
        assert torch.equal(data["value"], value["value"].masked_fill(gone, 0.0))
        assert torch.equal(data["category"], value["category"].masked_fill(gone, MISSING))
    assert torch.equal(table.span(value).data["category"], value["category"])
    with pytest.raises(UserError, match="drop"):
        Table(drop=1.0)


def test_training_replaces_some_categories_by_unknown():
    table = Table(schemas={"t": Schema.learn(ROWS, target="y")}, unknown=1.0)
    value = table.read(ROWS[0])
    assert table.span(value).data["category"].tolist() == [NUMBER, FIRST, NUMBER]
    assert table.span(value, torch.Generator()).data["category"].tolist() == [NUMBER, UNKNOWN, NUMBER]


@pytest.mark.parametrize(
    ("row", "schema", "words"),
    [
        ({"age": 1, "job": "cook"}, "people", r"lacks \['pay'\]"),
        ({"age": 1, "job": "cook", "pya": 1}, "people", "did you mean 'pay'"),
        ({"age": 1, "job": "cook", "pya": 1}, None, "nearest is 'people'"),
        ({"age": float("inf"), "job": "cook", "pay": 1}, None, "finite number"),
        ({"age": "old", "job": "cook", "pay": 1}, None, "'old'"),
        ({"age": [1], "job": "cook", "pay": 1}, None, "one value"),
        ({"age": 1, "job": "cook", "pay": 1}, "peple", "did you mean 'people'"),
        ([1, 2], None, "dict or pandas"),
    ],
)
def test_bad_rows_end_in_one_line(row, schema, words):
    with pytest.raises(UserError, match=words) as caught:
        two_tables().read(row, schema)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no rows"),
        ([{"a": 1}, {"b": 1}], "row 1 differs"),
        ([{"a": None}], "no value at all"),
        ([{"a": float("inf")}], "infinite"),
    ],
)
def test_bad_tables_teach_nothing(rows, words):
    with pytest.raises(UserError, match=words):
        Schema.learn(rows)


def test_unknown_target_and_bad_schema_are_named():
    with pytest.raises(UserError, match="no column 'z'"):
        Schema.learn(ROWS, target="z")
    with pytest.raises(UserError, match="not a schema"):
        Table(schemas={"a": {"cols": []}})
    with pytest.raises(UserError, match="no schema"):
        Table().read({"a": 1})
    Table().build(4)


def test_real_tables_are_read(shared):
    frame = pd.read_csv(shared / "data/adult_tabular/adult_train.csv.gz", nrows=500)
    table = Table(schemas={"adult": Schema.learn(frame, target="income")})
    spans = [table.span(table.read(row)) for row in frame.to_dict("records")]
    out = table.build(8)({k: torch.cat([s.data[k] for s in spans]) for k in spans[0].data})
    assert out.shape == (500 * 14, 8) and out.isfinite().all()


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.none() | st.integers(-5, 5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(numbers, st.text(max_size=3)), min_size=1, max_size=8), numbers, st.text(max_size=3))
def test_any_row_gives_finite_tokens(rows, number, word):
    rows = [{"n": n, "w": w} for n, w in rows] + [{"n": 0.5, "w": "w"}]
    table = Table(schemas={"t": Schema.learn(rows, categorical=["w"])})
    module = table.build(4)
    for row in [*rows, {"n": number, "w": word}]:
        assert module(table.span(table.read(row)).data).isfinite().all()


def test_the_order_of_the_schemas_does_not_matter():
    # a saved configuration comes back with its keys sorted; the weights' rows must stay those of their columns
    schemas = {
        "z": Schema.learn([{"p": 1.0, "q": "x"}, {"p": 2.0, "q": "y"}]),
        "a": Schema.learn([{"r": "u"}, {"r": "v"}]),
    }
    given, back = Table(schemas=schemas), Table(schemas=dict(sorted(schemas.items())))
    for row in ({"p": 1.5, "q": "y"}, {"r": "v"}):
        one, two = given.read(row), back.read(row)
        assert all(torch.equal(one[key], two[key]) for key in one)
    one, two = given.build(8), back.build(8)
    assert torch.equal(one.left, two.left)
