"""COCO average precision of boxes and masks, by the reference implementation (pycocotools)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError

NAMES = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large")


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Bool[H W] -> run-length code of the reference implementation."""
    from pycocotools import mask as rle_tools

    return rle_tools.encode(np.asfortranarray(mask.astype(np.uint8)))


def decode_mask_code(code: dict[str, Any]) -> np.ndarray:
    """The inverse of `encode_mask`, for codes that it made."""
    from pycocotools import mask as rle_tools

    return rle_tools.decode(code).astype(bool)


def truth(images: list[dict[str, Any]], classes: list[str]) -> dict[str, Any]:
    """COCO's ground-truth tree. images: {"image_id", "height", "width", "boxes" Float[n 4] (left, top, right, bottom),
    "classes" Int[n], "crowd" Bool[n], "masks" [n] run-length codes or None}; class k has category id k + 1."""
    notes: list[dict[str, Any]] = []
    for image in images:
        for i, (box, kind, crowd) in enumerate(zip(image["boxes"], image["classes"], image["crowd"], strict=True)):
            left, top, right, bottom = (float(v) for v in box)
            note = {
                "id": len(notes) + 1,
                "image_id": image["image_id"],
                "category_id": int(kind) + 1,
                "bbox": [left, top, right - left, bottom - top],
                "area": (right - left) * (bottom - top),
                "iscrowd": int(crowd),
            }
            if image.get("masks") is not None:
                from pycocotools import mask as rle_tools

                note["segmentation"] = image["masks"][i]
                note["area"] = float(rle_tools.area(image["masks"][i]))
            notes.append(note)
    return {
        "images": [{"id": m["image_id"], "height": m["height"], "width": m["width"]} for m in images],
        "annotations": notes,
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(classes)],
    }


def average_precision(
    tree: dict[str, Any], found: list[dict[str, Any]], kind: str = "bbox"
) -> tuple[dict[str, float], dict[str, float]]:
    """COCO's AP numbers and AP50 by class; a value is NaN where there is nothing of that size or class.

    tree: of `truth`. found: {"image_id", "category_id", "score", "bbox" [left, top, width, height] and, for kind
    "segm", "segmentation"}, at most 100 an image counted.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise UserError(
            "average precision needs pycocotools; install it: pip install 'generalist-encoder[detection]'"
        ) from error

    names = {c["id"]: c["name"] for c in tree["categories"]}
    if not tree["annotations"]:
        return dict.fromkeys(NAMES, float("nan")), dict.fromkeys(names.values(), float("nan"))
    if not found:
        present = {n["category_id"] for n in tree["annotations"]}
        return dict.fromkeys(NAMES, 0.0), {n: 0.0 if k in present else float("nan") for k, n in names.items()}
    with contextlib.redirect_stdout(io.StringIO()):  # the reference prints its progress
        run = _compared(tree, found, kind, COCO, COCOeval)
        run.accumulate()
        run.summarize()
    return _named(run.stats), _by_class(run, names)


def _compared(
    tree: dict[str, Any],
    found: list[dict[str, Any]],
    kind: str,
    coco_class: Any,
    eval_class: Any,
    only: list[int] | None = None,
) -> Any:
    """The reference implementation after its comparison of every picture. only: category ids, default all."""
    coco = coco_class()
    coco.dataset = tree
    coco.createIndex()
    run = eval_class(coco, coco.loadRes([dict(f) for f in found]), kind)
    if only is not None:
        run.params.catIds = only
    run.evaluate()
    return run


def _by_class(run: Any, names: dict[int, str]) -> dict[str, float]:
    """AP50 of every class, NaN where it has no object."""
    precision = run.eval["precision"][0, :, :, 0, -1]  # IoU .5, [recall, class], all areas, 100 detections
    out = {}
    for k, category in enumerate(run.params.catIds):
        known = precision[:, k][precision[:, k] > -1]
        out[names[category]] = float(known.mean()) if len(known) else float("nan")
    return out


def _named(stats: Any) -> dict[str, float]:
    values = [float(v) if v > -1 else float("nan") for v in stats[: len(NAMES)]]
    return dict(zip(NAMES, values, strict=True))


def resampled(
    images: list[dict[str, Any]], found: list[list[dict[str, Any]]], times: np.ndarray, kind: str
) -> dict[str, np.ndarray]:
    """COCO's AP numbers of R resamples of the pictures, each compared once: {name: Float[R]}.

    images: {"height", "width", "boxes", "classes" names, "crowd"} and maybe "masks"; found: of each, {"name", "score",
    "bbox"} and maybe "segmentation". times: Int[R n], how often a picture stands in each resample.
    """
    names = sorted({str(n) for m in images for n in m["classes"]} | {str(f["name"]) for own in found for f in own})
    number = {name: k for k, name in enumerate(names)}
    trees = [{**m, "image_id": i, "classes": [number[str(n)] for n in m["classes"]]} for i, m in enumerate(images)]
    hits = [
        {**hit, "image_id": i, "category_id": number[str(hit["name"])] + 1}
        for i, own in enumerate(found)
        for hit in own
    ]
    tree = truth(trees, names)
    if not tree["annotations"] or not hits:
        return {name: np.full(len(times), value) for name, value in average_precision(tree, hits, kind)[0].items()}
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rows = []
    # a class without objects has no AP, whatever is found of it
    known = sorted({note["category_id"] for note in tree["annotations"]})
    unknown = {f"AP50 {name}": float("nan") for name, k in number.items() if k + 1 not in known}
    with contextlib.redirect_stdout(io.StringIO()):
        run = _compared(tree, hits, kind, COCO, COCOeval, known)
        kept, pictures = run.evalImgs, len(images)
        blocks = len(kept) // pictures
        every = copy(run.params)
        every.maxDets = every.maxDets[-1:]  # AP is of 100 detections alone
        for count in times:
            chosen = np.repeat(np.arange(pictures), count)
            # one block of pictures for every category and area; accumulate reads how many stand in a block
            run.evalImgs = [kept[b * pictures + i] for b in range(blocks) for i in chosen]
            every.imgIds = run._paramsEval.imgIds = list(range(len(chosen)))
            run.accumulate(every)
            classes = _by_class(run, {k + 1: f"AP50 {name}" for name, k in number.items()})
            rows.append(_named(_means(run.eval["precision"][..., -1])) | unknown | classes)
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _means(precision: np.ndarray) -> list[float]:
    """The reference's means of Float[IoU recall class area]: AP, AP50, AP75, then AP by area; -1 where nothing is."""
    picked = [precision[..., 0], precision[0, ..., 0], precision[5, ..., 0], *(precision[..., k] for k in (1, 2, 3))]
    return [float(p[p > -1].mean()) if (p > -1).any() else -1.0 for p in picked]


def cost(images: Sequence[dict[str, Any]], found: Sequence[list[dict[str, Any]]]) -> int:
    """About how much one resample takes: detections times classes, the reference's two loops."""
    return sum(len(own) for own in found) * max(1, len({str(n) for image in images for n in image["classes"]}))
