"""What every task must do, tried on its own examples under a small model: one function a check."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from generalist.commands.check.lines import EXACT, Fault, LeftOut, difference, refused, rounded, same, short
from generalist.commands.check.modality_subject import real
from generalist.commands.check.task_subject import Subject
from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.data.batch.types import IGNORE, Example, Span
from generalist.data.stream.source import Records
from generalist.evaluate.answer import answer, examples_of
from generalist.hf.model import GeneralistModel
from generalist.hf.processor import GeneralistProcessor
from generalist.recipe.json import from_json, to_json
from generalist.run.results import export

# --- the checks ---


def settings(subject: Subject) -> str:
    """The task as JSON -> the same task."""
    bare = to_json(replace(subject.task, source=cast(Any, None)))
    again = from_json(bare)
    if type(again) is not type(subject.task) or to_json(again) != bare:
        raise Fault("the task made again from its JSON has other settings")
    return f"{sum(f.init for f in fields(subject.task))} settings"


def reading(subject: Subject) -> str:
    """Good records become examples that ask, with a label for every question, the same whenever asked."""
    examples = subject.examples()
    for example, again in zip(examples, subject.examples(), strict=True):
        _equal(example, again, f"record {example.record}: two calls without rng")
        asking = [s for s in example.inputs if s.asked is not None and len(s.asked)]
        if not asking:
            raise Fault(f"record {example.record}: no question is asked; begin with `self.question(label)`")
    batch = subject.task.collate(examples)
    if batch.partners is None and batch.inputs.labels is None:
        raise Fault("the records have neither labels nor partners: nothing can be learnt from them")
    if batch.count < 1:
        raise Fault("no answer of a batch is counted")
    labels, shared = batch.inputs.labels, subject.task.candidates
    if shared is not None and labels is not None and not labels.is_floating_point():
        count = subject.objective.count(subject.task.name)
        wrong = labels[(labels != IGNORE) & ((labels < 0) | (labels >= count))]
        if len(wrong):
            raise Fault(f"label {int(wrong[0])} is none of {count} candidates")
    return f"{len(examples)} records, {batch.count} answers"


def drawing(subject: Subject) -> str:
    """What training draws follows from the generator that it is given."""
    for record in subject.rows:
        a, b = (subject.task.example(record, torch.Generator().manual_seed(3)) for _ in range(2))
        _equal(a, b, f"record {a.record}: two calls with generators of one seed")
    return "one seed, one example"


def refusing(subject: Subject) -> str:
    """Bad records, and those that lack a field, end in one line that says what is wrong."""
    record = subject.records[0]
    lacking = [({k: v for k, v in record.items() if k != name}, name) for name in subject.task.inputs.values()]
    for bad, says in [*subject.bad, *lacking]:
        refused(partial(examples_of, subject.task, Records([bad]), 0, [None]), short(bad), says)
    return f"{len(subject.bad)} records, {len(lacking)} missing fields"


def batching(subject: Subject) -> str:
    """A batch gives the features of its samples alone, and the sum of their losses where candidates are shared."""
    examples = subject.examples()
    batch = subject.task.collate(examples)
    alone = [subject.task.collate([example]) for example in examples]
    with torch.no_grad():
        together = subject.model.features(batch.inputs)
        told = same(together, torch.cat([subject.model.features(b.inputs) for b in alone]), EXACT, "features")
        loss = subject.objective(batch)
        if not torch.equal(loss, subject.objective(batch)):  # such as at random points of a mask
            return f"{told}; its loss draws at random"
        if batch.partners is None:
            losses = sum(subject.objective(b) for b in alone)
            same(loss, cast(Tensor, losses), EXACT, "the loss of a batch and the sum of its samples' losses")
    return told


def masking(subject: Subject) -> str:
    """True = real: what a masked token holds changes nothing."""
    examples = subject.examples()
    spoilt = [replace(e, inputs=[_spoiled(span) for span in e.inputs]) for e in examples]
    masked = sum(int((~real(span)).sum()) for e in examples for span in e.inputs)
    if not masked:
        raise LeftOut("no token of its examples is masked")
    if not torch.equal(subject.features(examples), subject.features(spoilt)):
        raise Fault("what masked tokens hold changes the result")
    return f"{masked} masked tokens"


def _spoiled(span: Span) -> Span:
    rows = {key: value.clone() for key, value in span.data.items()}
    for value in rows.values():
        if len(value) == span.length and value.is_floating_point():
            value[~real(span)] = 1e3
    return replace(span, data=rows)


def padding(subject: Subject) -> str:
    """Clients that pad one modality get the features of the task's own sequences."""
    task, examples = subject.task, subject.examples()
    if len(task.inputs) != 1 or any([s.modality for s in e.inputs] != ["summary", *task.inputs] for e in examples):
        raise LeftOut("its sequences are not [summary, one modality], which clients pad")
    ((name, key),) = task.inputs.items()
    modality = subject.model.modalities[name]
    try:
        tensors = modality.tensors([modality.read(record[key]) for record in subject.rows])
    except UserError as error:
        raise LeftOut(str(error)) from error
    plain = [modality.span(modality.read(record[key])) for record in subject.rows]
    if any(not _same_data(e.inputs[1], span) for e, span in zip(examples, plain, strict=True)):
        raise LeftOut("the task changes what its modality reads")
    if any(s.asked is not None and len(s.asked) for e in examples for s in e.inputs[1:]):
        raise LeftOut("its question is not asked at the summary")
    with torch.no_grad():
        padded = subject.model.get_features(name, side="input", task=task.name, **tensors).pooler_output
        packed = subject.model.features(task.collate(examples).inputs)
    return same(padded, packed, EXACT, "features of padded and packed samples")


def law(subject: Subject) -> str:
    """The likelihood is one, and the task reads its own answers off it."""
    found = answer(subject.task, subject.records, subject.objective)
    p = found.log_p(slice(None)).exp()
    if not torch.allclose(p.sum(-1), torch.ones(p.shape[:-1]), atol=1e-4):
        raise Fault("probabilities over the candidates do not sum to one")
    metric = subject.task.metric
    if metric not in found.metrics:
        raise Fault(f"its metric {metric!r} is not among what it measures: {', '.join(found.metrics)}")
    return f"{metric} {found.metrics[metric]:.3g} untrained, {p.shape[-1]} candidates"


def rounding(subject: Subject) -> str:
    """Under bf16 autocast features stay near those in fp32."""
    return rounded(lambda: subject.features(subject.examples()))


def saving(subject: Subject) -> str:
    """Model and processor saved and read back give the same bits."""
    with tempfile.TemporaryDirectory() as folder:
        export(subject.prepared, subject.model, Path(folder))
        model = GeneralistModel.from_pretrained(folder).eval()
        processor = GeneralistProcessor.from_pretrained(folder)
    name = subject.task.name
    with torch.no_grad():
        inputs = subject.task.collate(subject.examples()).inputs
        wanted, found = subject.model.features(inputs), model.features(inputs)
        if subject.task.candidates is not None:
            sequences = processor.sets[name].sequences(processor.built)
            wanted = torch.cat([wanted, subject.objective.members(name)])
            packed = pack(sequences, processor.sets[name].role(name))
            found = torch.cat([found, model.features(packed, candidate=True)])
    if not torch.equal(found, wanted):
        raise Fault(f"features of the saved model differ by {difference(found, wanted):.2g}; is a tensor not saved?")
    return "bit-equal"


def learning(subject: Subject) -> str:
    """The loss is finite, and every parameter that a step of this task trains gets a gradient."""
    subject.objective.zero_grad()
    loss = subject.objective(subject.task.collate(subject.examples()))
    if not bool(loss.isfinite().all()):
        raise Fault(f"the loss is {loss.tolist()}")
    loss.sum().backward()
    used = subject.task.used()
    model = subject.model
    asked: dict[str, Tensor] = {f"encoder.{n}": p for n, p in model.encoder.named_parameters()}
    for name in used & set(model.modalities):
        silent = tuple(type(model.modalities[name]).examples().elsewhere)
        own = model.tokenizers[name].named_parameters()
        asked |= {f"{name}.{n}": p for n, p in own if not (silent and n.startswith(silent))}
    asked["log_scale"] = model.log_scale(subject.task.scale)
    wrong = [n for n, p in asked.items() if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()]
    subject.objective.zero_grad()
    if wrong:
        raise Fault(f"no gradient reaches {', '.join(wrong)}")
    return f"loss {float(loss.detach().sum()):.3g}, {len(asked)} parameters"


def _same_data(a: Span, b: Span) -> bool:
    return a.data.keys() == b.data.keys() and all(
        a.data[k].shape == v.shape and torch.equal(a.data[k].nan_to_num(), v.nan_to_num()) for k, v in b.data.items()
    )


def _equal(a: Example, b: Example, what: str) -> None:
    """Fault where two examples differ in any bit of their spans or labels."""
    for ours, theirs in zip([*a.inputs, *(a.partner or [])], [*b.inputs, *(b.partner or [])], strict=True):
        if ours.modality != theirs.modality or not _same_data(ours, theirs):
            raise Fault(f"{what} give other tokens")
        labels = [s.labels.nan_to_num() for s in (ours, theirs) if s.labels is not None]
        if len(labels) == 1 or (labels and not torch.equal(*labels)):
            raise Fault(f"{what} give other labels")


CHECKS: dict[str, Callable[[Subject], str]] = {
    "settings round trip": settings,
    "good input": reading,
    "draws by seed": drawing,
    "bad input": refusing,
    "batched = alone": batching,
    "mask": masking,
    "padded = packed": padding,
    "law": law,
    "bf16": rounding,
    "save and load": saving,
    "gradients": learning,
}
