"""A table as a task: every column looked at, the label's kind decided, inputs sent to the modality that reads them."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError, nearest
from generalist.data.files.paths import beside
from generalist.data.sources.tabular import Tabular
from generalist.data.tables.columns import typed
from generalist.data.tables.identity import tells
from generalist.data.tables.media_columns import class_names
from generalist.data.tables.readers import read_raw
from generalist.fitting.answers import Answer, answer_of
from generalist.fitting.columns import APART, IN_ROW, Column, look
from generalist.fitting.defaults import TEST, VAL, batch_for, classes_for, number_for, table_for
from generalist.fitting.inputs.media import add_input, add_inputs, spread, words_for
from generalist.fitting.parts import Ask, House, Part, several
from generalist.tasks.base.task import Task
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.multilabel import MultiLabel
from generalist.tasks.kinds.regress import Regress
from generalist.tasks.kinds.retrieve import Retrieve
from generalist.tokenizers_mod.numbers.number import Number

LEAST = 6  # rows with an answer, below which nothing can be split and learnt
SURE = 0.98  # of what a label says, told by one column


def opened(ask: Ask) -> tuple[list[Column], list[Column], list[str]]:
    """The columns of the training file, those of the test file ([] without one), and what was odd in them."""
    files = [ask.data, *([ask.test] if ask.test else [])]
    tables, notes = typed([read_raw(f) for f in files], ask.label)
    if not len(tables[0]):
        raise UserError(f"{ask.data}: a table without rows")
    for column in [c for c in (ask.label, ask.group, ask.date, *ask.retrieve) if c]:
        if column not in tables[0].column_names:
            raise UserError(f"{ask.data}: no column {column!r}; {nearest(column, tables[0].column_names)}")
    if ask.test and ask.label and ask.label not in tables[1].column_names:
        raise UserError(
            f"{ask.test}: no column {ask.label!r}, and a test needs its answers; for rows without use predict"
        )
    train, *test = [look(t, Path(f).parent) for t, f in zip(tables, files, strict=True)]
    if ask.label and (names := class_names(tables[0], ask.label)) is not None:  # a file that holds their numbers
        for told in [c for part in (train, *test) for c in part if c.name == ask.label]:
            told.values = [names[v] if v is not None and 0 <= v < len(names) else None for v in told.values]
    return train, test[0] if test else [], notes


def source(ask: Ask, columns: list[Column], **settings: Any) -> Tabular:
    """Where the rows come from. What is no cell of a row is left out of it."""
    drop = [c.name for c in columns if c.kind not in IN_ROW and c.name != ask.label]
    keep = [c.name for c in columns if c.kind in IN_ROW and c.name != ask.label]
    drop = [n for n in drop if n not in _files(columns)]
    split: dict[str, Any] = {"group": ask.group, "time": ask.date}
    if ask.test:
        split |= {"splits": {"train": _path(ask.data), "test": _path(ask.test)}, "holdout": VAL}
    else:
        split |= {"path": _path(ask.data), "val": VAL, "test": TEST}
    absent = any(c.absent for c in columns)
    return Tabular(**split, label=ask.label, drop=drop, keep=keep, absent=absent, **settings)


def _files(columns: list[Column]) -> set[str]:
    return {c.name for c in columns if c.kind in ("picture", "sound", "clip")}


def _path(path: str) -> str:
    return str(Path(path).resolve())


def table_part(ask: Ask, house: House) -> Part:
    """UserError in one line where the label or the columns leave nothing to learn."""
    if not ask.label:
        raise UserError(f"{ask.data}: say which column is the answer with --label (or --forecast, --retrieve)")
    columns, test, notes = opened(ask)
    label = next(c for c in columns if c.name == ask.label)
    others = [v for c in test if c.name == ask.label for v in c.values]
    answer = answer_of(ask.label, [*label.values, *others], ask.answer)
    count = len(label.present)
    if count < LEAST:
        raise UserError(f"{ask.data}: {count} rows with a {ask.label!r} are too few; at least {LEAST} are needed")
    columns = [c for c in columns if c is not label]
    folder = Path(ask.data).parent
    inputs = inputs_of(columns, count, folder, house)
    if not inputs:
        raise UserError(f"{ask.data}: no column besides {ask.label!r} says anything ({_left_out(columns)})")
    name = house.name(ask.label if ask.label not in ("label", "target", "class", "y") else ask.stem)
    usual: dict[str, Any] = {"name": name, "inputs": inputs, "batch": batch_for(count)}
    task: Task
    if answer.kind == "number":
        house.add("number", Number())
        task = Regress(source=source(ask, columns), target="label", **number_for(count), **usual)
    elif answer.kind == "names":
        names = words_for(house, [f"not {n}" for n in answer.counts])
        assert names == "text"
        task = MultiLabel(source=source(ask, columns), separator=answer.separator, classes=list(answer.counts), **usual)
        task.classes = sorted(task.classes or [])
    else:
        words_for(house, list(answer.counts))
        classes = answer.classes or None
        task = Classify(source=source(ask, columns, classes=classes), **classes_for(inputs), **usual)
    told = [f"{ask.data}: {len(label.values):,} rows; label {ask.label}: {answer.said}; {task.kind}"]
    missing = len(label.values) - count
    told[0] += f"; {missing} rows without a label are left out" if missing else ""
    told += [f"  {line}" for line in said(columns, inputs)]
    told += [f"  {note}" for note in [*given_away(columns, label, answer), *rare(answer, count), *notes[:2]]]
    told.append(f"  {split_said(ask)}")
    held = round(len(others) + 2 * VAL * count) if ask.test else 0
    one_of = answer.kind not in ("number", "names")
    return Part(task, round(count * (1 - VAL - (0 if ask.test else TEST))), told, held, one_of=one_of)


def inputs_of(columns: list[Column], rows: int, folder: Path, house: House) -> dict[str, str]:
    """{modality: field}: the row of numbers, categories and dates, then every column that is read by itself."""
    inputs = {}
    if any(c.kind in IN_ROW for c in columns):
        inputs[house.add("table", table_for(rows), own=True)] = "row"
    for column in columns:
        if column.kind not in APART:
            continue
        for name in add_inputs(house, column.kind, raw_values(column, folder), len(column.present)):
            if name in inputs:  # a second column of the kind
                house.modalities[f"{name}_{len(inputs)}"] = copy(house.modalities[name])
                name = f"{name}_{len(inputs)}"
            inputs[name] = column.name
    return inputs


def raw_values(column: Column, folder: Path) -> list[Any]:
    """A column's cells as its modality takes them, a few of a column of files."""
    from generalist.data.tables.rows import value

    if column.kind in ("picture", "sound", "clip"):
        some = spread(column.present)
        return [beside(folder, v) if isinstance(v, str) else value(v) for v in some]
    return column.present


def said(columns: list[Column], inputs: dict[str, str]) -> list[str]:
    """What every column is, in a few lines."""
    kinds: dict[str, list[str]] = {}
    for c in columns:
        kinds.setdefault(c.kind, []).append(c.name + (f" ({c.absent} files not there)" if c.absent else ""))
    plural = {
        "category": "categories",
        "smiles": "molecules",
        "series": "series",
        "graph": "graphs",
        "text": "free text",
    }
    shown = [k for k in (*IN_ROW, *APART) if k in kinds]
    lines = ["; ".join(f"{len(kinds[k])} {plural.get(k, k + 's')}: {several(kinds[k], 4)}" for k in shown)]
    where = ", ".join(f"{name} <- {'the row' if field == 'row' else field}" for name, field in inputs.items())
    lines.append(f"read by {where}")
    left = _left_out(columns)
    return lines + ([f"left out: {left}"] if left else [])


def _left_out(columns: list[Column]) -> str:
    left = [c for c in columns if c.kind not in (*IN_ROW, *APART)]
    return ", ".join(f"{c.name} ({c.why})" for c in left[:6]) + (f" ... ({len(left)})" if len(left) > 6 else "")


def given_away(columns: list[Column], label: Column, answer: Answer) -> list[str]:
    """Columns of the row that alone tell nearly every class: a copy of the answer, or what is known behind it."""
    if answer.kind != "classes":
        return []
    found = [c.name for c in columns if c.kind in IN_ROW and tells(c.values, label.values) > SURE]
    return [f"LOOK: {several(found, 4)} alone tells {label.name}; leave it out if it is known later"] if found else []


def rare(answer: Answer, rows: int) -> list[str]:
    """Classes of one or two rows, which no split can both learn and test."""
    few = [name for name, n in answer.counts.items() if n < 3]
    return [f"{len(few)} of {len(answer.counts)} labels stand in one or two rows: {several(few, 4)}"] if few else []


def split_said(ask: Ask) -> str:
    how = f"rows of one {ask.group} together" if ask.group else f"newest by {ask.date} last" if ask.date else ""
    how = how or "by a hash, equal rows together"
    if ask.test:
        return f"split: {ask.test} is the test; {VAL:.0%} of the training rows for validation, {how}"
    return f"split: {1 - VAL - TEST:.0%} train, {VAL:.0%} validation, {TEST:.0%} test, {how}"


def pair_part(ask: Ask, house: House) -> Part:
    """Two columns that find each other."""
    columns, _, notes = opened(ask)
    by_name = {c.name: c for c in columns}
    sides: list[dict[str, str]] = []
    for name in ask.retrieve:
        column = by_name[name]
        if column.kind in ("category", "id", "constant") and all(isinstance(v, str) for v in column.present):
            column.kind = "text"
        if column.kind not in APART:
            raise UserError(f"--retrieve {name}: a column of the kind {column.kind!r}; give texts, pictures or sounds")
        sides.append({_side(house, column, Path(ask.data).parent): name})
    whole = sum(not is_gap for is_gap in gaps([by_name[n] for n in ask.retrieve]))
    if whole < LEAST:
        raise UserError(f"{ask.data}: {whole} rows have both columns; at least {LEAST} are needed")
    chosen = [by_name[n] for n in ask.retrieve]
    task = Retrieve(
        name=house.name(ask.stem),
        source=source(ask, chosen, need=list(ask.retrieve)),
        inputs=sides[0],
        partners=sides[1],
        batch=min(64, max(8, whole // 8)),
    )
    told = [f"{ask.data}: {len(chosen[0].values):,} rows; {' and '.join(ask.retrieve)} find each other; retrieve"]
    told += [f"  {c.name}: {c.kind}" for c in chosen]
    told += [f"  {note}" for note in notes[:2]] + [f"  {split_said(ask)}"]
    return Part(task, round(whole * (1 - VAL - (0 if ask.test else TEST))), told)


def _side(house: House, column: Column, folder: Path) -> str:
    return add_input(house, column.kind, raw_values(column, folder), len(column.present))


def gaps(columns: list[Column]) -> list[bool]:
    """Whether a row lacks one of the columns."""
    return [any(v is None for v in row) for row in zip(*(c.values for c in columns), strict=True)]
