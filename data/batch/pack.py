"""Sequences of spans -> one packed batch.

Sequences are sorted by length so that those of equal length lie end to end: attention then works on
views `[count, length]` of the packed tokens and nothing is ever padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from generalist.data.batch.pieces import Pieces
from generalist.data.batch.types import Batch, Example, Group, Layout, Packed, Role, Span


def _flags(flags: list[Tensor | None], starts: list[int], total: int, default: bool) -> Tensor:
    """One flag a token; the spans at `starts` whose flags are None have the default."""
    out = torch.full((total,), default)
    for start, flag in zip(starts, flags, strict=True):
        if flag is not None:
            out[start : start + len(flag)] = flag
    return out


def pack(sequences: Sequence[Sequence[Span]], role: Role | None = None) -> Packed:
    """Lay B sequences of spans end to end, masked tokens dropped. role: on which side of the law they stand.

    Raises ValueError when there is no sequence, a sequence has no real token, an asked token is masked,
    two modalities carry labels in one batch, or some of the questions have labels and others none.
    """
    if not sequences:
        raise ValueError("cannot pack an empty batch")
    spans = [span for sequence in sequences for span in sequence]
    owners = [b for b, sequence in enumerate(sequences) for _ in sequence]
    modalities = sorted({s.modality for s in spans})
    numbers = {modality: i for i, modality in enumerate(modalities)}
    starts_of, sources, rows_of = [], [], []  # of each span: first token, modality, first row of its tokenizer's output
    total, rows = 0, [0] * len(modalities)
    for span in spans:
        source_of = numbers[span.modality]
        starts_of.append(total)
        sources.append(source_of)
        rows_of.append(rows[source_of])
        total += span.length
        rows[source_of] += span.length
    data = {}
    for modality in modalities:
        own = [s.data for s in spans if s.modality == modality]
        data[modality] = {key: torch.cat([held[key] for held in own]) for key in own[0]}

    # every token of every span, in the order given
    lengths = torch.tensor([s.length for s in spans])
    of_spans = torch.tensor([owners, sources, rows_of, starts_of])
    owner, source, span_row, span_start = of_spans.repeat_interleave(lengths, dim=1, output_size=total)
    row = span_row + (torch.arange(total) - span_start)
    mask = _flags([s.mask for s in spans], starts_of, total, True)
    causal = _flags([s.causal for s in spans], starts_of, total, False)
    hidden = _flags([s.hidden for s in spans], starts_of, total, False)

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

    sizes = count[order]
    starts = sizes.cumsum(0) - sizes
    opens = (causal & mask)[kept].long()
    opened = opens.cumsum(0)
    block = opened - (opened - opens)[starts].repeat_interleave(sizes, output_size=len(kept))
    first = torch.empty_like(starts)
    first[order] = starts

    pieces = _pieces(spans, owners, first.tolist())
    asked, labels = [], []
    asking: list[tuple[int, int, int]] = []  # of each span that asks: its first token, sequence and questions
    asked_kinds = set()
    for start, sequence, span in zip(starts_of, owners, spans, strict=True):
        if span.asked is None or len(span.asked) == 0:
            continue
        asked.append(span.asked)
        asking.append((start, sequence, len(span.asked)))
        asked_kinds.add(span.modality)
        if span.labels is not None:
            labels.append(span.labels)
    if labels and len(labels) < len(asked):
        bare = [s.asked is not None and len(s.asked) > 0 and s.labels is None for s in spans]
        lacking = owners[bare.index(True)]
        raise ValueError(f"sequence {lacking} asks without a label beside others that have one; answers would shift")
    if len(asked_kinds) > 1:
        raise ValueError(f"one batch asks at tokens of several modalities: {sorted(asked_kinds)}")
    at = asked_owner = torch.zeros(0, dtype=torch.long)
    if asked:
        of_asking = torch.tensor(asking)
        shift, asked_owner = of_asking[:, :2].T.repeat_interleave(of_asking[:, 2], dim=1)
        at = position[torch.cat(asked) + shift]
    if (at < 0).any():
        raise ValueError("a question is asked at a masked token")
    groups, read = grouped(sizes.tolist(), special[order].tolist()), at.unique()
    asks = torch.bincount(torch.searchsorted(starts, read, right=True) - 1, minlength=len(sequences)).tolist()
    return Packed(
        data=data,
        source=source[kept],
        row=row[kept],
        layout=Layout(groups, block, hidden[kept], pieces, read, asks),
        owner=owner[kept],
        first=first,
        asked=at,
        asked_owner=asked_owner,
        asked_modality=asked_kinds.pop() if asked_kinds else "",
        labels=torch.cat(labels) if labels else None,
        kinds=[s.modality for s in spans],
        role=role or Role(),
    )


def _pieces(spans: list[Span], owners: list[int], first: list[int]) -> Pieces:
    """Where the spans lie once packed, their masked tokens dropped. first: of each sequence, its first token."""
    at, pieces = first, Pieces(owners, shape=[span.grid for span in spans])
    for i, (owner, span) in enumerate(zip(owners, spans, strict=True)):
        start, length = at[owner], span.length
        if span.mask is not None and not bool(span.mask.all()):
            pieces.cells[i] = span.mask.nonzero().squeeze(1)
            length = len(pieces.cells[i])
        if (span.causal is not None and bool(span.causal.any())) or (
            span.hidden is not None and bool(span.hidden.any())
        ):
            pieces.bound.add(i)
        if span.asked is not None:
            pieces.asked.add(i)
        pieces.start.append(start)
        pieces.length.append(length)
        at[owner] = start + length
    return pieces


def grouped(lengths: list[int], special: list[bool]) -> list[Group]:
    """Sequences of these lengths, end to end, by equal length. special: those in which not every token sees all."""
    groups, start = [], 0
    for (length, mask), run in groupby(zip(lengths, special, strict=True)):
        count = len(list(run))
        groups.append(Group(start, count, length, not mask))
        start += count * length
    return groups


def collate(task: str, examples: list[Example], candidates: str | None) -> Batch:
    """Examples of one task -> one batch. Partners, where the task has them, are packed on their own."""
    if not examples:
        raise ValueError(f"task {task}: a batch needs at least one example")
    partners = keys = owner = None
    if candidates is None:
        found = [p for e in examples for p in (e.partner, *e.others) if p is not None]
        if any(e.partner is None for e in examples):
            raise ValueError(f"task {task}: in-batch candidates need a partner in every example")
        partners = pack(found)
        keys = torch.tensor([e.key for e in examples])
        owner = torch.arange(len(examples)).repeat_interleave(torch.tensor([1 + len(e.others) for e in examples]))
    return Batch(
        task=task,
        inputs=pack([e.inputs for e in examples]),
        candidates=candidates,
        partners=partners,
        records=[e.record for e in examples],
        keys=keys,
        partner_owner=owner,
    )
