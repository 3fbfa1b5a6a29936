"""The sets of the all-modalities recipe as tasks: what is asked of each, and how its files hold it."""

from __future__ import annotations

from pathlib import Path

from generalist.data.sources.annotations.captions import CocoCaptions
from generalist.data.sources.coco import CocoObjects
from generalist.data.sources.local import Arrays
from generalist.data.sources.passages import Chunks, Neighbourhoods
from generalist.data.sources.windows import Windows
from generalist.recipes.sensed_sets import OWN_VAL, at, classify, clips_and_clouds, motion, pictures, sounds
from generalist.tasks.base.task import Task
from generalist.tasks.kinds.describe import Describe
from generalist.tasks.kinds.fill import Fill
from generalist.tasks.kinds.forecast import Forecast
from generalist.tasks.kinds.regions.detect import Detect
from generalist.tasks.kinds.regress import Regress
from generalist.tasks.kinds.retrieve import Retrieve


def tasks(data: Path) -> list[Task]:
    """One entry a set; `data` is the folder that holds them all."""
    return [task for part in PARTS for task in part(data)]


def graphs(data: Path, name: str, classes: list[str]) -> Arrays:
    fields = {"graph": {"nodes": "node_label@node_offsets", "edges": "edge_index@edge_offsets"}, "label": "y"}
    return Arrays(at(data, name), fields, fold="fold", val_fold=1, classes=classes)


def _tables(data: Path) -> list[Task]:
    """Rows: a class, and a number."""
    return [
        classify(
            "adult",
            {"table": "row"},
            Arrays(
                at(data, "adult_tabular/adult_{split}.csv.gz"),
                {"row": "*", "label": "income"},
                drop=["income"],
                classes="income",
            ),
            batch=256,
            smoothing=0.0,  # validation .880 against .876 with .05 (alone, 1,000 steps)
            share=0.75,
        ),
        Regress(
            name="abalone",
            inputs={"table": "row"},
            source=Arrays(
                at(data, "abalone_tabular/abalone.csv"),
                {"row": "*", "target": "rings"},
                rows={"train": [0, 3133], "test": [3133, 4177]},
                drop=["rings"],
            ),
            share=0.5,
        ),
    ]


def _graphs(data: Path) -> list[Task]:
    """Molecules, proteins and citations."""
    return [
        Regress(
            name="esol",
            inputs={"molecule": "smiles"},
            source=Arrays(
                at(data, "esol_molecules/delaney-processed.csv"),
                {"smiles": "smiles", "target": "measured log solubility in mols per litre"},
                shares=[0.7, 0.1],
            ),
            batch=32,
            share=1,
        ),
        classify(
            "mutag",
            {"compound": "graph"},
            graphs(data, "mutag_graphs/mutag.npz", ["inactive", "mutagenic"]),
            batch=16,
            share=0.3,
        ),
        classify(
            "proteins",
            {"protein": "graph"},
            graphs(data, "proteins_graphs/proteins.npz", ["enzyme", "no enzyme"]),
            batch=8,
            share=0.3,
        ),
        classify(
            "cora",
            {"citation": "graph"},
            Neighbourhoods(at(data, "cora_graph/cora.npz"), smooth=4, whiten=False, most=8),
            batch=16,
            share=0.25,
        ),
    ]


def _texts(data: Path) -> list[Task]:
    """Words alone, and beside pictures."""
    return [
        classify(
            "banking77",
            {"text": "text"},
            Arrays(at(data, "banking77_text/{split}.csv"), {"text": "text", "label": "category"}, classes="category"),
            share=2.5,
        ),
        Retrieve(
            name="emoji",
            inputs={"image": "image"},
            source=Arrays(
                at(data, "emoji_text/{split}.parquet"), {"image": "picture:image_png", "text": "description"}, OWN_VAL
            ),
            batch=64,
            share=1.5,
        ),
        classify(
            "easy_vqa",
            {"image": "image", "text": "question"},
            Arrays(
                at(data, "easy_vqa/{split}.parquet"),
                {"image": "picture:image_png", "question": "questions", "label": "answers"},
                explode=["questions", "answers"],
                classes="answers",
            ),
            share=1.5,
        ),
        classify(
            "nlvr",
            {"scene": "image", "text": "sentence"},
            Arrays(
                at(data, "nlvr/{split}.parquet"),
                {"image": "picture:image_png", "sentence": "sentence", "label": "label"},
                group="identifier-",
                classes=["false", "true"],
            ),
            share=0.2,
        ),
    ]


def _forecasts(data: Path) -> list[Task]:
    """Series, and rain from the pixels around."""
    return [
        Forecast(
            name="etth1",
            source=Windows(
                at(data, "etth1/ETTh1.csv.gz"),
                context=512,
                rows={"train": [0, 8640], "val": [8640, 11520], "test": [11520, 14400]},
                stride=3,
                test_stride=8,  # every window: scripts/etth1.py
                about="ETTh1, horizon 96 of 7 standardised series",
            ),
            horizon=96,
            bins=128,
            auxiliary=1.0,
            linear=1000.0,
            units="data",
            batch=64,
            share=0.4,
        ),
        Forecast(
            name="radar",
            inputs={"rain": "past", "rain_around": "around"},
            relative=["rain_around"],
            newest=3,
            slot="rain_slot",
            source=Windows(
                at(data, "radar_rain_video/radar.npz"),
                rows={"train": [0, 24], "val": [24, 31], "test": [31, 40]},
                context=8,
                horizon=6,
                array="frames",
                every=8,
                around=16,
                around_every=4,
                period=1,
            ),
            horizon=6,
            linear=1000.0,
            units="data",
            batch=64,
            share=0.3,
        ),
    ]


def _scenes(data: Path) -> list[Task]:
    """Objects and captions of photographs."""
    return [
        Detect(
            name="bccd", inputs={"region": "image"}, source=CocoObjects(at(data, "bccd_detection")), batch=8, share=0.6
        ),
        Detect(
            name="coco_objects",
            inputs={"region": "image"},
            source=CocoObjects(at(data, "coco_open")),
            batch=8,
            share=0.1,
        ),
        Retrieve(
            name="coco_captions",
            inputs={"photo": "image"},
            partners={"text": "caption"},
            source=CocoCaptions(at(data, "coco_open")),
            batch=32,
            share=0.4,
        ),
        Describe(
            name="coco_describe",
            inputs={"photo": "image"},
            source=CocoCaptions(at(data, "coco_open")),
            batch=16,
            share=0.2,
        ),
    ]


def _lines(data: Path) -> list[Task]:
    """Hidden words."""
    return [Fill(name="shakespeare", source=Chunks(at(data, "tiny_shakespeare/input.txt")), batch=16, share=0.8)]


PARTS = (
    pictures,
    clips_and_clouds,
    sounds,
    motion,
    _tables,
    _graphs,
    _texts,
    _forecasts,
    _scenes,
    _lines,
)  # in the order of the joint run
