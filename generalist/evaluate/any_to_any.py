"""Retrieval from every modality to every other on records that hold several: how far one shared space reaches.

Each modality of a record is encoded by itself, so that pairs which no task ever compared show what the space gives
for nothing (ImageBind, 2305.05665, section 4, "emergent" retrieval). The model's folder says which pairs were trained.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from generalist.data.base.errors import UserError, nearest
from generalist.data.batch.pack import pack
from generalist.data.batch.routes import Role
from generalist.data.files.cache import content_key
from generalist.data.stream.source import Records
from generalist.data.tools.check import content
from generalist.evaluate import measures, predictions
from generalist.hf.card import trained_pairs
from generalist.model.model import PackedModel
from generalist.model.processor import Processor
from generalist.tasks.measures.lines import Columns, gallery, gallery_chance, joined


def fields_of(processor: Processor, records: Records, inputs: dict[str, str]) -> dict[str, str]:
    """{modality: field}: those given, or the model's modalities that name a field of the records. UserError: < 2."""
    if not len(records):
        raise UserError("there is no record to evaluate")
    known = records[0]
    for modality, name in inputs.items():
        if modality not in processor.built:
            raise UserError(f"this model has no modality {modality!r}; {nearest(modality, processor.built)}")
        if name not in known:
            raise UserError(f"no field {name!r}; {nearest(name, known)}")
    inputs = inputs or {m: m for m, modality in processor.built.items() if m in known and modality.takes_input}
    if len(inputs) < 2:
        raise UserError(
            f"any-to-any needs two modalities at least, got {list(inputs)}; give --input MODALITY=FIELD twice "
            f"(the records have {', '.join(map(str, known))})"
        )
    return inputs


@dataclass(frozen=True)
class Standing:
    """On which side of the question a modality stands, and what it is told of the other."""

    modality: str
    candidate: bool = False
    role: Role | None = None


def standings(model: PackedModel, source: str, target: str) -> tuple[Standing, Standing]:
    """How two modalities are compared: as the task that compares them does, in its order; else the source asks.

    A model whose features do not depend on it has one standing of every modality.
    """
    if model.router is None and not (model.prompts is not None and model.prompts.separate):
        return Standing(source), Standing(target)
    turned = not model.sides.fitting({source}, {target}) and bool(model.sides.fitting({target}, {source}))
    first, second = (target, source) if turned else (source, target)
    roles = model.sides.roles({first}, {second})
    found = Standing(first, False, roles[0]), Standing(second, True, roles[1])
    return (found[1], found[0]) if turned else found


@torch.no_grad()
def encoded(
    model: PackedModel, processor: Processor, records: Records, how: Standing, name: str, batch: int = 64
) -> tuple[Tensor, np.ndarray]:
    """Unit vectors of one field of every record, Float[n D], and a number for each that is equal where its content is.

    The numbers: Int[n].
    """
    found: list[Tensor] = []
    keys: list[str] = []
    for start in range(0, len(records), batch):
        values = []
        for i in range(start, min(start + batch, len(records))):
            record = records[i]
            if record.get(name) is None:
                raise UserError(f"record {record.get('id', i)} has no {name!r}; any-to-any needs it in every record")
            values.append(record[name])
            keys.append(content_key(content(record[name])[0]))
        packed = pack(processor(**{how.modality: values}), how.role).to(model.device)
        found.append(model.features(packed, how.candidate))
    unit = nn.functional.normalize(torch.cat(found).float(), dim=-1).cpu()
    return unit, np.unique(keys, return_inverse=True)[1]


def ask(
    model: PackedModel, processor: Processor, records: Records, inputs: dict[str, str]
) -> tuple[dict[str, Any], Columns]:
    """Every ordered pair of modalities: what any_to_any.json holds, and a line a question (`tasks.measures.lines`,
    gallery)."""
    inputs = fields_of(processor, records, inputs)
    pairs = {pair: standings(model, *pair) for pair in permutations(inputs, 2)}
    every = dict.fromkeys(how for pair in pairs.values() for how in pair)
    vectors = {how: encoded(model, processor, records, how, inputs[how.modality]) for how in every}
    alike = {how.modality: numbers for how, (_, numbers) in vectors.items()}
    trained = trained_pairs(processor)
    parts: list[Columns] = []
    rows: list[dict[str, Any]] = []
    for (source, target), (question, answer) in pairs.items():
        right = (alike[target][:, None] == alike[target]) | (alike[source][:, None] == alike[source])
        way = f"{source} to {target}"
        part = gallery(vectors[question][0] @ vectors[answer][0].T, torch.from_numpy(right), way)
        parts.append({"record": np.arange(len(records)), **part})
        known = None if trained is None else frozenset((source, target)) in trained
        rows.append({"from": source, "to": target, "trained": known, "chance": gallery_chance(part)["recall@1"]})
    columns = joined(parts)
    found = measures.intervals("gallery", columns)
    for row in rows:
        row |= {
            f"recall@{k}": found.get(f"recall@{k} {row['from']} to {row['to']}", found[f"recall@{k}"]) for k in (1, 5)
        }
    about = str(records.info.get("about", ""))
    return {"modalities": list(inputs), "n": len(records), "about": about, "pairs": rows}, columns


def table(result: dict[str, Any]) -> str:
    """R@1 from the row's modality to the column's; * marks pairs never trained together."""
    names = result["modalities"]
    cell = {(row["from"], row["to"]): row for row in result["pairs"]}
    width = max(9, *(len(n) + 1 for n in names))
    lines = ["R@1, from the row to the column", " " * width + "".join(n.rjust(width) for n in names)]
    for source in names:
        words = []
        for target in names:
            row = cell.get((source, target))
            mark = "" if row is None else {True: " ", False: "*", None: "?"}[row["trained"]]
            words.append(("-" if row is None else f"{row['recall@1']['value']:.4f}{mark}").rjust(width))
        lines.append(source.ljust(width) + "".join(words))
    chances = [row["chance"] for row in result["pairs"]]
    chance = f"{min(chances):.4f}" + ("" if max(chances) - min(chances) < 5e-5 else f" to {max(chances):.4f}")
    notes = {False: "* never trained together", None: "? the model's folder does not say whether trained together"}
    known = [note for value, note in notes.items() if any(row["trained"] is value for row in result["pairs"])]
    return "\n".join([*lines, "; ".join([f"chance {chance}, {result['n']} records", *known])])


def save(out: Path, result: dict[str, Any], ids: list[str], columns: Columns) -> None:
    """any_to_any.json, which the report draws, and any_to_any.jsonl, from which every number follows."""
    predictions.save(out / "any_to_any.jsonl", {"lines": "gallery", "metric": "recall@1"}, ids, columns)
    (out / "any_to_any.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
