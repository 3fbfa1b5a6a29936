"""The model card: README.md of the model folder, with the results that were measured and nothing else."""

from __future__ import annotations

import re
from itertools import combinations, product
from pathlib import Path
from typing import Any

from generalist.model.processor import Processor

HEAD = """---
library_name: transformers
license: apache-2.0
tags: [generalist, multimodal, zero-shot]
---

# {title}

One encoder for {modalities}; the answer to an input is the candidate whose representation is most like it:
`p(y | x) ~ exp(cos(f(x), f(y)) * scale)`.

```python
import generalist                      # or trust_remote_code=True below
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained("{path}").eval()
processor = AutoProcessor.from_pretrained("{path}")
inputs = processor({example})
p = model.rank(inputs, processor.candidates(["one answer", "another answer"]), scale="{scale}")
```
"""


def model_card(title: str, processor: Any, scale: str, metrics: dict[str, Any] | None = None, path: str = ".") -> str:
    """The card's text. metrics: what metrics.json holds; without it the card says that nothing was measured."""
    names = [name for name, modality in processor.built.items() if modality.takes_input]
    shown = next((n for n in names if processor.built[n].tensor_names), names[0] if names else "text")
    text = HEAD.format(
        title=plain(title),
        modalities=plain(", ".join(names)) or "no modality",
        path=path,
        example=f"{word(shown)}=...",
        scale=word(scale),
    )

    pairs = trained_pairs(processor)
    if pairs:
        text += f"\nTrained together: {plain(', '.join(sorted(' - '.join(sorted(pair)) for pair in pairs)))}.\n"
    return text + "\n## Measured results\n\n" + (results(metrics) if metrics else "None were measured.\n")


def plain(text: Any) -> str:
    """A name or title as it is read in Markdown: one line, no HTML, no mark-up, no end of a table's cell."""
    line = "".join(c if c.isprintable() else " " for c in " ".join(str(text).split()))
    line = re.sub(r"([\\`*\[\]|~#$]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", line)
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def word(name: str) -> str:
    """A name within the example's code: letters, digits and signs that end neither the code nor the line."""
    return "".join(c if c.isalnum() or c in "_-." else "_" for c in name)


def results(metrics: dict[str, Any]) -> str:
    """The held-out table of metrics.json in Markdown."""
    rows = ["| task | metric | value | chance | baseline | test samples | data |", "|---|---|---|---|---|---|---|"]
    for name, line in metrics["tasks"].items():
        arrow = "higher is better" if line["higher_is_better"] else "lower is better"
        value, chance, base = ("-" if line[k] is None else f"{line[k]:.4g}" for k in ("value", "chance", "baseline"))
        value = f"failed: {plain(line['error'])}" if "error" in line else value
        data = "synthetic" if line["synthetic"] else "real"
        rows.append(
            f"| {plain(name)} | {plain(line['metric'])} ({arrow}) | {value} | {chance} "
            f"| {base} ({plain(line['baseline_name'])}) "
            f"| {line['n_test']} | {data} |"
        )
    facts = f"\n{metrics['parameters']:,} parameters, {metrics['steps']} training steps.\n"
    return "\n".join(rows) + "\n" + facts


def write_card(folder: Path, title: str, processor: Any, scale: str, metrics: dict[str, Any] | None = None) -> None:
    """README.md of a model folder."""
    (folder / "README.md").write_text(model_card(title, processor, scale, metrics), encoding="utf-8")


def trained_pairs(processor: Processor) -> set[frozenset[str]] | None:
    """Pairs of modalities that a task read together or compared; None where the folder does not say."""
    if not processor.tasks:
        return None
    pairs = set()
    for task in processor.tasks.values():
        pairs |= {frozenset(pair) for pair in combinations(task.inputs, 2)}
        pairs |= {frozenset(pair) for pair in product(task.inputs, task.answers_in()) if len(set(pair)) == 2}
    return pairs
