"""What is kept of every answer - one line each - and the measures that follow from those lines and nothing else.

A run's predictions are saved as these lines, so every number of a table can be had again from the file, over all
samples, over those left when leaked ones are taken out, or over resamples. A measure takes columns [M] and weights
Float[R M] - how often an answer counts in each of R resamples - and gives R values: the plain value has weights of one.

    named    one of K candidates is right      label answer confidence nll rank right choices (score)
    numbers  a distribution over a number      value guess mean low median high crps
    gallery  the candidates are the partners   direction rank right choices
    boxes    objects of a picture (COCO AP)    truth found named matched       masks: the same with masks
    captions a written text of a record        written references
    marks    whether a name is right of it     label truth p (`generalist.tasks.measures.marks`)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generalist.tasks.candidates.names import Numbers
from generalist.tasks.measures import captioning, marks
from generalist.tasks.measures.average_precision import resampled
from generalist.tasks.measures.reliability import calibration_error, hit, sums_by

Columns = dict[str, np.ndarray]
Values = dict[str, np.ndarray]  # {measure: Float[R]}
LEAST = -87.5  # log p of an answer that float32 has no probability for


@dataclass(frozen=True)
class Kept:
    """Whole records' answers, on the CPU: log_p Float[M ... K]; labels [M ...], or which partners are right, Bool[M K].

    owner: Int[M], the record of each answer; record: reads one; rows: {name: [M ...]}, what the tokenizer found
    besides tokens. direction: of a task that is asked both ways.
    """

    log_p: Tensor
    labels: Tensor
    owner: Tensor
    record: Callable[[int], dict[str, Any]]
    rows: dict[str, Tensor] = field(default_factory=dict)
    direction: str = "forward"


# --- making them ---


def named(log_p: Tensor, labels: Tensor) -> Columns:
    """log_p Float[M K], labels Int[M], -1 where the right answer is no candidate (such an answer is wrong)."""
    if labels.is_floating_point():  # shares over the candidates, Float[M K]: the largest stands for them
        labels = torch.where(labels.sum(-1) > 0, labels.argmax(-1), -1)
    known = labels >= 0
    own = log_p.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    others = log_p.shape[-1] - 1 - counted(log_p < own.unsqueeze(-1))  # ties, and what is no number, count against
    best, answer = log_p.max(-1)
    return {
        "label": labels.cpu().numpy(),
        "answer": answer.cpu().numpy(),
        "confidence": best.double().exp().cpu().numpy(),
        "nll": torch.where(known, -own.double().clamp(min=LEAST), torch.nan).cpu().numpy(),
        "rank": torch.where(known, others, log_p.shape[-1]).cpu().numpy(),
        "right": known.long().cpu().numpy(),
        "choices": np.full(len(labels), log_p.shape[-1]),
    }


def numbers(
    log_p: Tensor,
    labels: Tensor,
    among: Numbers,
    mean: float = 0.0,
    std: float = 1.0,
    widths: Tensor | None = None,
) -> Columns:
    """log_p Float[M K], labels Float[M] in the candidates' units; kept in the unit value * std + mean.

    guess: what to say of a value without its input, the training mean. widths: Float[M], how many times as far from its
    median each distribution reaches.
    """
    low, middle, high = (among.quantile(log_p, q) for q in (0.1, 0.5, 0.9))
    if widths is not None:
        low, high = (middle + widths * (q - middle) for q in (low, high))
    found = {name: q * std + mean for name, q in (("low", low), ("median", middle), ("high", high))}
    found["value"] = labels.double() * std + mean
    found["mean"] = among.expectation(log_p).double() * std + mean
    at = labels if widths is None else middle + (labels - middle) / widths  # as far as it is from a wider one
    found["crps"] = among.crps(log_p, at) * std * (1.0 if widths is None else widths)
    found["guess"] = torch.full_like(found["value"], mean)
    return {name: value.double().cpu().numpy() for name, value in found.items()}


def gallery(log_p: Tensor, right: Tensor, direction: str) -> Columns:
    """log_p Float[M K] over the partners, right Bool[M K]; rank: of the best right one, the others not counted."""
    return {
        "direction": np.full(len(log_p), direction),
        "rank": rank_of_best(log_p, right).cpu().numpy(),
        "right": counted(right).cpu().numpy(),
        "choices": np.full(len(log_p), right.shape[-1]),
    }


def rank_of_best(log_p: Tensor, right: Tensor) -> Tensor:
    """Of Float[M K] with the right ones Bool[M K] the place of the best right one, the others not counted: Int[M] from
    0 = first. Ties count against, what is no number is never found."""
    own = log_p.masked_fill(~right, float("-inf")).amax(-1, keepdim=True)
    return log_p.shape[-1] - counted((log_p < own) | right)


def counted(which: Tensor) -> Tensor:
    """How many are true, Bool[M K] -> Int[M]; torch's sum of them takes ten times as long on a CPU."""
    if which.device.type != "cpu":
        return which.sum(-1)
    return torch.from_numpy(np.asarray(np.count_nonzero(which.numpy(), axis=-1)))


# --- measures ---


def mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted means, NaN left out: [M], [R M] -> [R]."""
    real = ~np.isnan(values)
    total = weights[:, real].sum(1)
    return np.divide(
        weights[:, real] @ values[real].astype(float), total, out=np.full(len(weights), np.nan), where=total > 0
    )


def median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted lower medians: [M], [R M] -> [R]."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[:, order], 1)
    return values[order][(reached < reached[:, -1:] / 2).sum(1)].astype(float)


def macro_f1(columns: Columns, weights: np.ndarray) -> np.ndarray:
    """F1 of every class that occurs in labels or answers, averaged."""
    asked = columns["right"] > 0
    kinds, both = np.unique(np.concatenate([columns["label"], columns["answer"]]), return_inverse=True)
    label, answer = np.split(both, 2)
    hits = sums_by(label, len(kinds), hit(columns), weights)
    seen = sums_by(label, len(kinds), asked, weights) + sums_by(answer, len(kinds), np.ones(len(answer)), weights)
    f1 = np.divide(2 * hits, seen, out=np.zeros(seen.shape), where=seen > 0)
    return f1.sum(1) / (seen > 0).sum(1)


def named_measures(columns: Columns, weights: np.ndarray) -> Values:
    out = {
        "accuracy": mean(hit(columns), weights),
        "macro-F1": macro_f1(columns, weights),
        "ECE": calibration_error(columns, weights),
        "nll": mean(columns["nll"], weights),
    }
    if "score" in columns:
        out["VQA accuracy"] = mean(columns["score"], weights)
    least = int(columns["choices"].min())
    return out | {f"recall@{k}": mean(columns["rank"] < k, weights) for k in (1, 5, 10) if k < least}


def named_chance(columns: Columns) -> dict[str, float]:
    """What guessing gives: any candidate, or always the most common label."""
    labels = columns["label"][columns["right"] > 0]
    most = np.unique(labels, return_counts=True)[1].max() if len(labels) else 0
    return {
        "uniform": float((columns["right"] / columns["choices"]).mean()),
        "most common class": most / len(columns["label"]),
    }


def number_measures(columns: Columns, weights: np.ndarray) -> Values:
    value = columns["value"]
    squared = mean((columns["mean"] - value) ** 2, weights)
    return {
        "rmse": squared**0.5,
        "mse": squared,
        "mae": mean(np.abs(columns["median"] - value), weights),
        "CRPS": mean(columns["crps"], weights),
        "coverage of 80% interval": mean((columns["low"] <= value) & (value <= columns["high"]), weights),
    }


def number_chance(columns: Columns) -> dict[str, float]:
    """The errors of always saying the training mean; the CRPS of a point is its absolute error."""
    off = columns["value"] - columns["guess"]
    squared, absolute = float((off**2).mean()), float(np.abs(off).mean())
    return {"rmse": squared**0.5, "mse": squared, "mae": absolute, "CRPS": absolute}


def gallery_measures(columns: Columns, weights: np.ndarray) -> Values:
    """Both directions averaged, and each."""
    ways = list(dict.fromkeys(columns["direction"].tolist()))
    out: Values = {}
    for way in ways:
        at = columns["direction"] == way
        rank, w = columns["rank"][at], weights[:, at]
        found = {f"recall@{k}": mean(rank < k, w) for k in (1, 5, 10)} | {"median rank": median(rank + 1, w)}
        for name, value in found.items():
            out[name] = out.get(name, 0.0) + value / len(ways)
            if len(ways) > 1:
                out[f"{name} {way}"] = value
    return out


def gallery_chance(columns: Columns) -> dict[str, float]:
    """Recall of a random order: 1 - C(n - r, k) / C(n, k) with r of n right."""
    n, r = columns["choices"].astype(float), columns["right"].astype(float)
    out = {}
    for k in (1, 5, 10):
        missed = np.ones(len(n))
        for i in range(k):
            missed = missed * np.clip(n - r - i, 0, None) / np.clip(n - i, 1, None)
        out[f"recall@{k}"] = float((1 - missed).mean())
    return out


def object_measures(kind: str) -> Callable[[Columns, np.ndarray], Values]:
    def measures(columns: Columns, weights: np.ndarray) -> Values:
        matched = weights @ columns["matched"]
        named = np.divide(weights @ columns["named"], matched, out=np.full(len(weights), np.nan), where=matched > 0)
        found = resampled(columns["truth"].tolist(), columns["found"].tolist(), weights.round().astype(int), kind)
        return {**found, "named right": named}

    return measures


def caption_measures(columns: Columns, weights: np.ndarray) -> Values:
    return captioning.resampled(columns["written"].tolist(), columns["references"].tolist(), weights)


Measures = Callable[[Columns, np.ndarray], Values]
KINDS: dict[str, tuple[Measures, Callable[[Columns], dict[str, float]]]] = {
    "named": (named_measures, named_chance),
    "numbers": (number_measures, number_chance),
    "gallery": (gallery_measures, gallery_chance),
    "boxes": (object_measures("bbox"), lambda columns: {}),
    "masks": (object_measures("segm"), lambda columns: {}),
    "captions": (caption_measures, lambda columns: {}),
    "marks": (marks.measures, marks.chance),
}

# --- lines and columns ---


def rows_of(columns: Columns) -> Iterator[dict[str, Any]]:
    """Columns -> one dict of JSON values a row."""
    plain = {name: value.tolist() for name, value in columns.items()}
    for row in zip(*plain.values(), strict=True):
        yield dict(zip(plain, row, strict=True))


def plain(value: Any) -> Any:
    """Arrays, tensors and bytes (of run-length codes) as JSON values."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, bytes):
        return value.decode("ascii")
    return value.tolist() if isinstance(value, Tensor | np.ndarray | np.generic) else value


def columns_of(rows: Iterable[dict[str, Any]]) -> Columns:
    """The inverse; what is no number or text stays as it is."""
    rows = list(rows)
    out = {}
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows]
        flat = all(isinstance(v, int | float | str) for v in values)
        column = np.array(values) if flat else np.empty(len(values), dtype=object)
        if not flat:
            column[:] = values
        out[name] = column
    return out


def joined(parts: list[Columns]) -> Columns:
    """Columns end to end."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
