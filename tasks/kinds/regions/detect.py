"""Detection as likelihood: every proposal asks which of the class names, or "nothing", it shows.

Uni-Perceiver v2 (2211.09808, section 3.1; spec 2.3): the encoder's output at each proposal is compared with the
class-name embeddings; its box is emitted unchanged. Training labels proposals by the proposer's own Hungarian matching
(objectness, L1, GIoU, no class cost), so other names at prediction give other classes. The paper's losses are in an
appendix that is not available: cross-entropy over names with weight .2 for "nothing" is a guess that was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import interpolate

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Batch, Example, Span
from generalist.data.stream.source import Record, Records
from generalist.tasks.base.examples import TaskExamples
from generalist.tasks.base.task import Task
from generalist.tasks.candidates.answers import Answer
from generalist.tasks.candidates.names import CandidateSet, Names, ObjectNames
from generalist.tasks.measures import lines
from generalist.tasks.measures.metrics import Mean
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.capabilities import Proposes
from generalist.tokenizers_mod.regions.objects import PixelObjects, to_pixels

NOTHING = "nothing"
SHOWN = 100  # detections an image, COCO's limit


@dataclass(kw_only=True)
class Detect(Task):
    """inputs: {a region modality: the record's picture}. classes: names; default those of the source.

    nothing: weight of a proposal without an object. threshold: of a detection drawn in the report or told of a new
    picture; overlap: of boxes of one name told of that overlap more (IoU), the likeliest stays, 1 keeps all.
    """

    kind: ClassVar[str] = "detect"
    names_in: ClassVar[str] = "classes"
    metric: ClassVar[str] = "AP50"
    areas: ClassVar[str] = "bbox"
    line_kind: ClassVar[str] = "boxes"
    finds: ClassVar[bool] = True
    classes: list[str] | None = None
    nothing: float = 0.2
    threshold: float = 0.4
    overlap: float = 0.7

    @classmethod
    def examples(cls) -> TaskExamples:
        from generalist.tasks.kinds.examples import detect

        return detect()

    def texts(self, records: Records) -> Iterator[str]:
        yield from [NOTHING, *self.names(records)]

    def names(self, records: Records) -> list[str]:
        names = self.classes or records.info.get("classes")
        if not names:
            raise UserError(f"task {self.name}: the source knows no class names; give classes=[...]")
        return [str(n) for n in names]

    def candidate_set(self, records: Records) -> CandidateSet:
        return ObjectNames([NOTHING, *self.names(records)], nothing=self.nothing)

    def bind(self, modalities: dict[str, Modality], candidates: CandidateSet | None, info: dict[str, Any]) -> None:
        super().bind(modalities, candidates, info)
        if not isinstance(self.region, Proposes):
            raise UserError(
                f"task {self.name}: modality {next(iter(self.inputs))!r} proposes no regions; use one that does"
            )

    def check(self, records: Records, split: str) -> None:
        """More objects in a picture than proposals to ask."""
        counts = []
        for i in range(len(records)):
            try:
                counts.append(int((~np.asarray(records[i]["crowd"])).sum()))
            except UserError:  # whoever draws it counts it
                counts.append(0)
        most, at = max((count, -i) for i, count in enumerate(counts))
        if 0 < len(self.region.proposal_rows) < most:
            name = records[-at].get("id", -at)
            raise UserError(
                f"task {self.name}: {split} record {name} has {most} objects and the model only "
                f"{len(self.region.proposal_rows)} proposals; set modalities.{next(iter(self.inputs))}.proposals={most}"
            )

    @property
    def region(self) -> Any:
        """The modality that proposes."""
        return self.modalities[next(iter(self.inputs))]

    def among(self, names: list[str]) -> Task:
        return self.asking(ObjectNames([NOTHING, *names]))

    def picture(self, record: Record) -> Tensor:
        return self.region.read(self.value(record, next(iter(self.inputs.values()))))

    def asked(self, record: Record) -> list[Span]:
        """[summary, regions·], asked at every proposal."""
        span = self.region.span(self.picture(record))
        return [self.modalities["summary"].span(None), span.ask(self.region.proposal_rows)]

    def example(self, record: Record, rng: torch.Generator | None = None) -> Example:
        """[summary, regions·]: asked at every proposal; labels follow once the proposals are matched."""
        image = self.picture(record)
        span = self.ask(self.region.object_span(image, self.objects(record, image), rng))
        return Example([self.modalities["summary"].span(None), span], record=str(record.get("id", "")))

    def ask(self, span: Span) -> Span:
        """The question at every proposal of a region span; more objects than proposals are an error."""
        rows = self.region.proposal_rows
        if not len(rows):
            raise UserError(f"task {self.name}: the regions' mode gives no proposals; use mode 'both' or 'regional'")
        objects = len(span.data.get("boxes", ()))
        if objects > len(rows):
            raise UserError(f"{objects} objects but only {len(rows)} proposals; raise the region modality's proposals")
        return span.ask(rows, torch.full((len(rows),), -1))

    def objects(self, record: Record, image: Tensor) -> PixelObjects:
        """The record's objects in the picture's pixels; crowds are not taught."""
        height, width = image.shape[-2:]
        if (record["height"], record["width"]) != (height, width):
            raise UserError(
                f"the picture is {width} x {height}, its annotations say {record['width']} x {record['height']}; "
                "if it carries a rotation (EXIF), turn the file or the annotations"
            )
        taught = ~np.asarray(record["crowd"])
        boxes = torch.as_tensor(np.asarray(record["boxes"], dtype=np.float32).reshape(-1, 4)[taught])
        classes = torch.as_tensor(np.asarray(record["classes"], dtype=np.int64)[taught])
        return PixelObjects(boxes, classes, self.masks(record, taught))

    def masks(self, record: Record, taught: np.ndarray) -> Tensor | None:
        """Bool[n H W] of the taught objects, or None where this task has no masks."""
        return None

    def collate(self, examples: list[Example]) -> Batch:
        batch = super().collate(examples)
        # an answer is an object: what the proposer's loss and the weighted -log p are sums over
        batch.count = max(1, int(sum(len(s.data["boxes"]) for e in examples for s in e.inputs if "boxes" in s.data)))
        return batch

    # --- answers ---

    def read(self, record: Record, log_p: Tensor, rows: Mapping[str, Tensor]) -> Answer:
        """The boxes whose name is likely enough, likeliest first, in the picture's pixels. log_p: Float[N K]."""
        from torchvision.ops import batched_nms

        assert self.candidates is not None
        labels = self.candidates.offered()
        height, width = self.picture(record).shape[-2:]
        boxes = to_pixels(rows["boxes"].float(), height, width)
        at, kinds = (log_p[:, 1:].exp() >= self.threshold).nonzero().unbind(1)
        kept = batched_nms(boxes[at], log_p[at, kinds + 1].float(), kinds, self.overlap)
        found = []
        for row, kind in zip(at[kept].tolist(), kinds[kept].tolist(), strict=True):
            corners = dict(zip(("xmin", "ymin", "xmax", "ymax"), boxes[row].tolist(), strict=True))
            hit = {"label": labels[kind + 1], "score": float(log_p[row, kind + 1].exp()), "box": corners}
            if "masks" in rows:
                logits = rows["masks"][row][None, None].float()
                full = interpolate(logits, (height, width), mode="bilinear", align_corners=False)
                hit["mask"] = (full[0, 0] > 0).cpu().numpy()
            found.append(hit)
        return Answer(boxes=sorted(found, key=lambda hit: -hit["score"]))

    def score(self, log_p: Float[Tensor, "M ... K"], labels: Shaped[Tensor, "M ..."]) -> dict[str, Mean]:
        """Whether matched proposals are named right, "nothing" aside."""
        matched = labels > 0
        named = log_p[:, 1:].argmax(-1) + 1 == labels
        return {"named right": Mean(float((named & matched).sum()), float(matched.sum()))}

    def keep(self, kept: lines.Kept) -> lines.Columns:
        """A line a picture: its objects and what was found, by class name; COCO's AP follows from them."""
        names = self.among_kind(Names).names[1:]
        owners = kept.owner.unique().tolist()
        truths, hits = np.empty(len(owners), dtype=object), np.empty(len(owners), dtype=object)
        right = []
        for at, i in enumerate(owners):
            record, own = kept.record(i), kept.owner == i
            image = self.true_image(record, i)
            right.append(self.score(kept.log_p[own], kept.labels[own])["named right"])
            image |= {"classes": [names[k] for k in image["classes"]]}
            truths[at] = lines.plain({k: v for k, v in image.items() if k != "image_id"})
            found = self.detections(record, i, kept.log_p[own], {k: v[own] for k, v in kept.rows.items()})
            hits[at] = [lines.plain({"name": names[hit["category_id"] - 1], **self.kept(hit)}) for hit in found]
        counts = {"named": np.array([r.total for r in right]), "matched": np.array([r.count for r in right])}
        return {"record": np.array(owners), "truth": truths, "found": hits, **counts}

    @staticmethod
    def kept(hit: dict[str, Any]) -> dict[str, Any]:
        """A detection without what its line says anyway."""
        return {k: v for k, v in hit.items() if k not in ("image_id", "category_id")}

    def true_image(self, record: Record, image_id: int) -> dict[str, Any]:
        return {"image_id": image_id, **{k: record[k] for k in ("height", "width", "boxes", "classes", "crowd")}}

    def detections(self, record: Record, image_id: int, log_p: Tensor, rows: dict[str, Tensor]) -> list[dict[str, Any]]:
        """The SHOWN likeliest (proposal, name) pairs of one picture in COCO's result format. log_p: Float[N K]."""
        p = log_p[:, 1:].exp()
        score, index = p.flatten().topk(min(SHOWN, p.numel()))
        proposal, name = index // p.shape[1], index % p.shape[1]
        boxes = to_pixels(rows["boxes"].float(), record["height"], record["width"])[proposal]
        out = []
        for i, (s, k, box) in enumerate(zip(score.tolist(), name.tolist(), boxes.tolist(), strict=True)):
            left, top, right, bottom = box
            hit = {
                "image_id": image_id,
                "category_id": k + 1,
                "score": s,
                "bbox": [left, top, right - left, bottom - top],
            }
            out.append(hit | self.outline(record, rows, int(proposal[i])))
        return out

    def outline(self, record: Record, rows: dict[str, Tensor], proposal: int) -> dict[str, Any]:
        """What a detection carries besides its box."""
        return {}

    def show(
        self,
        record: Record,
        log_p: Tensor,
        labels: Tensor,
        names: list[str],
        rows: dict[str, Tensor] | None = None,
    ) -> dict[str, Any]:
        """The picture with the likeliest detections drawn; answers: how sure each name's best detection is."""
        hits = [] if rows is None else self.detections(record, 0, log_p, rows)
        drawn = self.region.show(record[next(iter(self.inputs.values()))])
        drawn["objects"] = [self._drawn(hit, record, names) for hit in hits if hit["score"] >= self.threshold]
        drawn["text"] = f"{len(drawn['objects'])} found above p = {self.threshold:g}, {len(record['boxes'])} annotated"
        best = {n: max((h["score"] for h in hits if names[h["category_id"]] == n), default=0.0) for n in names[1:]}
        return {
            "input": drawn,
            "truth": self.truth(record),
            "answers": [list(pair) for pair in sorted(best.items(), key=lambda pair: -pair[1])[:5]],
            "correct": None,
        }

    def _drawn(self, hit: dict[str, Any], record: Record, names: list[str]) -> dict[str, Any]:
        left, top, wide, high = hit["bbox"]
        box = [left / record["width"], top / record["height"], wide / record["width"], high / record["height"]]
        kind = hit["category_id"]
        return {"name": names[kind], "kind": kind - 1, "p": round(hit["score"], 3), "box": [round(v, 4) for v in box]}

    def truth(self, record: Record) -> str:
        names = self.among_kind(Names).names[1:]
        kinds = [names[k] for k in record["classes"]]
        return ", ".join(f"{kinds.count(n)} {n}" for n in names if n in kinds) or "no objects"
