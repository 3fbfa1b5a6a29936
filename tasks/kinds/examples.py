"""Records that each kind of task takes, and records that it refuses (`generalist.tasks.base.examples`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from generalist.tasks.base.examples import TaskExamples

Rows = list[dict[str, Any]]
SMALL = {"size": 8, "patch": 4, "channels": 1}
TEXT = {"tokenizer": "", "learn": 270, "max_length": 24, "positions": 24}  # sub-words are learnt from the records
COLOURS = ["red", "green", "blue", "red", "green", "blue"]


def pictures(count: int = 6, **own: Callable[[int], Any]) -> Rows:
    """Pictures of noise, each with these fields of its number."""
    rng = np.random.default_rng(0)
    return [
        {"id": f"picture {i}", "image": rng.integers(0, 255, (8, 8), dtype=np.uint8)}
        | {name: make(i) for name, make in own.items()}
        for i in range(count)
    ]


def _with(row: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {**row, **changed}


def classify() -> TaskExamples:
    good = pictures(label=lambda i: COLOURS[i])
    settings = {"inputs": {"image": "image"}, "classes": ["red", "green", "blue"]}
    bad = [(_with(good[0], label="yellow"), "yellow"), (_with(good[0], image="no such file.png"), "no such file")]
    return TaskExamples(settings, good, bad, {"image": SMALL, "text": TEXT})


def multilabel() -> TaskExamples:
    good = pictures(label=lambda i: "|".join(COLOURS[i : i + 2]))
    settings = {"inputs": {"image": "image"}, "classes": ["red", "green", "blue"]}
    bad = [(_with(good[0], label="red|yellow"), "unknown class 'yellow'")]
    return TaskExamples(settings, good, bad, {"image": SMALL, "text": TEXT})


def retrieve() -> TaskExamples:
    good = pictures(text=lambda i: f"a {COLOURS[i]} picture, number {i}")
    bad = [(_with(good[0], text=[]), "an empty list"), (_with(good[0], text=5), "str")]
    return TaskExamples({"inputs": {"image": "image"}}, good, bad, {"image": SMALL, "text": TEXT})


def fill() -> TaskExamples:
    said = ["the cat sat on the mat", "two dogs ran home", "rain fell all day", "a bird sang once"]
    good: Rows = [{"id": f"line {i}", "text": text} for i, text in enumerate(said)]
    return TaskExamples({}, good, [(_with(good[0], text=""), "empty")], {"text": TEXT})


def describe() -> TaskExamples:
    good = pictures(captions=lambda i: [f"a {COLOURS[i]} square", f"noise in {COLOURS[i]}"])
    bad = [(_with(good[0], captions=[]), "no caption"), (_with(good[0], image=np.zeros((0, 3))), "at least one pixel")]
    return TaskExamples({}, good, bad, {"image": SMALL, "text": TEXT})


def answer() -> TaskExamples:
    good = pictures(question=lambda i: f"is it {COLOURS[i]}?", answer=lambda i: ["yes", "no"][i % 2])
    bad = [(_with(good[0], answer={"yes": -1.0}), "not negative"), (_with(good[0], answer=[]), "no answer")]
    return TaskExamples({"answers": ["yes", "no"]}, good, bad, {"image": SMALL, "text": TEXT})


def regress() -> TaskExamples:
    good = pictures(target=lambda i: 0.5 * i)
    bad = [(_with(good[0], target="far"), "must be a finite number"), (_with(good[0], target=np.inf), "finite number")]
    return TaskExamples({"inputs": {"image": "image"}, "bins": 8}, good, bad, {"image": SMALL, "number": {}})


def forecast() -> TaskExamples:
    steps = np.arange(12.0)
    good: Rows = [
        {"id": f"wave {i}", "past": np.sin(steps + i).tolist(), "future": np.sin(12.0 + i + np.arange(3.0)).tolist()}
        for i in range(6)
    ]
    bad = [(_with(good[0], future=[1.0]), "1 values, the horizon is 3"), (_with(good[0], past=[]), "at least one step")]
    return TaskExamples(
        {"horizon": 3, "bins": 8}, good, bad, {"series": {"patch": 4}, "slot": {"patch": 3}, "number": {}}
    )


def restore() -> TaskExamples:
    good = pictures()
    bad = [(_with(good[0], image=None), "nothing to restore")]
    return TaskExamples({"inputs": {"image": "image"}, "bins": 8}, good, bad, {"image": SMALL, "number": {}})


def restore_codes() -> TaskExamples:
    found = restore()
    settings = {"inputs": {"image": "image"}, "codes": 4}
    return TaskExamples(settings, found.good, found.bad, found.modalities)


def detect() -> TaskExamples:
    """Of an untrained detector of transformers."""
    from generalist.tokenizers_mod.regions.examples import region

    good = _scenes()
    bad = [(_with(good[0], width=65), "its annotations say 65 x 64")]
    settings = {"inputs": {"region": "image"}, "classes": ["square", "disk"]}
    return TaskExamples(settings, good, bad, {"region": dict(region().settings), "text": TEXT})


def segment() -> TaskExamples:
    """Of an untrained Mask2Former."""
    found = detect()
    small = dict.fromkeys(("feature_size", "mask_feature_size", "hidden_dim", "dim_feedforward"), 32)
    config = {**small, "encoder_feedforward_dim": 32, "encoder_layers": 1, "decoder_layers": 2, "num_queries": 5}
    config |= {"num_attention_heads": 4, "train_num_points": 64}
    swin = {"model_type": "swin", "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 4}
    swin |= {"image_size": 64, "out_features": ["stage1", "stage2", "stage3", "stage4"]}
    region = {"height": 64, "width": 64, "proposals": 5, "proposer": "mask2former", "masks": True}
    region |= {"config": config, "backbone": swin}
    bad = [*found.bad, (_with(found.good[0], segments=None), "has no masks")]
    return TaskExamples(found.settings, found.good, bad, {"region": region, "text": TEXT})


def _scenes() -> Rows:
    """Pictures of 64 x 64 with a bright square each, as a COCO source gives them."""
    rows = []
    for i in range(3):
        left, top = 8 + 4 * i, 16
        image = np.zeros((64, 64), dtype=np.uint8)
        image[top : top + 20, left : left + 20] = 255
        corners = [left, top, left + 20, top, left + 20, top + 20, left, top + 20]
        rows.append(
            {
                "id": f"scene {i}",
                "image": image,
                "image_id": i,
                "height": 64,
                "width": 64,
                "boxes": np.array([[left, top, left + 20, top + 20]], dtype=float),
                "classes": np.array([i % 2]),
                "crowd": np.array([False]),
                "area": np.array([400.0]),
                "segments": [[corners]],
            }
        )
    return rows
