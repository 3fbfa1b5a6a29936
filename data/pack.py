"""Sequences of spans -> one packed batch.

Sequences are sorted by length so that those of equal length lie end to end: attention then works on
views `[count, length]` of the packed tokens and nothing is ever padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from data.types import Batch, Example, Group, Layout, Packed, Span


def _flags(spans: list[Span], name: str, default: bool) -> Tensor:
    return torch.cat([torch.full((s.length,), default) if (f := getattr(s, name)) is None else f for s in spans])


def pack(sequences: Sequence[Sequence[Span]]) -> Packed:
    """Lay B sequences of spans end to end, masked tokens dropped.

    Raises ValueError when there is no sequence, a sequence has no real token, an asked token is masked,
    or two modalities carry labels in one batch.
    """
    if not sequences:
        raise ValueError("cannot pack an empty batch")
    spans = [span for sequence in sequences for span in sequence]
    span_owner = torch.tensor([b for b, sequence in enumerate(sequences) for _ in sequence])
    lengths = torch.tensor([s.length for s in spans])
    modalities = sorted({s.modality for s in spans})
    data = {}
    span_source = torch.tensor([modalities.index(s.modality) for s in spans])
    span_row = torch.zeros_like(lengths)  # first row of the span in its tokenizer's output
    for i, modality in enumerate(modalities):
        own = [s for s in spans if s.modality == modality]
        data[modality] = {key: torch.cat([s.data[key] for s in own]) for key in own[0].data}
        at = span_source == i
        span_row[at] = lengths[at].cumsum(0) - lengths[at]

    # every token of every span, in the order given
    span_start = lengths.cumsum(0) - lengths
    within = torch.arange(int(lengths.sum())) - span_start.repeat_interleave(lengths)
    owner = span_owner.repeat_interleave(lengths)
    source = span_source.repeat_interleave(lengths)
    row = span_row.repeat_interleave(lengths) + within
    mask, causal, hidden = _flags(spans, "mask", True), _flags(spans, "causal", False), _flags(spans, "hidden", False)

    count = torch.zeros(len(sequences), dtype=torch.long).index_add_(0, owner, mask.long())
    if (count == 0).any():
        raise ValueError(f"sequence {int((count == 0).nonzero()[0])} of the batch has no real token")
    special = torch.zeros(len(sequences), dtype=torch.long).index_add_(0, owner, (mask & (causal | hidden)).long()) > 0

    # sort sequences by (length, needs a mask); stable, so the order is reproducible
    rank_key = count * 2 + special.long()
    order = torch.argsort(rank_key, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    kept = mask.nonzero().squeeze(1)
    kept = kept[torch.argsort(rank[owner[kept]], stable=True)]
    position = torch.full((len(mask),), -1, dtype=torch.long)
    position[kept] = torch.arange(len(kept))

    starts = count[order].cumsum(0) - count[order]
    opened = (causal & mask)[kept].long().cumsum(0)
    block = opened - (opened - (causal & mask)[kept].long())[starts].repeat_interleave(count[order])
    first = torch.empty_like(starts)
    first[order] = starts

    asked, asked_owner, labels, asked_kinds = [], [], [], set()
    for start, sequence, span in zip(span_start.tolist(), span_owner.tolist(), spans, strict=True):
        if span.asked is None or len(span.asked) == 0:
            continue
        asked.append(position[start + span.asked])
        asked_owner.append(torch.full((len(span.asked),), sequence))
        asked_kinds.add(span.modality)
        if span.labels is not None:
            labels.append(span.labels)
    if len(asked_kinds) > 1:
        raise ValueError(f"one batch asks at tokens of several modalities: {sorted(asked_kinds)}")
    empty = torch.zeros(0, dtype=torch.long)
    at = torch.cat(asked) if asked else empty
    if (at < 0).any():
        raise ValueError("a question is asked at a masked token")
    return Packed(
        data=data,
        source=source[kept],
        row=row[kept],
        layout=Layout(_groups(count[order].tolist(), special[order].tolist()), block, hidden[kept]),
        owner=owner[kept],
        first=first,
        asked=at,
        asked_owner=torch.cat(asked_owner) if asked_owner else empty,
        asked_modality=asked_kinds.pop() if asked_kinds else "",
        labels=torch.cat(labels) if labels else None,
        kinds=[s.modality for s in spans],
        grids=[(s.length, s.grid) for s in spans],
    )


def _groups(lengths: list[int], special: list[bool]) -> list[Group]:
    groups, start = [], 0
    for (length, mask), run in groupby(zip(lengths, special, strict=True)):
        count = len(list(run))
        groups.append(Group(start, count, length, not mask))
        start += count * length
    return groups


def collate(task: str, examples: list[Example], candidates: str | None, symmetric: bool = False) -> Batch:
    """Examples of one task -> one batch. Partners, where the task has them, are packed on their own."""
    if not examples:
        raise ValueError(f"task {task}: a batch needs at least one example")
    partners = keys = None
    if candidates is None:
        if any(e.partner is None for e in examples):
            raise ValueError(f"task {task}: in-batch candidates need a partner in every example")
        partners = pack([e.partner for e in examples])  # type: ignore[misc]
        keys = torch.tensor([e.key for e in examples])
    return Batch(
        task=task,
        inputs=pack([e.inputs for e in examples]),
        candidates=candidates,
        partners=partners,
        symmetric=symmetric,
        records=[e.record for e in examples],
        keys=keys,
    )
