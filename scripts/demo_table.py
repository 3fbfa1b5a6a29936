"""The demo's results, kept once in `bench_results/demo.json`: the README's table and the recipe's header follow.

make demo && python -m scripts.demo_table runs/demo     # keep this run's results and write both anew
python -m scripts.demo_table                            # print them as kept
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
KEPT = Path(__file__).resolve().parent / "bench_results" / "demo.json"
README, RECIPE = ROOT / "README.md", ROOT / "generalist" / "recipes" / "demo.py"
HEAD = "| task | metric | value | chance | ordinary baseline | reached | test items |\n|---|---|---|---|---|---|---|\n"
BEFORE = "Expect on held-out data (seed 0; diabetes rmse and series mae are better when lower):\n\n"
SHOWS = {
    "digits": "handwritten digits (image)",
    "glyphs": "font glyphs and their Unicode names (image ↔ text)",
    "masked_words": "prose of docstrings (text)",
    "wine": "wine (table)",
    "breast_cancer": "breast cancer (table)",
    "diabetes": "diabetes (table, a distribution over numbers)",
    "series": "15 economic and natural series (forecast 24 steps)",
    "tones": "generated sounds, *synthetic* (audio)",
    "solids": "generated solids, *synthetic* (points)",
}
TAKEN = ("metric", "value", "chance", "baseline", "baseline_name", "higher_is_better", "n_test", "synthetic")


def kept(path: Path = KEPT) -> dict[str, Any]:
    """The kept results: {"steps", "seconds" of training, "parameters", "tasks": {name: a line of metrics.json}}."""
    return json.loads(path.read_text(encoding="utf-8"))


def from_run(run: Path) -> dict[str, Any]:
    """What is kept of a run of the demo. UserError: no finished run, or a task without a result."""
    try:
        metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{run} holds no results ({error}); give the folder of a finished `make demo`") from error
    lost = [name for name in SHOWS if metrics["tasks"].get(name, {}).get("value") is None]
    if lost:
        raise UserError(f"{run}: no result of {', '.join(lost)}")
    tasks = {name: {key: metrics["tasks"][name][key] for key in TAKEN} for name in SHOWS}
    return {key: metrics[key] for key in ("steps", "parameters")} | {
        "seconds": metrics["seconds"]["train"],
        "tasks": tasks,
    }


def readme_table(results: dict[str, Any]) -> str:
    """The README's rows."""
    rows = []
    for name, line in results["tasks"].items():
        better = line["value"] >= line["baseline"] if line["higher_is_better"] else line["value"] <= line["baseline"]
        method = re.split(r",| C=| alpha=", line["baseline_name"])[0]
        metric = line["metric"] + ("" if line["higher_is_better"] else " ↓")
        cells = [f"{name}: {SHOWS[name]}", metric, f"**{line['value']:.3g}**", f"{line['chance']:.3g}"]
        cells += [f"{line['baseline']:.3g} ({method})", "yes" if better else "no", str(line["n_test"])]
        rows.append("| " + " | ".join(cells) + " |\n")
    return HEAD + "".join(rows)


def header(results: dict[str, Any]) -> str:
    """The lines of the recipe's docstring."""
    lines = [
        f"    {name:<13} {line['metric']:<8} {line['value']:<6.3g} chance {line['chance']:<7.3g} "
        f"baseline {line['baseline']:.3g}\n"
        for name, line in results["tasks"].items()
    ]
    return BEFORE + "".join(lines)


def in_readme(text: str, results: dict[str, Any]) -> str:
    return _put(text, HEAD, r"(?:\|[^\n]*\n)+", readme_table(results), "the README")


def in_recipe(text: str, results: dict[str, Any]) -> str:
    return _put(text, BEFORE, r"(?: {4}\w[^\n]*\n)+", header(results), "the recipe")


def _put(text: str, before: str, rows: str, new: str, where: str) -> str:
    out, count = re.subn(re.escape(before) + rows, lambda _: new, text)
    if count != 1:
        raise UserError(f"{where} holds {count} tables of the demo; one is wanted")
    return out


def main(words: list[str]) -> int:
    if words:
        results = from_run(Path(words[0]))
        KEPT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        README.write_text(in_readme(README.read_text(encoding="utf-8"), results), encoding="utf-8")
        RECIPE.write_text(in_recipe(RECIPE.read_text(encoding="utf-8"), results), encoding="utf-8")
    print(readme_table(kept()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
