"""What every modality must do, tried on its own examples beside a small encoder: one function a check."""

from __future__ import annotations

import json
import math
import pickle
import tempfile
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generalist.commands.check.lines import EXACT, Fault, LeftOut, difference, refused, rounded, same, short
from generalist.commands.check.modality_subject import Subject, real
from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.hf.model import GeneralistModel
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.examples import raw_at
from generalist.tokenizers_mod.base.modalities import build_modalities, modality_settings
from generalist.tokenizers_mod.base.tokenizer import Embedded

SEEDS = range(4)


# --- the checks ---


def settings(subject: Subject) -> str:
    """Settings -> JSON -> the same modality, which reads the same; it reaches loader workers whole."""
    modality, values = subject.modality, subject.values()
    written = json.loads(json.dumps(modality_settings({subject.name: modality})))
    for way, again in (
        ("JSON", build_modalities(written)[subject.name]),
        ("pickle", pickle.loads(pickle.dumps(modality))),
    ):
        known = {f.name for f in fields(modality)}
        changed = sorted(name for name in known if vars(again).get(name) != vars(modality).get(name))
        if changed:
            raise Fault(f"settings change through {way}: {', '.join(changed)}")
        for value in values:
            _equal(modality.span(value), again.span(value), f"the tokens of a modality made again through {way}")
    return f"{len(modality.settings())} settings"


def reading(subject: Subject) -> str:
    """Good raw values become finite tokens, one row a token, the same whenever asked."""
    rows = []
    for number, value in enumerate(subject.values()):
        span = subject.modality.span(value)
        if span.modality != subject.name:
            raise Fault(f"good raw value {number}: the span is of modality {span.modality!r}, not {subject.name!r}")
        if not bool(real(span).any()):
            raise Fault(f"good raw value {number}: none of {span.length} tokens is real")
        _equal(span, subject.modality.span(value), f"good raw value {number}: the tokens of two calls without rng")
        if len(span.grid or ()) > subject.modality.axes:
            raise Fault(
                f"good raw value {number}: its grid is {span.grid}, `axes` says {subject.modality.axes} at most"
            )
        tokens = Embedded.of(subject.model.tokenizers[subject.name](span.data)).x
        if tokens.shape != (span.length, subject.model.config.hidden_size):
            raise Fault(
                f"good raw value {number}: build(width) gives {tuple(tokens.shape)} for a span of {span.length} tokens "
                f"at width {subject.model.config.hidden_size}"
            )
        if not bool(tokens[real(span)].isfinite().all()):
            raise Fault(f"good raw value {number}: tokens are NaN or infinite")
        rows.append(str(span.length))
    return f"spans of {', '.join(rows)} tokens"


def drawing(subject: Subject) -> str:
    """What training draws follows from the generator that it is given."""
    for value in subject.values():
        a, b = (subject.modality.span(value, torch.Generator().manual_seed(3)) for _ in range(2))
        _equal(a, b, "the tokens of two calls with generators of one seed")
    return "one seed, one span"


def counting(subject: Subject) -> str:
    """The formula in `count` gives the number of real tokens."""
    cases = subject.examples.counted
    if not cases:
        raise LeftOut("no `counted` in its examples")
    for given, raw, sizes in cases:
        modality = build_modalities({subject.name: {**subject.settings, **given}})[subject.name]
        span = modality.span(modality.read(raw))
        wanted = formula(modality, sizes)
        if wanted != int(real(span).sum()):
            raise Fault(f"count says {wanted} for {sizes}, the span has {int(real(span).sum())} real tokens")
    return f"{len(cases)} sizes"


def formula(modality: Modality, sizes: dict[str, int]) -> int:
    """The value of the formula in `count` for these sizes and the modality's settings."""
    words = {"ceil": math.ceil, "max": max, "min": min, "round": round, "sum": sum, "__builtins__": {}}
    return eval(modality.count.partition(";")[0], words, modality.settings() | sizes)


def least(subject: Subject) -> str:
    """As little as there can be has its tokens, and they are finite."""
    if not subject.examples.least:
        raise LeftOut("no `least` in its examples")
    for raw, tokens in subject.examples.least:
        span = subject.modality.span(subject.modality.read(raw))
        if int(real(span).sum()) != tokens:
            raise Fault(f"{short(raw)}: {int(real(span).sum())} real tokens, not {tokens}")
        if not Embedded.of(subject.model.tokenizers[subject.name](span.data)).x[real(span)].isfinite().all():
            raise Fault(f"{short(raw)}: tokens are NaN or infinite")
    return f"{len(subject.examples.least)} values"


def taken(subject: Subject, raw: Any) -> Span:
    return subject.modality.span(subject.modality.read(raw))


def refusing(subject: Subject) -> str:
    """Bad raw values end in one line that says what is wrong."""
    if not subject.examples.bad and subject.kind.takes_input:
        raise Fault("its examples have no bad raw value; say what it refuses, and with which words")
    for raw, says in subject.examples.bad:
        with tempfile.TemporaryDirectory() as folder:
            refused(partial(taken, subject, raw_at(raw, Path(folder))), short(raw), says)
    return f"{len(subject.examples.bad)} values"


def batching(subject: Subject) -> str:
    """A ragged batch gives what its samples give alone."""
    spans = subject.spans()
    if len(spans) < 2:
        raise Fault("its examples have one good raw value; give two or more, of different sizes")
    alone = torch.cat([subject.features([span]) for span in spans])
    return same(subject.features(spans), alone, EXACT, "features in a batch and alone")


def masking(subject: Subject) -> str:
    """True = real: what a masked token holds changes nothing, and masking it is leaving it out."""
    span = subject.spans()[0]
    if subject.modality.whole:
        raise LeftOut("its tokens see each other in the device half, so that none can be left out")
    if any(len(rows) != span.length for rows in span.data.values()):
        raise LeftOut("one row a sample, not a token, so that no token can be left out")
    for seed in SEEDS:
        draw = torch.Generator().manual_seed(seed)
        kept = real(span) & (torch.rand(span.length, generator=draw) < 0.6)
        kept[int(real(span).nonzero()[0])] = True
        without = {k: v[kept] for k, v in span.data.items()}
        gone = replace(span, data=without, length=int(kept.sum()), mask=None, causal=None, hidden=None, grid=None)
        masked, other = (
            subject.features([replace(span, data=data, mask=kept)]) for data in (span.data, _spoiled(span, kept, draw))
        )
        if not torch.equal(masked, other):
            raise Fault(f"what masked tokens hold changes the result by {difference(other, masked):.2g}")
        same(masked, subject.features([gone]), EXACT, "features with tokens masked and left out")
    return f"{len(SEEDS)} draws of tokens"


def _spoiled(span: Span, kept: Tensor, draw: torch.Generator) -> dict[str, Tensor]:
    """The span's data with other values where tokens are not kept."""
    found = {}
    for key, value in span.data.items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=draw) * 1e3
            found[key] = torch.where(kept.view(-1, *[1] * (value.ndim - 1)), value, noise.to(value))
        else:
            found[key] = value.clone()
            found[key][~kept] = value[int(kept.nonzero()[0])]
    return found


def padding(subject: Subject) -> str:
    """Clients that pad get the features of packed sequences."""
    values, spans = subject.values(), subject.spans()
    try:
        groups = [(subject.modality.tensors(values), spans)]
    except UserError:  # samples of different sizes may have no common form
        try:
            groups = [(subject.modality.tensors([v]), [span]) for v, span in zip(values, spans, strict=True)]
        except UserError as error:
            raise LeftOut(str(error)) from error
    with torch.no_grad():
        padded = [subject.model.get_features(subject.name, side="input", **t).pooler_output for t, _ in groups]
    packed = [subject.features(own) for _, own in groups]
    return same(torch.cat(padded), torch.cat(packed), EXACT, "features of padded and packed samples")


def rounding(subject: Subject) -> str:
    """Under bf16 autocast features stay near those in fp32."""
    spans = subject.spans()
    return rounded(lambda: subject.features(spans))


def saving(subject: Subject) -> str:
    """A saved model read back gives the same bits."""
    with tempfile.TemporaryDirectory() as folder:
        subject.model.save_pretrained(folder)
        again = GeneralistModel.from_pretrained(folder).eval()
    if again.modalities[subject.name].settings() != subject.modality.settings():
        raise Fault("the saved model reads with other settings")
    spans, before = subject.spans(), subject.model
    wanted = subject.features(spans)
    subject.model = again
    found = subject.features(spans)
    subject.model = before
    if not torch.equal(found, wanted):
        raise Fault(f"features of the saved model differ by {difference(found, wanted):.2g}; is a tensor not saved?")
    return "bit-equal"


def learning(subject: Subject) -> str:
    """Every parameter of the device half gets a gradient from the good raw values."""
    tokenizer = subject.model.tokenizers[subject.name]
    subject.model.zero_grad()
    features = subject.model.features(pack([subject.sequence(span) for span in subject.spans()]))
    draw = torch.Generator().manual_seed(0)
    (features * torch.randn(features.shape, generator=draw)).sum().backward()
    elsewhere = tuple(subject.examples.elsewhere)
    asked = {n: p for n, p in tokenizer.named_parameters() if p.requires_grad and not n.startswith(elsewhere)}
    wrong = [n for n, p in asked.items() if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()]
    subject.model.zero_grad()
    if wrong:
        raise Fault(f"no gradient reaches {', '.join(wrong)}")
    return f"{len(asked)} parameters"


def _equal(a: Span, b: Span, what: str) -> None:
    """Fault where two spans differ in length or in any bit of their data, mask or grid."""
    if a.length != b.length or a.data.keys() != b.data.keys() or a.grid != b.grid:
        raise Fault(f"{what} differ in shape")
    for key, value in [*a.data.items(), ("mask", real(a))]:
        other = real(b) if key == "mask" and key not in b.data else b.data[key]
        if value.dtype != other.dtype or not torch.equal(value.nan_to_num(), other.nan_to_num()):
            raise Fault(f"{what} differ in {key!r}")


CHECKS: dict[str, Callable[[Subject], str]] = {
    "settings round trip": settings,
    "good input": reading,
    "draws by seed": drawing,
    "token count": counting,
    "least input": least,
    "bad input": refusing,
    "batched = alone": batching,
    "mask": masking,
    "padded = packed": padding,
    "bf16": rounding,
    "save and load": saving,
    "gradients": learning,
}
