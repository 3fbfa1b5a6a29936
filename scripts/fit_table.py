"""`generalist fit` on every set, with nothing set but the label: model alone, ordinary method, both together.

    python -m scripts.fit_table DATA                                    # ten minutes a set, seeds 0 1 2
    python -m scripts.fit_table DATA --time 1m --seeds 0 --sets wine adult banking77
    python -m scripts.fit_table --show scripts/bench_results/DATE-fit.json  # the table, from the file alone

A set that fails is a line with its reason. The table goes to the standard output, everything measured into
scripts/bench_results/DATE-fit.json, which is renewed after each set; with --out FILE what stands there of the same set,
seed and time is kept. Every line says the time it had and how many processes ran beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from generalist.data.base.errors import UserError, nearest
from scripts.fit_sets import SETS, Words, written
from scripts.tables import columns

RESULTS = Path(__file__).parent / "bench_results"
HEAD = ("set", "measure", "model", "ordinary", "together", "known", "target", "ECE", "n", "s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="the folder of the sets")
    parser.add_argument("--time", default="10m", help="of each fit (10m)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", default=list(SETS), metavar="SET")
    parser.add_argument("--work", type=Path, help="where the sets and runs are written (a temporary folder)")
    parser.add_argument("--out", type=Path, help="the JSON file; what it holds already is kept")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the table of such a file")
    args = parser.parse_args()
    if args.show:
        print(shown(json.loads(args.show.read_text(encoding="utf-8"))))
        return
    if args.data is None:
        raise UserError("give the folder of the sets; example: python -m scripts.fit_table ../shared/data")
    for name in args.sets:
        if name not in SETS:
            raise UserError(f"no set {name!r}; {nearest(name, SETS)}")
    out = args.out or RESULTS / f"{datetime.now():%Y-%m-%d-%H%M}-fit.json"
    about = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    about["threads"] = os.environ.get("OMP_NUM_THREADS", "all")
    held = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {"lines": []}
    lines: list[dict[str, Any]] = held["lines"]
    known = {(line["set"], line["seed"], line.get("time")) for line in lines}
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or Path(scratch)
        for name in args.sets:
            words = written(name, args.data.resolve(), work / name)
            for seed in (seed for seed in args.seeds if (name, seed, args.time) not in known):
                lines.append(measured(name, words, work / name / f"run{seed}", args.time, seed))
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_text(json.dumps({**about, "lines": lines}, indent=1))
            print(columns([HEAD, row(name, [line for line in lines if line["set"] == name])]), flush=True)
    print(columns([HEAD, *(row(name, [line for line in lines if line["set"] == name]) for name in args.sets)]))


def measured(name: str, words: Words, run: Path, budget: str, seed: int) -> dict[str, Any]:
    """One fit in a process of its own: its numbers, or "error"."""
    began, load = time.monotonic(), os.getloadavg()[0]
    command = [sys.executable, "-m", "generalist.cli", "fit", *words, "--time", budget, "--seed", str(seed)]
    done = subprocess.run([*command, "--out", str(run), "--overwrite", "--json"], capture_output=True, text=True)
    line: dict[str, Any] = {"set": name, "seed": seed, "time": budget, "seconds": round(time.monotonic() - began, 1)}
    line["load"] = round(max(load, os.getloadavg()[0]), 1)
    try:
        metrics = json.loads(done.stdout)
        found = next(iter(metrics["tasks"].values()))
        if "error" in found:
            raise ValueError(found["error"])
    except (ValueError, KeyError) as error:
        why = (done.stderr.strip().splitlines() or [str(error)])[-1]
        return line | {"error": why if done.returncode else str(error)}
    measure = SETS[name].metric
    extra, both = found["extra"], found.get("together") or {}
    same = measure == found["metric"]
    return line | {
        "measure": measure,
        "model": extra[measure],
        "ordinary": found["baseline"] if same else None,
        "ordinary_name": found["baseline_name"],
        "together": both.get("measures", {}).get(measure),
        "weights": [both.get("a"), both.get("b")],
        "ECE": extra.get("ECE"),
        "ECE_together": both.get("measures", {}).get("ECE"),
        "n": found["n_test"],
        "steps": metrics["steps"],
        "parameters": metrics["parameters"],
        "notes": found.get("notes", []),
        "validation": metrics.get("validation"),
    }


def shown(held: dict[str, Any]) -> str:
    """A results file as the rows of a Markdown table, a set and time a row."""
    rows = ["| set | n | measure | model | ordinary | together | known | target | ECE | time |"]
    rows.append("|---" * (rows[0].count("|") - 1) + "|")
    for name in SETS:
        times = dict.fromkeys(line["time"] for line in held["lines"] if line["set"] == name)
        for given in times:
            lines = [line for line in held["lines"] if (line["set"], line["time"]) == (name, given)]
            _, measure, model, ordinary, both, known, target, ece, n, _ = row(name, lines)
            cells = (name, n, measure, model, ordinary, both, known, target, ece, given)
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def row(name: str, lines: list[dict[str, Any]]) -> tuple[str, ...]:
    """Means over the seeds that have a result."""
    about, sound = SETS[name], [line for line in lines if "error" not in line]
    if not sound:
        return (name, about.metric, "failed", *([""] * 7))

    def mean(key: str) -> str:
        found = [line[key] for line in sound if line[key] is not None]
        return f"{fmean(found):.3f}" if found else "-"

    known = ["-" if value is None else f"{value:.3f}" for value in (about.known, about.target)]
    shown = [mean(key) for key in ("model", "ordinary", "together")]
    seconds = fmean(line["seconds"] for line in lines)
    return (name, about.metric, *shown, *known, mean("ECE"), str(sound[0]["n"]), f"{seconds:.0f}")


if __name__ == "__main__":
    main()
