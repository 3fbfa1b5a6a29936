"""A folder of pictures, sounds or clips by class, and a COCO folder of objects, as tasks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from generalist.data.base.errors import UserError
from generalist.data.sources.coco import CocoObjects
from generalist.data.sources.folder import Folder
from generalist.fitting.columns import media_kind
from generalist.fitting.defaults import TEST, VAL, batch_for, classes_for
from generalist.fitting.inputs.media import add_inputs, spread, words_for
from generalist.fitting.parts import Ask, House, Part, several
from generalist.recipes.detect_tiny import region
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.regions.detect import Detect


def folder_part(ask: Ask, house: House) -> Part:
    """Files in folders by class. UserError in one line where there are no classes."""
    if ask.test:
        raise UserError("--test is for tables; a folder holds its test files in a folder test/ beside train/")
    path = str(Path(ask.data).resolve())
    source = Folder(path, val=VAL, test=TEST, holdout=VAL)
    records = source.open("train")
    classes = records.info.get("classes") or []
    if len(classes) < 2:
        held = f"one class, {classes[0]!r}" if classes else "no folders by class"
        raise UserError(f"{ask.data}: {held}; put the files of each class into a folder of its name, CLASS/file")
    files = [records[i]["image"] for i in range(len(records))] if len(records) < 2000 else None
    some = spread(files) if files else [records[i * len(records) // 48]["image"] for i in range(48)]
    kind = media_kind(str(some[0]))
    every = sum(len(source.open(split)) for split in ("train", "val", "test"))  # each holds some, or it is said here
    inputs = dict.fromkeys(add_inputs(house, kind, some, every), "image")
    words_for(house, [str(c) for c in classes])
    task = Classify(
        name=house.name(ask.stem),
        source=source,
        inputs=inputs,
        batch=min(64, batch_for(len(records))),
        **classes_for(inputs),
    )
    how = f"{1 - VAL - TEST:.0%} train, {VAL:.0%} validation, {TEST:.0%} test by a hash of each name"
    if given := source.given():
        how = ", ".join(f"{split} in {folder.name}" for split, folder in sorted(given.items()))
        how += "" if "val" in given else f", {VAL:.0%} of train for validation by a hash of each name"
    told = [f"{ask.data}: {len(records):,} training {kind}s of {len(classes)} classes: {several(classes, 5)}; classify"]
    told.append(f"  read by {', '.join(inputs)} <- the file")
    told += [f"  {note}" for note in records.info.get("notes", [])[:2]]
    return Part(task, len(records), [*told, f"  split: {how}"], one_of=True)


def coco_part(ask: Ask, house: House) -> Part:
    """Objects with boxes, found and named by the small detector of the recipe detect_tiny."""
    folder = str(Path(ask.data.removeprefix("coco:")).resolve())
    source = CocoObjects(folder, strict=False)
    records = source.open("train")
    classes = [str(c) for c in records.info["classes"]]
    made = replace(region(), mean=[0.48, 0.46, 0.42], std=[0.25, 0.25, 0.27], augment={})
    name = house.add("region", made)
    words_for(house, [*classes, "nothing"])
    task = Detect(name=house.name(ask.stem), source=source, inputs={name: "image"}, batch=min(8, len(records)))
    told = [f"{ask.data}: {len(records):,} training pictures, objects of {len(classes)} classes: {several(classes, 5)}"]
    told += [f"  {note}" for note in records.info.get("notes", [])[:2]]
    files = ", ".join(dict.fromkeys(str(source.file(split).relative_to(folder)) for split in ("train", "val", "test")))
    return Part(task, len(records), [*told, f"  read by region <- image; split: by the folder's {files}; detect"])
