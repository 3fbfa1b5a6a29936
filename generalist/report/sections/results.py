"""The results of a run read from metrics.json, judged without kindness, and drawn between chance and baseline."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
from generalist.report.figures import esc, fmt, scale_bar, shorten
from generalist.report.page import render


@dataclass(frozen=True)
class Result:
    """One task's number with what it has to be compared with; `low` and `high` bound its interval."""

    task: str
    metric: str
    value: float | None
    chance: float | None
    baseline: float | None
    higher_is_better: bool
    n_test: int | None
    baseline_name: str
    synthetic: bool
    low: float | None
    high: float | None
    about: str = ""
    frozen: bool = False  # then `control` is the same run's value on a random encoder, None where it was not run
    control: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    error: str = ""  # why there is no result
    notes: tuple[str, ...] = ()
    joined: bool = False  # then `together` is what the model and the ordinary method reach together, None if nothing
    together: float | None = None
    way: str = ""

    def _better(self, a: float | None, b: float | None) -> bool:
        """a is strictly better than b; a value that is no number is better than nothing."""
        return a is not None and b is not None and (a > b if self.higher_is_better else a < b)

    @property
    def reaches(self) -> bool | None:
        """As good as the baseline or better; None where there is no baseline."""
        if self.baseline is None:
            return None
        return self.value is not None and (self.value == self.baseline or self._better(self.value, self.baseline))

    @property
    def beats_chance(self) -> bool | None:
        """Better than chance with its whole interval, where it has one; None where chance is not known."""
        if self.chance is None:
            return None
        bounds = [v for v in (self.value, self.low, self.high) if v is not None]
        return self.value is not None and all(self._better(v, self.chance) for v in bounds)

    @property
    def too_close(self) -> bool:
        """The baseline lies inside the interval: the difference may be the luck of the test data."""
        if self.baseline is None or self.low is None or self.high is None:
            return False
        return self.low <= self.baseline <= self.high

    @property
    def verdict(self) -> tuple[str, str]:
        """(class of the page's style, words)."""
        if self.value is None or not math.isfinite(self.value):
            return "bad", "failed" if self.error else "no result"
        if self.reaches:
            return "good", "reaches baseline"
        if self.beats_chance is False:
            return "bad", "not above chance"
        return ("none", "no baseline") if self.reaches is None else ("near", "below baseline")

    @property
    def bar(self) -> str:
        """The result between chance and baseline."""
        found, together = self.verdict[0], self.together
        return scale_bar(
            self.value, self.chance, self.baseline, self.low, self.high, self.higher_is_better, found, together
        )

    @property
    def lines(self) -> list[str]:
        """What is said below the task's name."""
        direction = "" if self.higher_is_better else ", lower is better"
        extra = ", ".join(f"{k.replace('_', ' ')} {fmt(v)}" for k, v in self.extra.items() if k != self.metric)
        lines = [self.metric + direction, shorten(self.about, 120), shorten(extra, 160)]
        return [line for line in [*lines, shorten(self.error, 300)] if line]

    @property
    def more(self) -> list[str]:
        """What is said below the task's row, as wide as the table."""
        return [shorten(note, 300) for note in self.notes]


def read_results(metrics: dict[str, Any], path: Path) -> list[Result]:
    """The tasks of metrics.json in its order; a malformed entry is a UserError that names it."""
    tasks = metrics.get("tasks")
    if not isinstance(tasks, dict):
        raise UserError(f"{path} has no object 'tasks': make it again with `generalist eval {path.parent}`")
    return [_result(str(name), entry, path) for name, entry in tasks.items()]


def _result(name: str, entry: Any, path: Path) -> Result:
    try:
        number = {k: _number(entry.get(k)) for k in ("chance", "baseline", "low", "high")}
        return Result(
            task=name,
            metric=str(entry["metric"]),
            value=_number(entry["value"]),
            higher_is_better=bool(entry["higher_is_better"]),
            n_test=None if entry.get("n_test") is None else int(entry["n_test"]),
            baseline_name=str(entry.get("baseline_name") or ""),
            synthetic=bool(entry.get("synthetic")),
            about=str(entry.get("about") or ""),
            frozen="control" in entry,
            control=_number(entry.get("control")),
            extra=dict(entry.get("extra") or {}),
            error=str(entry.get("error") or ""),
            notes=tuple(str(note) for note in entry.get("notes") or ()),
            joined="together" in entry,
            together=_number((entry.get("together") or {}).get("value")),
            way=_way(entry.get("together") or {}),
            **number,
        )
    except KeyError as error:
        what = f"has no {error}"
    except (TypeError, ValueError, AttributeError) as error:
        what = f"cannot be read ({error})"
    raise UserError(f"{path}: task {name!r} {what}: make it again with `generalist eval {path.parent}`")


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _way(together: dict[str, Any]) -> str:
    """Which of the two answers where they answer together, "" where nothing says it."""
    if together.get("way") == "both":
        return f"model^{float(together['a']):.2g} · baseline^{float(together['b']):.2g}"
    return {"model": "the model alone", "ordinary": "the baseline alone"}.get(str(together.get("way")), "")


def verdict_sentences(results: list[Result]) -> list[str]:
    """What the table shows, said plainly, as HTML: who reaches the baseline, who does not, what to distrust."""
    compared = [r for r in results if r.reaches is not None]
    out = []
    if compared:
        yes, no = [r for r in compared if r.reaches], [r for r in compared if not r.reaches]
        count = f"{len(yes)} of {_tasks(len(compared))}" if yes else f"None of {_tasks(len(compared))}"
        if len(yes) == len(compared):
            count = "The only task" if len(yes) == 1 else f"All {len(yes)} tasks"
        one = count.startswith(("1 ", "The"))
        reach = f"{count} {'reaches its' if one else 'reach their'} baseline"
        out.append(f"<b>{reach}</b>{': ' + _names(yes) if yes else ''}.")
        if no:
            out.append(f"<b>{len(no)} {'does' if len(no) == 1 else 'do'} not:</b> {_names(no)}.")
    else:
        out.append("<b>No task has a baseline to compare with.</b>" if results else "No task was evaluated.")
    out += [f"<b>{esc(r.task)} could not be evaluated:</b> {esc(shorten(r.error, 300))}." for r in results if r.error]
    alone = [r for r in results if r.reaches is None and not r.error]
    if alone and compared:
        out.append(f"Without a baseline to compare with: {_names(alone)}.")
    if close := [r for r in results if r.too_close]:
        out.append(f"Too close to call, as the baseline lies inside the interval: {_names(close)}.")
    if lost := [r for r in results if r.beats_chance is False]:
        out.append(f"<b>Not clearly better than chance:</b> {_names(lost)}.")
    if unknown := [r for r in results if r.frozen and r.control is None]:
        out.append(
            f"<b>Frozen weights without their control</b>, so nothing says that they help: {_names(unknown)}; "
            "train again with <code>model.control=true</code>."
        )
    if useless := [r for r in results if r.control is not None and not r._better(r.value, r.control)]:
        out.append(f"<b>A frozen random encoder does as well:</b> {_names(useless)}.")
    if made := [r for r in results if r.synthetic]:
        out.append(f"Measured on synthetic data, so no statement about real data: {_names(made)}.")
    return out


def _tasks(n: int) -> str:
    return f"{n} task" if n == 1 else f"{n} tasks"


def _names(results: Iterable[Result]) -> str:
    names = [esc(r.task) for r in results]
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def results_section(results: list[Result], start: Any = None) -> str:
    """What the table says, the table, and what the model that the run began from knew and what of it is left.

    A row a task; on a narrow screen the style makes a block of each row.
    """
    return render(
        "results.html",
        sentences=verdict_sentences(results),
        results=results,
        joined=any(r.joined for r in results),
        start=start if isinstance(start, dict) and start.get("tasks") else None,
    )
