"""Tables as people have them: dialects, odd cells, labels as written, keys; splits that keep equal rows together."""

import gzip
import random
import zipfile

import pandas
import pytest

from generalist.cli import main
from generalist.data.base.errors import UserError
from generalist.data.sources.local import load_columns
from generalist.data.sources.tabular import Tabular
from generalist.data.tables.dates import moment, parts_of, style_of
from generalist.data.tables.identity import names_rows, tells
from generalist.data.tables.typed import number
from generalist.fitting.predict import predict_file

WORDS = ["AF", "NA", "nan", "null", "None", "?", "N/A"]


def whole(path, **settings):
    """All rows of a table and what was noted."""
    records = Tabular(str(path), val=0, test=0, **settings).open("train")
    return [records[i] for i in range(len(records))], records.info


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def test_words_for_nothing_are_names_of_classes_and_only_an_empty_cell_is_missing(tmp_path):
    cells = [WORDS[i % 7] for i in range(70)] + [""]
    path = write(tmp_path / "t.csv", "x,label\n" + "".join(f'{i},"{c}"\n' for i, c in enumerate(cells)))
    rows, info = whole(path, label="label")
    assert info["classes"] == sorted(WORDS)
    assert [r["label"] if r["label"] is None else info["classes"][r["label"]] for r in rows] == [*cells[:-1], None]


@pytest.mark.parametrize(
    "labels, classes",
    [
        (["true", "false"], ["false", "true"]),
        (["True", "False"], ["False", "True"]),
        (["001", "002", "010"], ["001", "002", "010"]),
        (["1", "2", "NA"], ["1", "2", "NA"]),
        (["5 %", "10 %"], ["10 %", "5 %"]),
        (["2024-01-01", "2024-01-02"], ["2024-01-01", "2024-01-02"]),
    ],
)
def test_a_label_column_is_text_as_written(tmp_path, labels, classes):
    path = write(tmp_path / "t.csv", "x,y\n" + "".join(f"{i}.5,{labels[i % len(labels)]}\n" for i in range(60)))
    rows, info = whole(path, label="y")
    assert info["classes"] == classes
    assert [classes[r["label"]] for r in rows] == [labels[i % len(labels)] for i in range(60)]


def test_given_classes_in_any_order_keep_every_row_its_name(tmp_path):
    path = write(tmp_path / "t.csv", "x,y\n" + "".join(f"{i},{['spam', 'ham', 'ad'][i % 3]}\n" for i in range(30)))
    for classes in (["spam", "ham", "ad"], ["ad", "spam", "ham"]):
        rows, _ = whole(path, label="y", classes=classes)
        assert [classes[r["label"]] for r in rows] == ["spam", "ham", "ad"] * 10
    numbers = write(tmp_path / "n.csv", "x,y\n" + "".join(f"{i},{1 + i % 2}\n" for i in range(30)))
    rows, _ = whole(numbers, label="y", classes=["2", "1"])
    assert [["2", "1"][r["label"]] for r in rows] == ["1", "2"] * 15
    rows, info = whole(write(tmp_path / "z.csv", "x,y\n1,0\n2,1\n3,1\n"), label="y", classes=["no", "yes"])
    assert [r["label"] for r in rows] == [0, 1, 1] and "0 is 'no'" in info["notes"][-1]


DIALECTS = [
    ("x,name,v\n1,Zoë,2.5\n2,Åsa,1e-3\n", "utf-8"),
    ("\ufeffx,name,v\n1,Zoë,2.5\n2,Åsa,.001\n", "utf-8"),
    ("x;name;v\n1;Zoë;2,5\n2;Åsa;0,001\n", "latin-1"),
    ("x\tname\tv\n1\tZoë\t2.5\n2\tÅsa\t0.001\n", "utf-16"),
    ("x|name|v\n1|Zoë|2.5\n2|Åsa|0.001\n", "utf-16-le"),
    ('sep=;\nx;name;v\n1;"Zoë";"2,5"\n2;"Åsa";"0,001"\n', "cp1252"),
    ('x, name, v\r\n1, "Zoë", 2.5\r\n2, "Åsa", 0.001\r\n', "utf-8"),
]


@pytest.mark.parametrize("text, encoding", DIALECTS)
def test_every_dialect_gives_the_same_values(tmp_path, text, encoding):
    path = write(tmp_path / "t.csv", text, encoding)
    rows, _ = whole(path)
    assert [r["row"] for r in rows] == [{"x": 1, "name": "Zoë", "v": 2.5}, {"x": 2, "name": "Åsa", "v": 0.001}]
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert [r["row"] for r in whole(tmp_path / "t.csv.gz")[0]] == [r["row"] for r in rows]
    held = load_columns(str(path))
    assert held["v"].tolist() == [2.5, 0.001] and held["name"].tolist() == ["Zoë", "Åsa"]


@pytest.mark.parametrize(
    "text, decimal, value",
    [
        ("1,234", ".", 1234), ("$1,234.50", ".", 1234.5), ("-$5", ".", -5), ("(1,000)", ".", -1000), ("12%", ".", 0.12),
        ("1.234,5", ",", 1234.5), ("1.234", ",", 1234), ("0,5 €", ",", 0.5), ("1 234,5", ",", 1234.5),
        ("1'234", ".", 1234), ("EUR 7", ".", 7), ("\u22122", ".", -2), ("1e3", ".", 1000), (".5", ".", 0.5),
        ("<0.6", ".", None), ("1,23", ".", None), ("nan", ".", None), ("inf", ".", None), ("A12", ".", None),
    ],
)  # fmt: skip
def test_numbers_are_read_as_people_write_them(text, decimal, value):
    found = number(text, decimal)
    assert found == (value if value is None else pytest.approx(value))


def test_odd_cells_of_a_column_of_numbers_are_missing_counted_and_said(tmp_path):
    lines = ["crp,income,share,weight,label"]
    for i in range(100):
        crp = {7: "n/a", 8: "<0.6"}.get(i, f"{i / 7:.3f}")
        lines.append(f'{crp},"{1000 + 3 * i:,}",{i}%,{i + 0.5} kg,{"ab"[i % 2]}')
    rows, info = whole(write(tmp_path / "t.csv", "\n".join(lines) + "\n"), label="label")
    assert info["notes"] == ["crp: 1 cell is no number and missing ('<0.6')"]
    assert [rows[i]["row"]["crp"] for i in (6, 7, 8)] == [0.857, None, None]
    assert [r["row"]["income"] for r in rows] == [1000 + 3 * i for i in range(100)]
    assert [r["row"]["weight"] for r in rows] == [i + 0.5 for i in range(100)]
    assert rows[50]["row"]["share"] == pytest.approx(0.5)
    mixed = "x\n" + "".join(f"{i}\n" for i in range(70)) + "".join(f"a{i}\n" for i in range(30))
    rows, info = whole(write(tmp_path / "m.csv", mixed + "b\nb\n"))
    assert rows[3]["x"] == "3" and "mostly numbers, but 32 cells are no number" in info["notes"][0]


def test_files_that_are_numbered_are_no_numbers_of_a_unit(tmp_path):
    rows, _ = whole(write(tmp_path / "t.csv", "photo,kind\n" + "".join(f"{i}.jpg,{'ab'[i % 2]}\n" for i in range(40))))
    assert str(rows[7]["photo"]).endswith("7.jpg")


def test_leading_zeros_and_long_numbers_stay_text_and_late_changes_are_seen(tmp_path):
    lines = [f"{i:05d},0{2100 + i},{10**17 + i},{i}" for i in range(60)]
    rows, info = whole(
        write(tmp_path / "t.csv", "member,zip,card,n\n" + "\n".join(lines) + "\n"), keep=["member", "zip"]
    )
    assert (rows[7]["member"], rows[7]["zip"], rows[7]["card"], rows[7]["n"]) == ("00007", "02107", str(10**17 + 7), 7)
    assert sum("leading zeros" in note for note in info["notes"]) == 2
    late = "v,w\n" + "".join(f"{i % 50},{i % 50}\n" for i in range(30_000)) + "A12,3\n"
    rows, info = whole(write(tmp_path / "late.csv", late))
    assert rows[-1]["v"] is None and rows[-2]["v"] == 49 and rows[-1]["w"] == 3
    assert info["notes"][0] == "v: 1 cell is no number and missing ('A12')"


def test_two_columns_of_one_name_are_both_kept_and_said(tmp_path):
    import pandas as pd

    path = write(tmp_path / "t.csv", "score,age,score,,score\n1.5,2,3,4,5\n2.5,3,4,5,6\n")
    rows, info = whole(path)
    assert rows[0]["row"] == {"score": 1.5, "age": 2, "score.1": 3, "column 4": 4, "score.2": 5}
    assert info["notes"][0] == "two columns are called 'score'; column 3 is called 'score.1'"
    frame = pd.DataFrame([[1.5, "a"], [2.5, "b"]], columns=["v", "v"])
    records = Tabular(frame=frame, val=0, test=0).open("train")
    assert records[0]["row"] == {"v": 1.5, "v.1": "a"}


@pytest.mark.parametrize(
    "name, values, naming",
    [
        ("Id", [i + 1 for i in range(60)], True),
        ("PassengerId", [7 * i + 3 for i in range(60)], True),
        ("x", list(range(10, 100)), True),
        ("uuid", [f"{i:x}-{i * i:x}" for i in range(60)], True),
        ("who", [f"person {i}" for i in range(60)], True),
        ("code", [*range(60), None], True),
        ("population", [1000 + 3 * i for i in range(60)], False),
        ("height", [1.5 + i / 100 for i in range(60)], False),
        ("age", [i % 30 for i in range(60)], False),
        ("review", [f"a long text that says something about thing number {i}" for i in range(60)], False),
        ("width", [float(i) for i in range(60)], False),
    ],
)
def test_columns_that_only_name_rows(name, values, naming):
    assert names_rows(name, values) == naming


def test_a_key_is_left_out_of_the_rows_and_said_unless_asked_for(tmp_path):
    names = ["setosa", "versicolor", "virginica"]
    text = "id,noise,label\n" + "".join(f"{i + 1},{random.random():.3f},{names[i // 50]}\n" for i in range(150))
    path = write(tmp_path / "t.csv", text)
    rows, info = whole(path, label="label")
    assert list(rows[0]["row"]) == ["noise"] and "id: another value in every row" in info["notes"][0]
    assert list(whole(path, label="label", keep=["id"])[0][0]["row"]) == ["id", "noise"]
    alone = write(tmp_path / "a.csv", "id,label\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(60)))
    assert list(whole(alone, label="label")[0][0]["row"]) == ["id"]
    days = write(tmp_path / "d.csv", "day,x\n" + "".join(f"2023-01-{i + 1:02d},{i % 3}\n" for i in range(28)))
    assert list(whole(days)[0][0]["row"]) == ["day", "x"]


def test_columns_that_tell_the_label_alone_are_found():
    rng = random.Random(0)
    answers = ["abc"[i // 100] for i in range(300)]
    assert tells(list(range(300)), answers) > 0.9
    assert tells([f"v{a}" for a in answers], answers) == 1
    assert tells([rng.random() for _ in answers], answers) < 0.3
    assert tells([rng.choice("xyz") for _ in answers], answers) < 0.3


def parts(path, **settings):
    return {s: Tabular(str(path), **settings).open(s) for s in ("train", "val", "test")}


def test_equal_rows_are_in_one_split_and_others_stay_where_they_were(tmp_path):
    rng = random.Random(1)
    once = [f"{rng.random():.4f},{rng.random():.4f},{rng.choice('ab')}" for _ in range(200)]
    single = parts(write(tmp_path / "one.csv", "x,y,label\n" + "\n".join(once) + "\n"), label="label")
    where = {(records[i]["x"], records[i]["y"]): s for s, records in single.items() for i in range(len(records))}
    twice = parts(write(tmp_path / "two.csv", "x,y,label\n" + "\n".join(once + once[::2]) + "\n"), label="label")
    assert sum(map(len, twice.values())) == 300
    for split, records in twice.items():
        assert {where[records[i]["x"], records[i]["y"]] for i in range(len(records))} == {split}
        assert "rows equal to others: 100; equal rows are in one split" in records.info["notes"]
    few = write(tmp_path / "few.csv", "x,label\n" + "".join(f"{i % 2},{'ab'[i % 3 % 2]}\n" for i in range(100)))
    found = parts(few, label="label")
    assert all(len(r) for r in found.values()) and "repeat by nature" in found["test"].info["notes"][0]


def test_groups_stay_together_and_time_is_cut_in_order(tmp_path):
    lines = [f"{i % 20},2023-0{1 + i % 9}-01,{i / 7:.3f}" for i in range(180)]
    path = write(tmp_path / "t.csv", "patient,day,x\n" + "\n".join(lines) + "\n")
    groups = {s: {r["patient"] for r in records.rows} for s, records in parts(path, group="patient").items()}
    assert all(groups.values()) and sum(map(len, groups.values())) == 20
    days = {s: [r["day"] for r in records.rows] for s, records in parts(path, time="day").items()}
    assert max(days["train"]) < min(days["val"]) <= max(days["val"]) < min(days["test"])
    with pytest.raises(UserError, match="is no time"):
        parts(write(tmp_path / "w.csv", "a,b\nx,1\ny,2\nz,3\n"), time="a")


@pytest.mark.parametrize("count", [3, 5, 9])
def test_a_small_table_has_a_row_in_every_split(tmp_path, count):
    path = write(tmp_path / "t.csv", "x,label\n" + "".join(f"{i}.5,{'ab'[i % 2]}\n" for i in range(count)))
    found = {s: len(r) for s, r in parts(path, label="label").items()}
    assert min(found.values()) >= 1 and sum(found.values()) == count and found["train"] >= found["val"]
    empty = write(tmp_path / "e.csv", "x,label\n" + "".join(f"{i}.5,{'a' if i < 3 else ''}\n" for i in range(40)))
    assert all(any(r["label"] is not None for r in records.rows) for records in parts(empty, label="label").values())
    with pytest.raises(UserError, match="2 different rows with an answer are too few for train, val, test"):
        parts(write(tmp_path / "2.csv", "x,label\n1.5,a\n2.5,b\n"), label="label")


@pytest.mark.parametrize(
    "cells, style, first",
    [
        (["2023-01-15", "2023-02-01"], "iso", (1673740800, 2023, 1, 6, 0)),
        (["2023-01-15T08:30:00Z", "2023-02-01T00:00:00Z"], "iso", (1673771400, 2023, 1, 6, 8.5)),
        (["2023-01-15 08:30:00+02:00"] * 2, "iso", (1673764200, 2023, 1, 6, 8.5)),
        (["15.01.2023", "01.02.2023"], "%d.%m.%Y", (1673740800, 2023, 1, 6, 0)),
        (["15/01/2023", "01/02/2023"], "%d/%m/%Y", (1673740800, 2023, 1, 6, 0)),
        (["01/15/2023 8:30 PM", "02/01/2023 1:00 AM"], "%m/%d/%Y %I:%M %p", (1673814600, 2023, 1, 6, 20.5)),
        (["Jan 15, 2023", "Feb 1, 2023"], "%b %d, %Y", (1673740800, 2023, 1, 6, 0)),
    ],
)
def test_dates_become_numbers(cells, style, first):
    assert style_of(cells) == (style, False)
    assert tuple(parts_of(moment(cells[0], style)).values()) == first


def test_numbers_and_words_are_no_dates():
    for cells in (
        ["1.5", "2.25"],
        ["20230115", "20230116"],
        ["12", "13"],
        ["a-1", "b-2"],
        ["x/y", "z"],
        ["1-2", "3-4"],
    ):
        assert style_of(cells) is None, cells
    assert style_of(["01/02/2023", "03/04/2023"]) == ("%m/%d/%Y", True)


def test_what_is_odd_in_a_table_is_said_by_stats_validate_and_refused_in_one_line(tmp_path, capsys):
    path = write(
        tmp_path / "t.csv", "score,score,label\n" + "".join(f"{i}.5,{-i}.5,{'ab'[i % 2]}\n" for i in range(40))
    )
    for action in ("stats", "validate"):
        assert main(["data", action, str(path), "--set", "label=label", "--quiet"]) == 0
        assert "column 2 is called 'score.1'" in capsys.readouterr().out
    for text in ("a,b\n1,2,3\n", "", "\n\n"):
        assert main(["data", "stats", str(write(tmp_path / "bad.csv", text)), "--quiet"]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_dates_with_points_and_leading_zeros_are_dates_and_codes_with_them_text(tmp_path):
    dates = [f"{1 + i % 28:02d}.{1 + i % 12:02d}.{1990 + i % 9}" for i in range(40)]
    path = write(tmp_path / "t.csv", "born;code;y\n" + "".join(f"{d};0{i};{i % 2}\n" for i, d in enumerate(dates)))
    rows, info = whole(path, label="y", keep=["code"])
    assert [n for n in info["notes"] if "leading zeros" in n] == ["code: numbers with leading zeros (00) are text"]
    assert rows[3]["row"]["code"] == "03"


MEASURES = {"price": "${:,}.50", "share": "{} %", "size": "{}.5", "code": "{}", "kind": "k{}"}


def measures(rows=40):
    return [{name: how.format(1000 + i % 9) for name, how in MEASURES.items()} for i in range(rows)]


@pytest.mark.parametrize("ending", ["csv", "xlsx", "jsonl", "parquet"])
def test_measures_are_read_alike_from_every_file(tmp_path, ending):
    frame = pandas.DataFrame(measures())
    path = tmp_path / f"t.{ending}"
    ways = {
        "csv": lambda: frame.to_csv(path, index=False),
        "xlsx": lambda: frame.to_excel(path, index=False),
        "jsonl": lambda: frame.to_json(path, orient="records", lines=True),
        "parquet": lambda: frame.to_parquet(path),
    }
    ways[ending]()
    rows, info = whole(path)
    typed = ending in ("jsonl", "parquet")  # there a whole number in quotes is a code, and its file says so
    row = rows[0]["row"]
    assert {k: row[k] for k in ("price", "size", "kind")} == {"price": 1000.5, "size": 1000.5, "kind": "k1000"}
    assert row["share"] == pytest.approx(10)
    assert row["code"] == ("1000" if typed else 1000)
    assert any("price: texts like '$1,000.50' are read as numbers" in note for note in info.get("notes", [])) == typed


def test_rows_as_dictionaries_are_a_table():
    rows = Tabular(frame=measures(), val=0, test=0).open("train")
    assert rows[3]["row"]["price"] == 1003.5 and len(rows) == 40


def test_a_workbook_is_read_as_it_looks_and_its_other_sheets_are_named(tmp_path):
    path = tmp_path / "t.xlsx"
    with pandas.ExcelWriter(path) as book:
        pandas.DataFrame({"when": pandas.to_datetime(["2020-01-02", "2020-01-03"]), "n": [1, None]}).to_excel(
            book, sheet_name="own", index=False
        )
        pandas.DataFrame({"a": [1]}).to_excel(book, sheet_name="more")
    rows, info = whole(path)
    assert [r["row"] for r in rows] == [{"when": "2020-01-02", "n": 1}, {"when": "2020-01-03", "n": None}]
    assert "sheet 'own' is read; 1 more are not ('more')" in info["notes"]
    (tmp_path / "no.xlsx").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"no\.xlsx: it is no workbook"):
        whole(tmp_path / "no.xlsx")
    pandas.DataFrame().to_excel(tmp_path / "none.xlsx")
    with pytest.raises(UserError, match=r"none\.xlsx: it is empty"):
        whole(tmp_path / "none.xlsx")


def test_a_workbook_that_unpacks_to_more_than_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("GENERALIST_LIMITS", "table_mb=2")
    with zipfile.ZipFile(tmp_path / "bomb.xlsx", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("xl/worksheets/sheet1.xml", b"0" * 3_000_000)
    with pytest.raises(UserError, match="table_mb"):
        whole(tmp_path / "bomb.xlsx")


def test_answers_are_not_written_as_csv_under_another_name(tmp_path):
    with pytest.raises(UserError, match=r"answers are written as CSV: --out .*a\.csv instead of a\.xlsx"):
        predict_file(tmp_path / "run", "rows.csv", tmp_path / "a.xlsx")
