"""Mixed pictures with mixed labels: mixup (1710.09412) and CutMix (1905.04899), on the batch of one step.

Patches are cut before the linear embedding, so mixing patches is mixing pixels; a CutMix box is whole patches.
Labels become distributions over the classes; label smoothing is added by the likelihood as for any label.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from generalist.data.batch.types import Example, Span


@dataclass(frozen=True)
class Mixed(Example):
    """An example that asks to be mixed. share: of itself, in 0..1; cut: by a box and not by a weighted sum."""

    share: float = 1.0
    cut: bool = False
    corner: tuple[float, float] = (0.0, 0.0)


def ask_mix(example: Example, mixup: float, cutmix: float, probability: float, rng: torch.Generator) -> Example:
    """Draw how this example is mixed: Beta(mixup, mixup) or Beta(cutmix, cutmix), each half of the time if both."""
    u = torch.rand(4, generator=rng)
    if float(u[0]) >= probability or not (mixup or cutmix):
        return example
    cut = bool(cutmix) and (not mixup or float(u[1]) < 0.5)
    share = beta(cutmix if cut else mixup, rng)
    corner = float(u[2]), float(u[3])
    return Mixed(example.inputs, example.partner, example.record, example.key, share=share, cut=cut, corner=corner)


def beta(alpha: float, rng: torch.Generator) -> float:
    """A draw from Beta(alpha, alpha), as a ratio of two Gamma draws from this generator."""
    state = torch.get_rng_state()
    torch.random.default_generator.manual_seed(int(torch.randint(2**31, (1,), generator=rng)))
    try:
        return float(torch.distributions.Beta(alpha, alpha).sample())
    finally:
        torch.set_rng_state(state)


def mix(examples: list[Example], classes: int) -> list[Example]:
    """Mix those that ask with the example at the mirrored place of the batch; all labels become Float[1 classes]."""
    soft = [[_soft(s, classes) for s in e.inputs] for e in examples]
    mixed = []
    for i, example in enumerate(examples):
        spans = soft[i]
        if isinstance(example, Mixed):
            spans = _pair(example, spans, soft[len(examples) - 1 - i])
        mixed.append(Example(spans, example.partner, example.record, example.key))
    return mixed


def _soft(span: Span, classes: int) -> Span:
    if span.labels is None or span.labels.is_floating_point():
        return span
    return replace(span, labels=torch.nn.functional.one_hot(span.labels, classes).float())


def _pair(example: Mixed, own: list[Span], other: list[Span]) -> list[Span]:
    """Own spans with the other's pixels and labels in part; unchanged where the two do not fit together."""
    if [s.length for s in own] != [s.length for s in other]:
        return own
    share, out = example.share, []
    keep = [_box(s, example) if example.cut and "patch" in s.data else None for s in own]
    boxes = [k for k in keep if k is not None]
    if example.cut and boxes:
        share = float(torch.cat(boxes).float().mean())  # the box has whole patches: its true share counts
    for a, b, kept in zip(own, other, keep, strict=True):
        if "patch" in a.data:
            x, y = a.data["patch"], b.data["patch"]
            patch = torch.where(kept.unsqueeze(1), x, y) if kept is not None else share * x + (1 - share) * y
            a = replace(a, data=a.data | {"patch": patch})
        if a.labels is not None and b.labels is not None:
            a = replace(a, labels=share * a.labels + (1 - share) * b.labels)
        out.append(a)
    return out


def _box(span: Span, example: Mixed) -> Tensor:
    """True where a patch stays: Bool[n]. The box has a share of 1 - share of the grid."""
    rows, cols = (span.grid or (1, span.length))[-2:]
    side = (1 - example.share) ** 0.5
    height, width = round(rows * side), round(cols * side)
    top, left = int(example.corner[0] * (rows - height + 1)), int(example.corner[1] * (cols - width + 1))
    keep = torch.ones(rows, cols, dtype=torch.bool)
    keep[top : top + height, left : left + width] = False
    return keep.flatten().repeat(span.length // (rows * cols))
