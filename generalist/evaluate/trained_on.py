"""What a run was trained on, as its recipe says, for whoever looks other samples up in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
from generalist.data.stream.source import Record, Records
from generalist.shipped import model_folder


@dataclass
class Renamed(Sequence[Record]):
    """Records of several tasks one after the other, with their fields called as the evaluated records call them.

    parts: (task, its records, {field there: field here}).
    """

    parts: list[tuple[str, Records, dict[str, str]]]

    def __len__(self) -> int:
        return sum(len(records) for _, records, _ in self.parts)

    def __getitem__(self, number: Any) -> Any:
        for task, records, names in self.parts:
            if number < len(records):
                record = records[number]
                found = {here: record[there] for there, here in names.items() if there in record}
                return found | {"id": f"{task}: {record.get('id', number)}"}
            number -= len(records)
        raise IndexError(number)


def recipe_of(model: Path) -> Path | None:
    """The recipe of a run's folder, of the model folder within it or of a shipped model; None where there is none."""
    if not model.is_dir():
        model = model_folder(model) or model
    places = [model / "recipe.json", *([model.parent / "recipe.json"] if model.name == "model" else [])]
    return next((place for place in places if place.is_file()), None)


def trained_on(model: Path, wanted: Mapping[str, str]) -> tuple[Records, set[str]] | None:
    """The training records of a run and of those that it began from, and the fields that they can be compared in.

    wanted: {modality: field of the evaluated records}. None where no recipe is beside the model. UserError: none of its
    tasks was shown any of these modalities, or what it was trained on is gone.
    """
    from generalist.recipe.load import load_recipe

    parts: list[tuple[str, Records, dict[str, str]]] = []
    fields: set[str] = set()
    seen: set[Path] = set()
    place = recipe_of(model)
    if place is None:
        return None
    shown: set[str] = set()
    while place is not None and place.resolve() not in seen:
        seen.add(place.resolve())
        recipe = load_recipe(str(place))
        for task in recipe.tasks:
            sides = task.inputs | task.other_side()
            shown |= set(sides)
            names = {there: wanted[modality] for modality, there in sides.items() if modality in wanted}
            if names:
                parts.append((task.name, task.open("train"), names))
                fields |= set(names.values())
        place = recipe_of(Path(recipe.init)) if recipe.init else None
    if not parts:
        raise UserError(
            f"{model} was trained on {', '.join(sorted(shown))}, on none of {', '.join(sorted(wanted))}; name other "
            "training data with --leakage TRAIN (of inspect: --training TRAIN)"
        )
    return Records(Renamed(parts)), fields
