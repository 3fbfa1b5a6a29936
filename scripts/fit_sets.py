"""Data sets as a user has them - tables, folders, COCO - written from the shared data, for `scripts.fit_table`.

Every function of SETS takes the data's folder and an empty one, and gives the words of `generalist fit`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Words = list[str]


@dataclass(frozen=True)
class Set:
    """words: writes the files. metric: a measure of metrics.json; known: the strongest ordinary figure that is known of
    it (the data's own notes), None = none; target: what model and ordinary method together should reach."""

    words: Callable[[Path, Path], Words]
    metric: str = "accuracy"
    known: float | None = None
    target: float | None = None
    higher: bool = True


def frame(path: Path, rows: dict[str, Any]) -> Path:
    """Columns as CSV, or as Parquet by the file's ending."""
    import pandas

    found = pandas.DataFrame(rows)
    if path.suffix == ".parquet":
        found.to_parquet(path, index=False)
    else:
        found.to_csv(path, index=False)
    return path


def tables(out: Path, label: str, train: dict[str, Any], test: dict[str, Any], kind: str = "csv") -> Words:
    train_file, test_file = frame(out / f"train.{kind}", train), frame(out / f"test.{kind}", test)
    return [str(train_file), "--label", label, "--test", str(test_file)]


def packed(name: str) -> Callable[[Path, Path], Words]:
    """A set of scikit-learn: a table of its own, split by fit."""

    def words(data: Path, out: Path) -> Words:
        from sklearn import datasets

        found = getattr(datasets, f"load_{name}")(as_frame=True)
        rows = found.frame
        if hasattr(found, "target_names"):
            rows["target"] = [str(found.target_names[i]) for i in rows["target"]]
        rows.to_csv(out / f"{name}.csv", index=False)
        return [str(out / f"{name}.csv"), "--label", "target"]

    return words


def adult(data: Path, out: Path) -> Words:
    folder = data / "adult_tabular"
    return [str(folder / "adult_train.csv.gz"), "--label", "income", "--test", str(folder / "adult_test.csv.gz")]


def abalone(data: Path, out: Path) -> Words:
    import pandas

    rows = pandas.read_csv(data / "abalone_tabular" / "abalone.csv")
    train, test = ({str(name): part[name].tolist() for name in part} for part in (rows[:3133], rows[3133:]))
    return tables(out, "rings", train, test)


def banking(data: Path, out: Path) -> Words:
    folder = data / "banking77_text"
    return [str(folder / "train.csv"), "--label", "category", "--test", str(folder / "test.csv")]


def esol(data: Path, out: Path) -> Words:
    import pandas

    rows = pandas.read_csv(data / "esol_molecules" / "delaney-processed.csv")
    label = "measured log solubility in mols per litre"
    return [
        str(frame(out / "esol.csv", {"smiles": rows["smiles"], "solubility": rows[label]})),
        "--label",
        "solubility",
    ]


def folders(out: Path, split: str, files: list[tuple[str, Any]], end: str = "png") -> None:
    """(class, picture as array or encoded bytes) -> out/split/class/number.end"""
    from PIL import Image

    for number, (name, value) in enumerate(files):
        path = out / split / name.replace("/", "_") / f"{number}.{end}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, bytes):
            path.write_bytes(value)
        else:
            Image.fromarray(value).save(path)


def cifar(data: Path, out: Path) -> Words:
    import pandas

    for split in ("train", "test"):
        rows = pandas.read_parquet(data / "cifar10_subset" / f"{split}.parquet")
        folders(out, split, list(zip(rows["label_name"], rows["image_jpg"], strict=True)), "jpg")
    return [str(out)]


def pictures(file: str, test: str) -> Callable[[Path, Path], Words]:
    """An npz of grey pictures and labels, its splits called train and `test`."""

    def words(data: Path, out: Path) -> Words:
        held = np.load(data / file)
        for split in ("train", test):
            names = [str(held["class_names"][i]) for i in held[f"y_{split}"]]
            folders(out, "test" if split == test else split, list(zip(names, held[f"x_{split}"], strict=True)))
        return [str(out)]

    return words


def landsat(data: Path, out: Path) -> Words:
    held = np.load(data / "landsat_multispectral" / "landsat.npz")

    def rows(split: str) -> dict[str, Any]:
        cells = held[f"x_{split}"].reshape(len(held[f"x_{split}"]), -1)
        return {f"b{i}": cells[:, i] for i in range(cells.shape[1])} | {
            "ground": [str(held["class_names"][i]) for i in held[f"y_{split}"]]
        }

    return tables(out, "ground", rows("train"), rows("test"))


def esc10(data: Path, out: Path, fold: int = 1) -> Words:
    """The fold is the test; the others are trained and validated on."""
    import pandas

    folder = data / "esc10_audio"
    for row in pandas.read_csv(folder / "meta.csv").itertuples():
        split = "test" if row.fold == fold else "train"
        path = out / split / str(row.label_name) / Path(str(row.file)).name
        path.parent.mkdir(parents=True, exist_ok=True)
        source = folder / str(row.file)
        path.symlink_to((source if source.is_file() else folder / "audio" / str(row.file)).resolve())
    return [str(out)]


def fsdd(data: Path, out: Path) -> Words:
    import soundfile

    for split in ("train", "test"):
        held = np.load(data / "fsdd_audio" / f"fsdd_{split}.npz")
        at = held["offsets"]
        for i, label in enumerate(held["label"]):
            path = out / split / f"digit {label}" / f"{i}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, held["audio"][at[i] : at[i + 1]], int(held["sample_rate"]))
    return [str(out)]


def etth1(data: Path, out: Path) -> Words:
    """The first 14,400 hours, of which fit's own last fifth is the usual test, from hour 11,520 on."""
    import pandas

    pandas.read_csv(data / "etth1" / "ETTh1.csv.gz")[:14400].to_csv(out / "etth1.csv", index=False)
    return [str(out / "etth1.csv"), "--forecast", "96", "--date", "date"]


def series(name: str) -> Callable[[Path, Path], Words]:
    def words(data: Path, out: Path) -> Words:
        held = np.load(data / "ucr_timeseries" / f"{name}.npz")

        def rows(split: str) -> dict[str, Any]:
            whole = zip(held[f"x_{split}"], held[f"len_{split}"], strict=True)
            cells = [x[:, :n].T.tolist() if len(x) > 1 else x[0, :n].tolist() for x, n in whole]
            return {"signal": cells, "kind": [f"kind {y}" for y in held[f"y_{split}"]]}

        return tables(out, "kind", rows("train"), rows("test"), "parquet")

    return words


def graphs(file: str, names: tuple[str, str], fold: int = 0) -> Callable[[Path, Path], Words]:
    """The fold is the test; the others are trained and validated on."""

    def words(data: Path, out: Path) -> Words:
        held = np.load(data / file)
        nodes, edges = held["node_offsets"], held["edge_offsets"]

        def rows(chosen: np.ndarray) -> dict[str, Any]:
            graphs = []
            for i in chosen:
                pairs = held["edge_index"][:, edges[i] : edges[i + 1]].T.tolist()
                graphs.append({"nodes": held["node_label"][nodes[i] : nodes[i + 1]].tolist(), "edges": pairs})
            return {"graph": graphs, "kind": [names[int(held["y"][i])] for i in chosen]}

        at = np.arange(len(held["y"]))
        return tables(out, "kind", rows(at[held["fold"] != fold]), rows(at[held["fold"] == fold]), "parquet")

    return words


def emoji(data: Path, out: Path) -> Words:
    """Both styles of all splits; a tenth of the emoji is the test by fit's own hash."""
    folder = data / "emoji_text"
    test = str(folder / "test.parquet")
    return [str(folder / "train.parquet"), "--retrieve", "image_png", "description", "--test", test]


def bccd(data: Path, out: Path) -> Words:
    return [f"coco:{data / 'bccd_detection'}", "--detect"]


def nlvr(data: Path, out: Path) -> Words:
    import pandas

    for split in ("train", "test"):
        rows = pandas.read_parquet(data / "nlvr" / f"{split}.parquet")[["image_png", "sentence", "label"]]
        rows.assign(label=rows["label"].astype(str)).to_parquet(out / f"{split}.parquet", index=False)
    return [str(out / "train.parquet"), "--label", "label", "--test", str(out / "test.parquet")]


def vqa(data: Path, out: Path) -> Words:
    import pandas

    for split in ("train", "test"):
        rows = pandas.read_parquet(data / "easy_vqa" / f"{split}.parquet")
        long = rows[["image_id", "image_png", "questions", "answers"]].explode(["questions", "answers"])
        long.rename(columns={"image_png": "image", "questions": "question"}).to_parquet(out / f"{split}.parquet")
    words = ["--label", "answers", "--test", str(out / "test.parquet"), "--group", "image_id"]
    return [str(out / "train.parquet"), *words]


SETS: dict[str, Set] = {
    "wine": Set(packed("wine")),
    "breast_cancer": Set(packed("breast_cancer")),
    "digits": Set(packed("digits")),
    "diabetes": Set(packed("diabetes"), "rmse", higher=False),
    "abalone": Set(abalone, "rmse", 2.10, 2.08, higher=False),
    "adult": Set(adult, known=0.872, target=0.874),
    "banking77": Set(banking, known=0.913, target=0.93),
    "cifar10": Set(cifar, known=0.569, target=0.80),
    "esc10": Set(esc10, known=0.816, target=0.88),
    "fashion_mnist": Set(pictures("fashion_mnist/fashion_mnist.npz", "test"), known=0.875, target=0.89),
    "etth1": Set(etth1, "mse", 0.370, 0.368, higher=False),
    "mutag": Set(graphs("mutag_graphs/mutag.npz", ("inactive", "mutagenic")), known=0.906),
    "proteins": Set(graphs("proteins_graphs/proteins.npz", ("enzyme", "no enzyme")), known=0.761),
    "esol": Set(esol, "rmse", 0.85, higher=False),
    "pneumonia": Set(pictures("pneumonia_xray28/pneumonia28.npz", "val"), known=0.952),
    "landsat": Set(landsat, known=0.907),
    "fsdd": Set(fsdd, known=0.983),
    "arrowhead": Set(series("ArrowHead"), known=0.80),
    "basic_motions": Set(series("BasicMotions"), known=0.93),
    "italy_power": Set(series("ItalyPowerDemand"), known=0.968),
    "japanese_vowels": Set(series("JapaneseVowels"), known=0.992),
    "emoji": Set(emoji, "recall@1", 0.26),
    "bccd": Set(bccd, "AP50"),
    "nlvr": Set(nlvr, known=0.578),
    "easy_vqa": Set(vqa, known=0.668),
}


def written(name: str, data: Path, out: Path) -> Words:
    """The words of a set whose files lie in `out`, written there once."""
    kept = out / "words.json"
    if kept.is_file():
        return list(json.loads(kept.read_text()))
    out.mkdir(parents=True, exist_ok=True)
    words = SETS[name].words(data, out / name) if _made(out / name) else []
    kept.write_text(json.dumps(words))
    return words


def _made(folder: Path) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    return True
