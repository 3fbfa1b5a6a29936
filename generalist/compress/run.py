"""`compress`: a model folder beside another, smaller; both measured as they are read back; the source is not touched.

compress.json     what was done and the table: tasks, bytes, parameters, multiply-adds, milliseconds, memory, before and
                  after
README.md         the source's card with the same table
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from generalist.compress.costs import counted, milliseconds
from generalist.compress.lessons import Lessons
from generalist.compress.methods import Method
from generalist.compress.questions import Question, asked_of
from generalist.compress.table import SIDES, section
from generalist.compress.ways.stems import SETTING
from generalist.compress.work import Work
from generalist.convert.files import load_folder
from generalist.data.base.errors import UserError
from generalist.hf.folder import write_json
from generalist.hf.saved import read_model
from generalist.model.folder.stored import read_small
from generalist.shipped import model_folder

WEIGHTS = ("model*.safetensors", "model.safetensors.index.json", "pytorch_model*.bin", "pytorch_model*.json")
FILE = "compress.json"


def compress(
    place: Path,
    methods: Sequence[Method],
    out: Path,
    questions: Callable[[Any, Any], list[Question]],
    lessons: Callable[[Any, Any], Lessons] | None = None,
) -> dict[str, Any]:
    """Writes `out` and returns what compress.json holds. questions: of a model and its processor; lessons: likewise,
    opened by the first method that looks at training data.

    UserError: no model at `place`, one that is compressed already, an `out` that exists or lies in the model's folder.
    """
    source, under_way = source_of(place), out.with_name(f"{out.name}.partial")
    for there in (out, under_way):
        if there.exists():
            raise UserError(f"{there} exists already; choose another --out or remove it")
    if out.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{out} lies in the model's own folder; choose another --out")
    model, processor = read_model(source)
    if read_small(sorted(source.glob("model*.safetensors"))) is not None:
        raise UserError(f"{place} is compressed already; compress the model that it was made from")
    asked = questions(model, processor)
    learn = None if lessons is None else partial(lessons, model, processor)
    work = Work(read_model(source)[0], source, learn)
    done = [method.run(work) for method in methods]
    try:
        write(work, source, under_way)
        found = measured([model, read_model(under_way)[0]], [source, under_way], asked)
        found = {"source": str(place), "methods": done, **found}
        (under_way / FILE).write_text(json.dumps(found, indent=1), encoding="utf-8")
        card = source / "README.md"
        told = card.read_text(encoding="utf-8").rstrip() if card.is_file() else "# A compressed model"
        (under_way / "README.md").write_text(f"{told}\n\n{section(found)}", encoding="utf-8")
        under_way.rename(out)
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror}); free disk space or choose another --out") from error
    finally:
        shutil.rmtree(under_way, ignore_errors=True)
    return found


def source_of(place: Path) -> Path:
    """The model folder. UserError where there is none."""
    source = model_folder(place)
    if source is None:
        raise UserError(f"{place} holds no trained model (no model/config.json); give a run's or a model's folder")
    return source


def write(work: Work, source: Path, folder: Path) -> None:
    """The source's folder with other weights, in one file, and with the configuration of what became of the model."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(*WEIGHTS, "__pycache__"))
    if work.other:
        work.model.save_pretrained(folder)
        tell_processor(folder, work.model.config.modalities)
    tensors = load_folder(folder if work.other else source)
    for path in (path for pattern in WEIGHTS for path in folder.glob(pattern)):
        path.unlink()
    save_file(work.stored(tensors), folder / "model.safetensors", metadata={"format": "pt"})


def tell_processor(folder: Path, modalities: dict[str, dict[str, Any]]) -> None:
    """Sizes of modalities that a method changed stand in the processors' files too."""
    for path in (folder / "processor_config.json", folder / "preprocessor_config.json"):
        told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        for entry in (entry for entry in told.values() if isinstance(entry, dict)):
            for name in entry.keys() & modalities.keys():
                if SETTING in modalities[name]:
                    entry[name][SETTING] = modalities[name][SETTING]
        if told:
            write_json(path, told)


def measured(models: Sequence[Any], folders: Sequence[Path], questions: Sequence[Question]) -> dict[str, Any]:
    """{"before": {"bytes", "parameters", "nonzero"}, "after": ..., "tasks": {name: ..., "feature_change"}, "notes"}."""
    found: dict[str, Any] = {
        side: size_of(model, folder) for side, model, folder in zip(SIDES, models, folders, strict=True)
    }
    tasks: dict[str, Any] = {}
    for question in questions:
        (first, a), (second, b) = (asked_of(model, question) for model in models)
        times, costs = milliseconds(models, question), [counted(model, question) for model in models]
        sides = {
            s: {k: line[k] for k in ("value", "low", "high")} for s, line in zip(SIDES, (first, second), strict=True)
        }
        for side, taken, cost in zip(SIDES, times, costs, strict=True):
            sides[side] |= {"milliseconds": taken, **cost}
        change = None  # features of another width lie in another space
        if a.shape == b.shape:
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
