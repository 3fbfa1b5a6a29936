"""Any saved model on any labelled data, among any candidate names; nothing is trained.

Candidates are encoded once and kept by a hash of the model's weights and the names, so that the next evaluation of
the same model finds them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from data.errors import UserError, nearest
from data.pack import pack
from data.source import Records
from generalist.measures import measure
from generalist.model import GeneralistModel
from generalist.processor import GeneralistProcessor
from tasks.candidates import Names


def content_hash(model: GeneralistModel, names: list[str]) -> str:
    """Of every weight and the candidates' names, in order."""
    digest = hashlib.sha256(json.dumps(names).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def candidate_features(
    model: GeneralistModel, processor: GeneralistProcessor, names: list[str], cache: Path | None = None
) -> Tensor:
    """f of each name Float[K D], not normalised; from `cache` where it holds them."""
    file = None if cache is None else cache / f"{content_hash(model, names)}.safetensors"
    if file is not None and file.is_file():
        return load_file(str(file))["features"].to(model.device)
    found = model.features(pack(Names(names).sequences(processor.built)).to(model.device), candidate=True)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({"features": found.cpu().contiguous()}, str(file))
    return found


def label_of(record: dict[str, Any], field: str, classes: list[str], names: list[str]) -> int:
    """A record's label as a place among `names`. UserError for a class that is none of them."""
    if field not in record:
        raise UserError(f"no field {field!r}; {nearest(field, record)}")
    label = record[field]
    if not isinstance(label, str):
        if not 0 <= int(label) < len(classes):
            raise UserError(f"class index {label} is outside 0..{len(classes) - 1}; give the names with --classes")
        label = classes[int(label)]
    if label not in classes:
        raise UserError(f"unknown class {label!r} in the data; {nearest(label, classes)}")
    return classes.index(label)


@torch.no_grad()
def zero_shot(
    model: GeneralistModel,
    processor: GeneralistProcessor,
    records: Records,
    inputs: dict[str, str],
    label: str = "label",
    classes: list[str] | None = None,
    template: str = "{}",
    scale: str | None = None,
    cache: Path | None = None,
    batch: int = 128,
    seed: int = 0,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Measures (`measures.measure`) and one line a sample: {"id", "label", "answer", "log_p"}.

    inputs: {modality: field of the record}. classes: the names behind the labels, those of the data by default;
    template: what is asked for a name, such as "a photo of {}".
    """
    classes = [str(c) for c in classes or records.info.get("classes", [])]
    if "{}" not in template:
        raise UserError(f"the template {template!r} has no {{}} for the name")
    names = Names([template.format(c) for c in classes]).names
    if not len(records):
        raise UserError("there is no record to evaluate")
    keys = candidate_features(model, processor, names, cache)
    log_p, labels = [], []
    for start in range(0, len(records), batch):
        rows = [records[i] for i in range(start, min(start + batch, len(records)))]
        for name in inputs.values():
            if name not in rows[0]:
                raise UserError(f"no field {name!r}; {nearest(name, rows[0])}")
        sequences = processor(**{m: [row[f] for row in rows] for m, f in inputs.items()})
        queries = model.features(pack(sequences).to(model.device))
        log_p.append(model.score(queries, keys, scale or model.config.zero_shot_scale).cpu())
        labels += [label_of(row, label, classes, names) for row in rows]
    table, truth = torch.cat(log_p).numpy(), np.array(labels)
    samples = [
        {
            "id": str(records[i].get("id", i)),
            "label": classes[y],
            "answer": classes[int(row.argmax())],
            "log_p": row.tolist(),
        }
        for i, (row, y) in enumerate(zip(table, labels, strict=True))
    ]
    result = {"candidates": names, "scale": scale or model.config.zero_shot_scale, **measure(table, truth, seed)}
    return result, samples


def save_result(out: Path, result: dict[str, Any], samples: list[dict[str, Any]]) -> None:
    """result.json and predictions.jsonl; the plot of the reliability diagram beside them."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
        with (out / "predictions.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(sample) + "\n" for sample in samples)
        plot_reliability(result, out / "reliability.svg")
    except OSError as error:
        raise UserError(f"cannot write to {out} ({error.strerror}); choose another --out") from error


def plot_reliability(result: dict[str, Any], path: Path) -> None:
    """Accuracy over confidence, with the diagonal of perfect calibration; dots as large as their bins are full."""
    from matplotlib.figure import Figure

    axes = Figure(figsize=(4, 4), layout="constrained").subplots()
    axes.plot([0, 1], [0, 1], color="0.7", label="perfect")
    lines = result["reliability"]
    size = [200 * line["count"] / result["n"] + 10 for line in lines]
    axes.scatter([li["confidence"] for li in lines], [li["accuracy"] for li in lines], s=size, label="measured")
    axes.set(xlabel="confidence", ylabel="accuracy", title=f"ECE {result['measures']['ECE']['value']:.3f}")
    axes.legend()
    axes.figure.savefig(path)  # type: ignore[union-attr]
