"""Small data in the forms that people have it: a function a form, each writes files and gives (source, task) pairs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pictures
from small import Listed

from generalist.data.sources.annotations.captions import CocoCaptions
from generalist.data.sources.coco import CocoObjects
from generalist.data.sources.folder import Folder
from generalist.data.sources.hub import Hub
from generalist.data.sources.local import Arrays
from generalist.data.sources.passages import Chunks, Neighbourhoods
from generalist.data.sources.shards import Shards
from generalist.data.sources.tabular import Tabular
from generalist.data.sources.windows import Windows
from generalist.tasks.base.task import Task
from generalist.tasks.kinds.answer import Answer
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.describe import Describe
from generalist.tasks.kinds.fill import Fill
from generalist.tasks.kinds.forecast import Forecast
from generalist.tasks.kinds.regions.detect import Detect
from generalist.tasks.kinds.regress import Regress
from generalist.tasks.kinds.restore import Restore, RestoreCodes
from generalist.tasks.kinds.retrieve import Retrieve

Cases = dict[str, Callable[[Path], Task]]
KINDS = ["square", "stripe"]
SPLIT_SIZES = {"train": 12, "val": 4, "test": 6}
SEEING = {"inputs": {"image": "image"}, "batch": 4}
HEARING = {"inputs": {"audio": "audio"}, "batch": 4}
COUNT = sum(SPLIT_SIZES.values())


def picture(kind: int, seed: int, size: tuple[int, int] = (10, 12)) -> Pictures.Image:
    """A bright square or a stripe on noise."""
    draw = np.random.default_rng(seed)
    array = draw.integers(0, 60, (*size, 3))
    array[2:8, (2 if kind else 0) : (4 if kind else 9)] = 220
    return Pictures.fromarray(array.astype(np.uint8))


def wave(kind: int, seed: int) -> np.ndarray:
    t = np.arange(1600) / 8000
    return 0.5 * np.sin(2 * np.pi * (300 + 500 * kind) * t) + 0.05 * np.random.default_rng(seed).normal(size=len(t))


def caption(kind: int, seed: int) -> str:
    return f"a bright {KINDS[kind]} of number {['one', 'two', 'three', 'four', 'five'][seed % 5]}"


def write_files(folder: Path, sounds: bool = False) -> Path:
    """SPLIT/CLASS/NUMBER.png (or .wav) of unequal sizes, with a text beside each."""
    import soundfile

    number = 0
    for split, count in SPLIT_SIZES.items():
        for i in range(count):
            path = folder / split / KINDS[i % 2] / f"{number}{'.wav' if sounds else '.png'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if sounds:
                soundfile.write(path, wave(i % 2, number)[: 1600 - 40 * i], 8000)
            else:
                picture(i % 2, number, (10 + i % 3, 12)).save(path)
            path.with_suffix(".txt").write_text(caption(i % 2, number))
            number += 1
    return folder


def folder_of_pictures(folder: Path) -> Folder:
    return Folder(str(write_files(folder / "photos")))


def folder_of_sounds(folder: Path) -> Folder:
    return Folder(str(write_files(folder / "calls", sounds=True)), name="audio")


def csv(folder: Path, **settings: Any) -> Tabular:
    """Numbers, words and gaps; the class and the price follow from the first column."""
    lines = ["age,city,note,kind,price"]
    for i in range(60):
        lines.append(f"{i},{'rome' if i % 3 else ''},a note of {i % 7} words,{KINDS[i % 2]},{3 * i + i % 5}")
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    return Tabular(str(folder / "t.csv"), **settings)


def jsonl_of_paths(folder: Path) -> Tabular:
    """A line a picture, which is named by its path."""
    splits = {}
    for split, count in SPLIT_SIZES.items():
        rows = []
        for i in range(count):
            path = folder / f"{split}{i}.png"
            picture(i % 2, i).save(path)
            rows.append({"image": str(path), "kind": KINDS[i % 2], "text": caption(i % 2, i)})
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        splits[split] = str(folder / f"{split}.jsonl")
    return Tabular(splits=splits, label="kind")


def hugging_face(folder: Path) -> Hub:
    """A set saved to disk with pictures, sounds (as bytes), texts and class labels; it has no validation split."""
    import datasets

    folder = folder / "hf"
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=KINDS),
        }
    )
    sets = {}
    for split, count in (("train", 12), ("test", 6)):
        rows = [{"image": picture(i % 2, i), "text": caption(i % 2, i), "label": i % 2} for i in range(count)]
        sets[split] = datasets.Dataset.from_list(rows, features)
    datasets.DatasetDict(sets).save_to_disk(folder)
    return Hub(str(folder))


def windows(folder: Path) -> Windows:
    t = np.arange(150)
    rows = [f"{np.sin(i / 3):.4f},{np.cos(i / 5) + 0.01 * i:.4f}" for i in t]
    (folder / "s.csv").write_text("a,b\n" + "\n".join(rows) + "\n")
    return Windows(
        str(folder / "s.csv"), {"train": [0, 90], "val": [90, 120], "test": [120, 150]}, 16, 4, stride=3, period=19
    )


def arrays(folder: Path) -> Arrays:
    """An npz with clouds, clips, pictures and motions."""
    draw = np.random.default_rng(0)
    label = np.arange(COUNT) % 2
    stretch = (1 + 2 * label)[:, None, None]
    np.savez(
        folder / "a.npz",
        cloud=draw.normal(size=(COUNT, 40, 3)) * np.concatenate([stretch, np.ones((COUNT, 1, 2))], 2),
        clip=(draw.integers(0, 100, (COUNT, 3, 10, 12, 3)) + 100 * label[:, None, None, None, None]).astype(np.uint8),
        image=(draw.integers(0, 100, (COUNT, 8, 8)) + 100 * label[:, None, None]).astype(np.uint8),
        motion=draw.normal(size=(COUNT, 30, 3)) * stretch,
        label=label,
        name=np.array(KINDS),
    )
    fields = {"points": "cloud", "video": "clip", "image": "image", "imu": "motion", "label": "label"}
    return Arrays(str(folder / "a.npz"), fields, shares=[0.5, 0.2, 0.3], classes=KINDS)


def text_file(folder: Path) -> Chunks:
    lines = [caption(i % 2, i) + f" and then {i % 9} more\n" for i in range(300)]
    (folder / "book.txt").write_text("".join(lines))
    return Chunks(str(folder / "book.txt"), size=120)


def graph(folder: Path) -> Neighbourhoods:
    draw = np.random.default_rng(0)
    label = np.arange(24) % 2
    x = draw.random((24, 5)) + label[:, None]
    row, col = np.nonzero(x > 0.3)
    edges = np.stack([np.arange(24), (np.arange(24) + 2) % 24])
    np.savez(
        folder / "g.npz",
        edge_index=edges,
        y=label,
        x_row=row,
        x_col=col,
        x_val=x[row, col],
        x_shape=np.array(x.shape),
        class_names=np.array(KINDS),
        idx_train=np.arange(12),
        idx_val=np.arange(12, 16),
        idx_test=np.arange(16, 24),
    )
    return Neighbourhoods(str(folder / "g.npz"), components=3)


def coco(folder: Path) -> Path:
    """Pictures with rectangles, their boxes and captions; no test files."""
    from PIL import ImageDraw

    images, notes, told = [], [], []
    for i in range(6):
        drawn = Pictures.new("RGB", (128, 96), (90, 90, 90))
        colour = (220, 30, 30) if i % 2 else (30, 30, 220)
        ImageDraw.Draw(drawn).rectangle([10 + 4 * i, 20, 50 + 4 * i, 60], fill=colour)
        drawn.save(folder / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 128, "height": 96})
        notes.append({"id": i, "image_id": i, "category_id": 1 + i % 2, "bbox": [10 + 4 * i, 20, 41, 41], "iscrowd": 0})
        told += [{"id": 2 * i + k, "image_id": i, "caption": caption(i % 2, i + k)} for k in range(2)]
    kinds = [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}]
    for split in ("train", "val"):
        tree = {"images": images, "annotations": notes, "categories": kinds}
        (folder / f"instances_{split}.json").write_text(json.dumps(tree))
        (folder / f"captions_{split}.json").write_text(json.dumps({"images": images, "annotations": told}))
    return folder


def shards(folder: Path, source: Any) -> Shards:
    """The source's splits as shards."""
    from generalist.data.tools.shard_writer import Plan, write_split

    for split in SPLIT_SIZES:
        write_split(Plan(source, split, folder / "shards", per=8))
    return Shards(str(folder / "shards"))


def questions(folder: Path) -> Listed:
    rows = {}
    for split, count in SPLIT_SIZES.items():
        rows[split] = []
        for i in range(count):
            path = folder / f"{split}{i}.png"
            picture(i % 2, i).save(path)
            rows[split].append({"id": f"{i}", "image": str(path), "question": "which shape?", "answer": KINDS[i % 2]})
    return Listed(rows)


def molecules(folder: Path) -> Listed:
    """Molecules in their letters; the target counts oxygens."""
    strings = ["CCO", "CCCCO", "OCCO", "CO", "CCC", "CCCCCC", "CC(=O)O", "OCC(O)CO"]
    rows = [{"id": s, "graph": s, "target": float(s.count("O")), "label": int("O" in s)} for s in strings]
    return Listed({"train": rows}, {"classes": ["dry", "wet"]})


CASES: Cases = {
    "folder of pictures: classify": lambda f: Classify(name="t", source=folder_of_pictures(f), **SEEING),
    "folder of pictures: retrieve": lambda f: Retrieve(name="t", source=folder_of_pictures(f), **SEEING),
    "folder of pictures: describe": lambda f: Describe(
        name="t", source=folder_of_pictures(f), caption="text", **SEEING
    ),
    "folder of pictures: restore": lambda f: Restore(name="t", source=folder_of_pictures(f), **SEEING),
    "folder of sounds: classify": lambda f: Classify(name="t", source=folder_of_sounds(f), **HEARING),
    "folder of sounds: retrieve": lambda f: Retrieve(name="t", source=folder_of_sounds(f), **HEARING),
    "csv: classify rows": lambda f: Classify(name="t", source=csv(f, label="kind"), inputs={"table": "row"}, batch=4),
    "csv: regress": lambda f: Regress(
        name="t", source=csv(f, label="price"), inputs={"table": "row"}, target="label", batch=4
    ),
    "csv: classify texts": lambda f: Classify(name="t", source=csv(f, label="kind"), inputs={"text": "note"}, batch=4),
    "csv: rows and texts": lambda f: Classify(
        name="t", source=csv(f, label="kind", drop=["note"]), inputs={"table": "row", "text": "note"}, batch=4
    ),
    "csv: restore rows": lambda f: RestoreCodes(
        name="t", source=csv(f, label="kind", drop=["note"]), inputs={"table": "row"}, codes=4, batch=4
    ),
    "jsonl of paths: classify": lambda f: Classify(name="t", source=jsonl_of_paths(f), **SEEING),
    "jsonl of paths: retrieve": lambda f: Retrieve(name="t", source=jsonl_of_paths(f), **SEEING),
    "hugging face: classify": lambda f: Classify(name="t", source=hugging_face(f), **SEEING),
    "hugging face: classify texts": lambda f: Classify(
        name="t", source=hugging_face(f), inputs={"text": "text"}, batch=4
    ),
    "hugging face: retrieve": lambda f: Retrieve(name="t", source=hugging_face(f), **SEEING),
    "windows: forecast": lambda f: Forecast(name="t", source=windows(f), horizon=4, batch=4),
    "windows: forecast beside a line": lambda f: Forecast(
        name="t", source=windows(f), horizon=4, batch=4, linear=1.0, units="data"
    ),
    "arrays: pictures": lambda f: Classify(name="t", source=arrays(f), **SEEING),
    "arrays: clouds": lambda f: Classify(name="t", source=arrays(f), inputs={"points": "points"}, batch=4),
    "arrays: clips": lambda f: Classify(name="t", source=arrays(f), inputs={"video": "video"}, batch=4),
    "arrays: motions": lambda f: Classify(name="t", source=arrays(f), inputs={"imu": "imu"}, batch=4),
    "arrays: clouds to motions": lambda f: Retrieve(
        name="t", source=arrays(f), inputs={"points": "points"}, partners={"imu": "imu"}, batch=4
    ),
    "text file: fill": lambda f: Fill(name="t", source=text_file(f), batch=4),
    "graph: classify nodes": lambda f: Classify(name="t", source=graph(f), inputs={"graph": "graph"}, batch=4),
    "coco: detect": lambda f: Detect(name="t", source=CocoObjects(str(coco(f))), inputs={"region": "image"}, batch=2),
    "coco: describe": lambda f: Describe(name="t", source=CocoCaptions(str(coco(f))), **SEEING),
    "coco: retrieve": lambda f: Retrieve(
        name="t", source=CocoCaptions(str(coco(f))), partners={"text": "caption"}, **SEEING
    ),
    "shards of pictures: classify": lambda f: Classify(name="t", source=shards(f, folder_of_pictures(f)), **SEEING),
    "shards of sounds: classify": lambda f: Classify(name="t", source=shards(f, folder_of_sounds(f)), **HEARING),
    "questions: answer": lambda f: Answer(name="t", source=questions(f), batch=4),
    "molecules: classify": lambda f: Classify(name="t", source=molecules(f), inputs={"graph": "graph"}, batch=4),
    "molecules: regress letters": lambda f: Regress(name="t", source=molecules(f), inputs={"text": "graph"}, batch=4),
}
