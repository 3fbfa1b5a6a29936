"""The report's sections on errors and on the training samples nearest to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generalist.report.figures import esc, fmt, shorten
from generalist.report.sections.inputs import show
from generalist.report.sections.samples import card

COLUMNS = 12  # slices are shown by so many columns


def errors_section(found: dict[str, Any]) -> str:
    """The worst answers, the confusion matrix and the slices."""
    task = str(found["task"])
    note = f"Task {esc(task)}, {esc(found['metric'])} {fmt(found['value'])} over {fmt(found['n'])} records."
    parts = [f'<p class="note">{note} {esc((found.get("duplicates") or {}).get("said", ""))}</p>']
    parts.append(f'<h3>Worst answers <span class="note">by {esc(found["by"])}</span></h3>')
    parts.append(f'<div class="answers">{"".join(_costed(one, found) for one in found["worst"])}</div>')
    if "confusion" in found:
        parts.append(_confusion(found["confusion"]))
    if found["slices"]:
        more = len(found["slices"]) - COLUMNS
        few = f", the {COLUMNS} columns that tell most; {more} more in <code>errors.json</code>" if more > 0 else ""
        parts.append(f'<h3>By the values of a column <span class="note">{esc(found["metric"])}{few}</span></h3>')
        parts.append(
            f'<div class="grid3">{"".join(_slice(c, found["metric"]) for c in found["slices"][:COLUMNS])}</div>'
        )
    return "".join(parts)


def _costed(one: dict[str, Any], found: dict[str, Any]) -> str:
    note = "; ".join([f"{found['by']}: {one['told']}", *([one["note"]] if "note" in one else [])])
    return card({**one, "note": note}, str(found["task"]), Path("inspect"))


def _confusion(matrix: dict[str, Any]) -> str:
    """Rows are right, columns answered; the deeper the larger a share of its row."""
    names, counts = matrix["names"], matrix["counts"]
    head = "".join(f'<th title="{esc(name)}">{esc(shorten(name, 14))}</th>' for name in names)
    rows = []
    for i, (name, row) in enumerate(zip(names, counts, strict=True)):
        total = sum(row) or 1
        cells = [
            f'<td class="{"good" if i == j else "bad"}" style="--d:{round(70 * count / total)}%" '
            f'title="{esc(name)} answered as {esc(names[j])}: {count} of {sum(row)}">{count or "·"}</td>'
            for j, count in enumerate(row)
        ]
        rows.append(f"<tr><td title='{esc(name)}'>{esc(shorten(name, 22))}</td>{''.join(cells)}</tr>")
    few = (
        f"; the {len(names) - 1} of {matrix['classes']} classes with the most mistakes"
        if "others" in names[-1:]
        else ""
    )
    title = f'<h3>What is taken for what <span class="note">rows: right, columns: answered{few}</span></h3>'
    return f'{title}<div class="card plain confusion"><table><tr><th></th>{head}</tr>{"".join(rows)}</table></div>'


def _slice(column: dict[str, Any], metric: str) -> str:
    rows = "".join(
        f"<tr><td>{esc(shorten(v['value'], 32))}</td><td>{fmt(v['n'])}</td><td>{fmt(v['measure'])}</td></tr>"
        for v in column["values"]
    )
    head = f"<tr><th>{esc(shorten(column['column'], 32))}</th><th>records</th><th>{esc(metric)}</th></tr>"
    return f'<div class="card plain"><table>{head}{rows}</table></div>'


def similar_section(found: dict[str, Any]) -> str:
    """Each test sample beside its nearest training samples."""
    few = "" if found["compared"] == found["training"] else f" of {fmt(found['training'])}"
    note = (
        f"Task {esc(found['task'])}: the worst answered test samples, and the nearest among "
        f"{fmt(found['compared'])}{few} training samples by the cosine of the model's features "
        f"({esc(found['where'])}). {esc(found.get('unread', ''))}"
    )
    rows = []
    for one in found["samples"]:
        near = "".join(
            f"<figure>{show(n['input'])}<figcaption><b>{n['cosine']:.3f}</b> {esc(shorten(n['truth'], 60))}<br>"
            f"{esc(shorten(n['id'], 40))}</figcaption></figure>"
            for n in one["near"]
        )
        rows.append(
            f'<div class="near-row">{card(one, str(found["task"]), Path("inspect"))}'
            f'<div class="card near-list">{near}</div></div>'
        )
    return f'<p class="note">{note}</p>{"".join(rows)}'
