"""Pictures -> named boxes and masks: names given now, boxes from the proposer, probabilities from the likelihood.

`detect` is the function; `DetectionPipeline` the same behind transformers' "zero-shot-object-detection" interface:

    find = pipeline("zero-shot-object-detection", model=FOLDER, trust_remote_code=True)
    find(picture, candidate_labels=["car", "person"])
"""

from __future__ import annotations

from copy import copy
from itertools import product
from typing import Any

import numpy as np
from transformers import ZeroShotObjectDetectionPipeline
from transformers.pipelines.base import Pipeline

from generalist.data.base.errors import UserError, nearest
from generalist.hf.model import GeneralistModel
from generalist.hf.predict import ask
from generalist.model.processor import Processor
from generalist.tasks.base.task import Task
from generalist.tokenizers_mod.vision.image import read_image

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")


def detection_task(processor: Processor, task: str | None = None) -> Task:
    """The task that detects; the first, unless named. UserError when none does."""
    found = {name: own for name, own in processor.tasks.items() if own.finds}
    if not found:
        raise UserError(f"this model detects nothing (its tasks: {', '.join(processor.tasks)}); train one that does")
    if task is not None and task not in found:
        raise UserError(f"task {task!r} does not detect; {nearest(task, found)}")
    return found[task or next(iter(found))]


def detect(
    model: GeneralistModel,
    processor: Processor,
    picture: Any,
    names: list[str] | None = None,
    threshold: float = 0.3,
    task: str | None = None,
    overlap: float = 0.7,
) -> list[dict[str, Any]]:
    """[{"label", "score", "box": {"xmin", "ymin", "xmax", "ymax"} in pixels, maybe "mask" Bool[H W]}].

    names: any class names; None takes those of the training. score: p(name | proposal) among the names and "nothing".
    overlap: of boxes of one name with a larger intersection over union than this only the likeliest stays; 1 keeps all.
    """
    chosen: Any = detection_task(processor, task)
    chosen = copy(chosen) if names is None else chosen.among([names] if isinstance(names, str) else names)
    chosen.threshold, chosen.overlap = threshold, overlap
    return ask(model, processor, chosen, dict.fromkeys(chosen.given().values(), picture)).boxes


def draw(picture: Any, found: list[dict[str, Any]], names: list[str] | None = None, enlarge: int = 1) -> Any:
    """The picture (path or PIL) with boxes, masks, names and probabilities: a PIL image.

    names: those that were asked for, so that a name has one colour in every picture. enlarge: times as large, for small
    pictures. A name stands at a corner of its box where it covers the least of the names that are likelier.
    """
    from PIL import Image, ImageDraw, ImageFont

    # as the model saw it: turned upright, 16 bits brought to 8
    image = Image.fromarray(read_image(picture, 3).mul(255).round().byte().permute(1, 2, 0).numpy())
    image = image.resize((image.width * enlarge, image.height * enlarge), Image.Resampling.LANCZOS)
    known = list(dict.fromkeys([*(names or []), *sorted(hit["label"] for hit in found)]))
    colours = [COLOURS[known.index(hit["label"]) % len(COLOURS)] for hit in found]
    font = ImageFont.load_default(max(10, round(max(image.size) / 55)))
    for hit, colour in zip(found, colours, strict=True):
        if "mask" in hit:
            cover = Image.fromarray((hit["mask"] * 110).astype(np.uint8)).resize(image.size)
            image = Image.composite(Image.new("RGB", image.size, colour), image, cover)
    pen = ImageDraw.Draw(image)
    corners = [[hit["box"][k] * enlarge for k in ("xmin", "ymin", "xmax", "ymax")] for hit in found]
    for corner, colour in reversed(list(zip(corners, colours, strict=True))):  # the likeliest on top
        pen.rectangle(corner, outline=colour, width=max(1, round(max(image.size) / 300)))
    plates: list[Plate] = []
    for hit, corner, colour in zip(found, corners, colours, strict=True):
        words = f"{hit['label']} {hit['score']:.2f}"
        _, _, wide, high = pen.textbbox((0, 0), words, font=font)
        plate = place(corner, (wide + 4, high + 2), image.size, plates)
        plates.append(plate)
        pen.rectangle(plate, fill=colour)
        pen.text((plate[0] + 2, plate[1]), words, fill="white", font=font)
    return image


Plate = tuple[float, float, float, float]  # left, top, right, bottom


def place(corner: list[float], size: tuple[float, float], within: tuple[int, int], others: list[Plate]) -> Plate:
    """Where the plate of a name goes, at a box's corners (above, below, inside), covering the least of the others."""
    (left, top, right, bottom), (wide, high) = corner, size
    columns, rows = (left, right - wide), (top - high, bottom, top, bottom - high)
    tried = []
    for y, x in product(rows, columns):
        x, y = max(0, min(x, within[0] - wide)), max(0, min(y, within[1] - high))
        tried.append((x, y, x + wide, y + high))
    return min(tried, key=lambda plate: sum(shared(plate, other) for other in others))


def shared(a: Plate, b: Plate) -> float:
    """The area that two rectangles have in common."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


class DetectionPipeline(ZeroShotObjectDetectionPipeline):
    """transformers' interface with all names compared at once: a probability is one among the names given.

    A model folder names this class as its pipeline. With a model in hand: pipeline(..., model=model,
    processor=processor, pipeline_class=DetectionPipeline).
    """

    # None: loaded where a folder is given; a model in hand may come with its processor as `image_processor`
    _load_processor, _load_image_processor, _load_tokenizer, _load_feature_extractor = None, False, False, False

    def __init__(self, **kwargs: Any) -> None:
        # the parent's own __init__ looks the model up in a table of the library's architectures
        Pipeline.__init__(self, **kwargs)

    def __call__(self, image: Any, candidate_labels: Any = None, **kwargs: Any) -> Any:
        """As the parent's; paths may stand in a list, too, where the library takes pictures alone."""
        if isinstance(image, list | tuple) and not any(isinstance(i, dict) for i in image):
            shared_names = isinstance(candidate_labels, str) or all(isinstance(n, str) for n in candidate_labels)
            names = [candidate_labels] * len(image) if shared_names else candidate_labels
            image = [{"image": i, "candidate_labels": n} for i, n in zip(image, names, strict=True)]
        return super().__call__(image, candidate_labels=candidate_labels, **kwargs)

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """The model folder; the parent's would leave the processor out."""
        self.model.save_pretrained(save_directory, **kwargs)
        self._whole_processor.save_pretrained(save_directory)

    @property
    def _whole_processor(self) -> Any:
        return self.processor or self.image_processor  # the second: how it was handed over before

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict, dict, dict]:
        after = {k: kwargs[k] for k in ("threshold", "top_k") if kwargs.get(k) is not None}
        return {}, {}, after

    def preprocess(self, inputs: dict[str, Any], timeout: float | None = None) -> Any:
        from transformers.image_utils import load_image

        names = inputs["candidate_labels"]
        names = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)
        yield {"is_last": True, "picture": load_image(inputs["image"], timeout=timeout), "names": names}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        picture, names = model_inputs["picture"], model_inputs["names"]
        found = detect(self.model, self._whole_processor, picture, names, threshold=0.0)
        return {"is_last": model_inputs["is_last"], "found": found}

    def postprocess(self, outputs: Any, threshold: float = 0.1, top_k: int | None = None) -> list[dict[str, Any]]:
        kept = [hit for out in outputs for hit in out["found"] if hit["score"] >= threshold]
        for hit in kept:
            hit["box"] = {k: round(v) for k, v in hit["box"].items()}
            hit.pop("mask", None)
        return kept[:top_k]
