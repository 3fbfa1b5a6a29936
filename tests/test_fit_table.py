"""The table of `fit` on the sets: written from the kept results alone, which it is equal to."""

import json
from pathlib import Path

from generalist.scripts.fit_sets import SETS
from generalist.scripts.fit_table import shown

ROOT = Path(__file__).parent.parent


def kept() -> dict:
    files = sorted((ROOT / "scripts" / "bench_results").glob("*-fit.json"))
    return json.loads(files[-1].read_text(encoding="utf-8"))


def test_the_readme_says_what_is_kept():
    assert shown(kept()) in (ROOT / "generalist" / "fitting" / "README.md").read_text(encoding="utf-8")


def test_every_line_says_its_set_the_time_it_had_and_what_ran_beside_it():
    for line in kept()["lines"]:
        assert line["set"] in SETS and line["time"] and line["load"] is not None


def test_a_row_is_the_mean_of_its_seeds_and_what_failed_is_told():
    line = {"set": "wine", "time": "2m", "seconds": 9, "n": 34, "ordinary": None, "together": 0.98, "ECE": 0.01}
    lines = [line | {"seed": 0, "model": 0.9}, line | {"seed": 1, "model": 1.0}]
    lines.append({"set": "digits", "seed": 0, "time": "2m", "seconds": 9, "error": "no data"})
    rows = shown({"lines": lines}).splitlines()
    assert rows[2] == "| wine | 34 | accuracy | 0.950 | - | 0.980 | - | - | 0.010 | 2m |"
    assert rows[3].startswith("| digits |  | accuracy | failed |")
