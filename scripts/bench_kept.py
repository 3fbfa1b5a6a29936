"""A bench's results beside the last kept ones of the same machine type: what takes a twentieth longer is said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SLOWER = 1.05

Line = dict[str, Any]
Key = tuple[str, str, str]


def slower(results: dict[str, Any], kept: Path, label: str) -> list[str]:
    """A line for every result that lost more than `SLOWER` against the newest kept file that holds the same one.

    kept: the folder of earlier results, label: the machine type that ends their names. Ratios are compared by processor
    time, which other work beside the measure moves least; values that are no ratios as they are.
    """
    files = sorted(kept.glob(f"*-{label}.json"), reverse=True)
    before: dict[Key, tuple[float, str]] = {}
    for file in files:
        for key, value in values(json.loads(file.read_text(encoding="utf-8"))):
            before.setdefault(key, (value, file.name))
    return [
        f"slower than in {before[key][1]}: {' / '.join(filter(None, key[1:]))} {before[key][0]:.3g} -> {value:.3g}"
        for key, value in values(results)
        if key in before and value > SLOWER * before[key][0]
    ]


def values(results: dict[str, Any]) -> Iterator[tuple[Key, float]]:
    """((section, what, against), what is compared) of every line that has something to compare; less is better."""
    for section, lines in results.get("sections", {}).items():
        for line in lines if isinstance(lines, list) else []:
            value = line.get("cpu_ratio", line.get("least"))
            if value is not None and "failed" not in line:
                yield (section, line["what"], line.get("against", "")), float(value)
