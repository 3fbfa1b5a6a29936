"""`compress`: a model folder beside another, smaller; both measured as they are read back; the source is not touched.

compress.json     what was done and the table: tasks, bytes, parameters, milliseconds, before and after
README.md         the source's card with the same table
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from generalist.compress.methods import Method, Work
from generalist.compress.questions import Question, asked_of, milliseconds
from generalist.convert.files import load_folder
from generalist.data.base.errors import UserError
from generalist.hf.card import plain
from generalist.hf.saved import read_model
from generalist.model.stored import read_small
from generalist.shipped import model_folder

WEIGHTS = ("model*.safetensors", "model.safetensors.index.json", "pytorch_model*.bin", "pytorch_model*.json")
FILE = "compress.json"
SIDES = ("before", "after")


def compress(
    place: Path, methods: Sequence[Method], out: Path, questions: Callable[[Any, Any], list[Question]]
) -> dict[str, Any]:
    """Writes `out` and returns what compress.json holds. questions: of a model and its processor.

    UserError: no model at `place`, one that is compressed already, an `out` that exists or lies in the model's folder.
    """
    source, partial = source_of(place), out.with_name(f"{out.name}.partial")
    for there in (out, partial):
        if there.exists():
            raise UserError(f"{there} exists already; choose another --out or remove it")
    if out.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{out} lies in the model's own folder; choose another --out")
    model, processor = read_model(source)
    if read_small(sorted(source.glob("model*.safetensors"))) is not None:
        raise UserError(f"{place} is compressed already; compress the model that it was made from")
    asked = questions(model, processor)
    work = Work(read_model(source)[0])
    done = [method.run(work) for method in methods]
    try:
        write(work, source, partial)
        found = measured([model, read_model(partial)[0]], [source, partial], asked)
        found = {"source": str(place), "methods": done, **found}
        (partial / FILE).write_text(json.dumps(found, indent=1), encoding="utf-8")
        card = source / "README.md"
        told = card.read_text(encoding="utf-8").rstrip() if card.is_file() else "# A compressed model"
        (partial / "README.md").write_text(f"{told}\n\n{section(found)}", encoding="utf-8")
        partial.rename(out)
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror}); free disk space or choose another --out") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return found


def source_of(place: Path) -> Path:
    """The model folder. UserError where there is none."""
    source = model_folder(place)
    if source is None:
        raise UserError(f"{place} holds no trained model (no model/config.json); give a run's or a model's folder")
    return source


def write(work: Work, source: Path, folder: Path) -> None:
    """The source's folder with other weights, in one file."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(*WEIGHTS, "__pycache__"))
    save_file(work.stored(load_folder(source)), folder / "model.safetensors", metadata={"format": "pt"})


def measured(models: Sequence[Any], folders: Sequence[Path], questions: Sequence[Question]) -> dict[str, Any]:
    """{"before": {"bytes", "parameters", "nonzero"}, "after": ..., "tasks": {name: ..., "feature_change"}, "notes"}."""
    found: dict[str, Any] = {
        side: size_of(model, folder) for side, model, folder in zip(SIDES, models, folders, strict=True)
    }
    tasks: dict[str, Any] = {}
    for question in questions:
        (first, a), (second, b) = (asked_of(model, question) for model in models)
        times = milliseconds(models, question)
        sides = {
            s: {k: line[k] for k in ("value", "low", "high")} for s, line in zip(SIDES, (first, second), strict=True)
        }
        for side, taken in zip(SIDES, times, strict=True):
            sides[side]["milliseconds"] = taken
        change = float((b.float() - a.float()).norm() / a.float().norm().clamp(min=1e-30))
        head = {name: first[name] for name in ("metric", "higher_is_better", "n")}
        tasks[question.task.name] = {**head, **sides, "feature_change": change}
    notes = [question.note for question in questions if question.note]
    return found | {"tasks": tasks, "notes": notes}


def size_of(model: Any, folder: Path) -> dict[str, int]:
    """Bytes on disk, of the weights and of the folder (compress.json not yet in it); parameters, and those not zero."""
    weights = {path for pattern in WEIGHTS for path in folder.glob(pattern)}
    return {
        "weight_bytes": sum(path.stat().st_size for path in weights),
        "folder_bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "parameters": sum(p.numel() for p in model.parameters()),
        "nonzero": sum(int(p.detach().count_nonzero()) for p in model.parameters()),
    }


def rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """(what, before, after) of everything that was measured."""
    before, after = (found[side] for side in SIDES)
    table: list[tuple[str, ...]] = [("", *SIDES)]
    for name, line in found["tasks"].items():
        arrow = "higher" if line["higher_is_better"] else "lower"
        table.append((f"{name}: {line['metric']} ({arrow}, n {line['n']})", *(value(line[side]) for side in SIDES)))
    for name, line in found["tasks"].items():
        for size in line["before"]["milliseconds"]:
            label = f"{name}: ms a sample, batch {size}"
            table.append((label, *(f"{line[side]['milliseconds'][size]:.3g}" for side in SIDES)))
        table.append((f"{name}: features changed by", "", f"{line['feature_change']:.2g}"))
    labels = {"weight_bytes": "bytes of weights", "folder_bytes": "bytes of the folder", "nonzero": "not zero"}
    for key in before:
        table.append((labels.get(key, key), f"{before[key]:,}", f"{after[key]:,} ({after[key] / before[key]:.2f}x)"))
    return table


def value(side: dict[str, Any]) -> str:
    bounds = "" if side["low"] is None else f" ({side['low']:.3g} .. {side['high']:.3g})"
    return f"{side['value']:.4g}{bounds}"


def table(found: dict[str, Any]) -> str:
    """The same as text, with what each method says of itself."""
    lines = rows(found)
    widths = [max(len(line[i]) for line in lines) for i in range(3)]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*shown, *(said(method) for method in found["methods"]), *found["notes"]])


def said(method: dict[str, Any]) -> str:
    """`prune: share given 0.3, weights 1,000, zeros 300, share 0.3`."""
    facts = [f"{k} {v:,}" if isinstance(v, int) else f"{k} {v:.3g}" for k, v in method.items() if k != "method"]
    return f"{method['method']}: {', '.join(facts) or 'weights stored as int8 with a scale a row'}"


def section(found: dict[str, Any]) -> str:
    """The same for the card."""
    head, *rest = rows(found)
    lines = [f"| {' | '.join(head)} |", "|---|---|---|", *(f"| {' | '.join(map(plain, row))} |" for row in rest)]
    told = [f"- {plain(said(method))}" for method in found["methods"]]
    return "\n".join(["## Compressed", "", *told, "", *lines, ""])
