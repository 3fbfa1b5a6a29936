"""What a table's columns become in the model: dates as numbers, odd cells missing, wild values without harm."""

import datetime
import math

import numpy as np
import pytest
import torch
from small import Listed, modalities

from generalist.data.base.errors import UserError
from generalist.data.base.outliers import inside
from generalist.data.sources.tabular import Tabular
from generalist.data.stream.source import Records
from generalist.data.tools.check import check
from generalist.tasks.candidates.names import Names
from generalist.tasks.kinds.regress import Regress
from generalist.tokenizers_mod.numbers import bins
from generalist.tokenizers_mod.tables.schema import Schema
from generalist.tokenizers_mod.tables.table import Table
from generalist.tokenizers_mod.tables.tokens import MISSING, NUMBER

START = datetime.datetime(2023, 1, 2, 8)  # a Monday


@pytest.mark.parametrize("shown", [str, lambda d: d.strftime("%d.%m.%Y %H:%M"), lambda d: d, lambda d: f"{d}+01:00"])
def test_a_column_of_dates_becomes_numbers_that_hold_for_dates_never_seen(shown):
    days = [START + datetime.timedelta(hours=7 * i) for i in range(400)]
    table = Table(schemas={"t": Schema.learn([{"when": shown(d), "x": i % 3} for i, d in enumerate(days[:300])])})
    columns = table.schemas["t"]["columns"]
    assert [c["name"] for c in columns] == ["when: epoch", "when: month", "when: weekday", "when: hour", "x"]
    assert {c["kind"] for c in columns} == {"numeric"}
    value = table.read({"when": shown(days[350]), "x": 1})["value"]
    for at, told in ((2, days[350].weekday()), (3, days[350].hour)):
        assert float(value[at]) * columns[at]["std"] + columns[at]["mean"] == pytest.approx(told, abs=1e-4)
    assert table.told() == ["when: dates, read as epoch, month, weekday, hour"]
    assert table.read({"when": None, "x": 1})["category"].tolist() == [MISSING] * 4 + [NUMBER]
    with pytest.raises(UserError, match="expected a date"):
        table.read({"when": "soon", "x": 1})
    again = Table(**table.settings())
    assert torch.equal(
        again.read({"when": shown(days[9]), "x": 0})["value"], table.read({"when": shown(days[9]), "x": 0})["value"]
    )


def test_numbers_written_as_text_are_numbers_and_codes_are_not():
    rows = [{"price": f"${i},000", "zip": f"0{i + 2100}", "lab": "<0.6" if i == 3 else f"{i}.5"} for i in range(1, 60)]
    table = Table(schemas={"t": Schema.learn(rows)})
    kinds = {c["name"]: c["kind"] for c in table.schemas["t"]["columns"]}
    assert kinds == {"price": "numeric", "zip": "categorical", "lab": "numeric"}
    assert table.told() == ["lab: 1 cells of the training rows are no number and missing"]
    found = table.read(rows[2])
    price = table.schemas["t"]["columns"][0]
    assert float(found["value"][0]) * price["std"] + price["mean"] == pytest.approx(3000)
    assert found["category"].tolist()[2] == MISSING and table.read(rows[4])["category"].tolist()[2] == NUMBER


def test_one_wild_value_leaves_the_others_apart():
    rows = [{"x": float(i)} for i in range(100)] + [{"x": 1e15}]
    table = Table(schemas={"t": Schema.learn(rows)})
    values = [float(table.read(row)["value"]) for row in rows]
    assert values[90] - values[10] > 1 and math.isfinite(values[-1])
    tokens = table.build(16)
    spans = [table.span(table.read(rows[i])).data for i in (10, 90)]
    near, far = (tokens(span) for span in spans)
    assert float((near - far).detach().abs().max()) > 0.05


@pytest.mark.parametrize("wild", [[1e12], [-1e12, 3e9], []])
def test_outliers_set_no_scale_of_a_regression(wild):
    targets = [100_000 + 1000.0 * i for i in range(100)] + wild
    source = Listed({"train": [{"id": str(i), "target": t} for i, t in enumerate(targets)]})
    task, records = Regress(name="price", source=source, inputs={"table": "row"}), source.open("train")
    numbers = task.candidate_set(records)
    clean = np.array(targets[:100])
    assert numbers.mean == pytest.approx(clean.mean()) and numbers.std == pytest.approx(clean.std(ddof=1))
    z = torch.tensor([(t - numbers.mean) / numbers.std for t in targets])
    back = numbers.expectation(numbers.target(z).log()) * numbers.std + numbers.mean
    assert float((back[:100] - torch.tensor(clean)).abs().max()) < 0.15 * numbers.std
    assert [n for n in records.info.get("notes", []) if "far from the others" in n] == (
        [f"{len(wild)} of {len(targets)} targets lie far from the others (such as {wild[0]:g}); they count as the "
         "outermost bin and set no scale"] if wild else []
    )  # fmt: skip
    heavy = np.exp(np.random.default_rng(0).normal(size=2000))
    assert inside(heavy).mean() > 0.998 and inside(np.ones(50)).all()
    assert len(bins.uniform_edges(0, 1, 3)) == 4


def test_prices_written_with_their_currency_are_targets():
    source = Listed({"train": [{"target": f"${1000 * i:,}"} for i in range(1, 40)]})
    task = Regress(name="price", source=source, inputs={"table": "row"})
    assert task.candidate_set(source.open("train")).mean == pytest.approx(20_000)
    assert task.truth({"target": "$1,234"}) == "1234"


@pytest.mark.parametrize("names", [["cat", "cat ", "dog"], ["Cat", "dog", "cat"], ["dog", "a  b", "a b"]])
def test_candidates_of_equal_tokens_are_refused_by_name(names):
    with pytest.raises(UserError, match="are the same to the text tokenizer") as caught:
        Names(names).sequences(modalities())
    assert sum(repr(name) in str(caught.value) for name in names) == 2
    assert len(Names(["cat", "cats", "dog"]).sequences(modalities())) == 3


def test_validate_names_wild_values_tell_tale_columns_and_classes_that_differ_in_case_only(tmp_path):
    lines = [f"{i + 1},{i // 50}.5,{i * 7 % 11},{['cat', 'Cat ', 'dog'][i // 50]}" for i in range(150)]
    lines[3] = "4,0.5,1000000,cat"
    path = tmp_path / "t.csv"
    path.write_text("id,same,other,label\n" + "\n".join(lines) + "\n")
    records = Tabular(str(path), label="label", val=0, test=0).open("train")
    report, _ = check(records, "train")
    assert [line.split(":")[0] for line in report.problems["tells the label"]] == ["id", "same"]
    assert report.problems["classes alike"] == ["'Cat ', 'cat'"]
    assert report.problems["far from the others"] == ["4: other is 1e+06"]
    quiet, _ = check(
        Records([{"id": str(i), "x": float(i % 9), "label": i % 2} for i in range(90)], {"classes": "ab"}), "t"
    )
    assert not [k for k, v in quiet.problems.items() if v and k != "repeated"]
