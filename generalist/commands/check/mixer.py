"""What every token and channel mixer must do, tried in the first of two layers: one function a check."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace

import torch
from torch.nn.functional import normalize

from generalist.commands.check.lines import EXACT, Fault, LeftOut, difference, rounded, same
from generalist.commands.check.mixer_model import FOUR, PATCH, SIZES, WIDTH, Pictures, Subject
from generalist.data.batch.pack import pack
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.hf.processor import GeneralistProcessor
from generalist.nn.experts.experts import Experts
from generalist.nn.mixers.maps import MapMixer
from generalist.recipe.recipe import Recipe
from generalist.recipe.specs import ModelSpec
from generalist.tasks.kinds.classify import Classify
from generalist.tokenizers_mod.maps.base import MapOperator
from generalist.tokenizers_mod.text.text_tensors import TextTensors
from generalist.tokenizers_mod.vision.image import Image


def described(subject: Subject) -> str:
    """The description -> JSON -> the same one."""
    before = subject.model.config
    again = GeneralistConfig.from_dict(json.loads(json.dumps(before.to_dict())))
    if (again.mixers, again.channel_mixers) != (before.mixers, before.channel_mixers):
        raise Fault("its settings change through JSON")
    needs = subject.mixer.needs_with({k: v for k, v in subject.given.items() if k != "kind"})
    return f"sees {needs.reach}" + (f", maps of {needs.axes} axes" if needs.axes else "")


def batching(subject: Subject) -> str:
    """Sequences of four sizes of maps, a text and a set packed together are what each is alone."""
    together = subject.features()
    with torch.no_grad():
        alone = torch.cat([subject.model.features(pack([own])) for own in subject.sequences()])
    if bool(((together[:, None] - together[None]).abs().amax(-1) + torch.eye(len(together)) < 1e-4).any()):
        raise Fault("two sequences give the same features: nothing of them is seen")
    return same(together, alone, 2 * EXACT, "features of packed sequences and of each alone")


def padding(subject: Subject) -> str:
    """Clients that pad get the features of packed sequences."""
    own, text = subject.modalities, subject.modalities["text"]
    assert isinstance(text, TextTensors)
    processor = GeneralistProcessor(text.hf_tokenizer(), {n: m.settings() for n, m in own.items()})
    draw = torch.Generator().manual_seed(2)
    pictures = [torch.rand(1, PATCH * h, PATCH * w, generator=draw) for h, w in FOUR[:3]]
    worst = 0.0
    for raw in ({"image": pictures}, {"text": ["once upon a time", "a cat"]}):
        with torch.no_grad():
            padded = normalize(subject.model(**processor(**raw, return_tensors="pt")).pooler_output, dim=-1)
            packed = subject.model.encode(processor(**raw))
        same(padded, packed, 2 * EXACT, f"features of padded and packed {next(iter(raw))}")
        worst = max(worst, difference(padded, packed))
    return f"within {worst:.1g}"


def causality(subject: Subject) -> str:
    """It obeys the causal blocks, or is refused where a task or modality is causal."""
    settings = {k: v for k, v in subject.given.items() if k != "kind"}
    if not subject.mixer.needs_with(settings).causal:
        subject.refused("cannot be causal", writing_scale="default")
        return "refused where anything is causal"
    subject.config(writing_scale="default")
    text = subject.modalities["text"].span("a cat sat")
    packed = pack([[replace(text, causal=torch.ones(text.length, dtype=torch.bool))]])
    at, x = subject.model.at(packed), torch.randn(packed.tokens, WIDTH, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        before, x = subject.mixer(x, at), x.clone()
        x[-1] += 1
        changed = (subject.mixer(x, replace(at, made={})) - before).abs().amax(1)
    if float(changed[:-1].max()) > EXACT:
        raise Fault(f"the last token of a causal text changes what stands before it by {float(changed[:-1].max()):.2g}")
    kept, more = subject.mixer.kept(1), subject.mixer.kept(2) - subject.mixer.kept(1)
    held = f"keeps {more:,} numbers a token" if more else f"keeps {kept:,} numbers whatever the length"
    return "later tokens change nothing before them; " + ("keeps nothing" if not kept else held)


def rounding(subject: Subject) -> str:
    """Under bf16 autocast features stay near those in fp32."""
    return rounded(subject.features)


def saving(subject: Subject) -> str:
    """A saved model read back gives the same bits."""
    with tempfile.TemporaryDirectory() as folder:
        subject.model.save_pretrained(folder)
        again = GeneralistModel.from_pretrained(folder).eval()
    wanted, found = subject.features(), subject.features(again)
    if not torch.equal(found, wanted):
        raise Fault(f"features of the saved model differ by {difference(found, wanted):.2g}; is a tensor not saved?")
    return "bit-equal"


def learning(subject: Subject) -> str:
    """A gradient reaches every parameter of the mixer."""
    if isinstance(subject.mixer, Experts):
        raise LeftOut("an expert that no token chose has no gradient")
    subject.model.zero_grad()
    features = subject.model.features(pack(subject.sequences()))
    (features * torch.randn(features.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    parts = list(subject.mixer.named_parameters())
    wrong = [n for n, p in parts if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()]
    subject.model.zero_grad()
    if wrong:
        raise Fault(f"no gradient reaches {', '.join(wrong)}")
    return f"{len(parts)} parameters"


def planned(subject: Subject) -> str:
    """`generalist plan` counts its parameters."""
    from generalist.train.counted import count
    from generalist.train.prepare import prepare

    if isinstance(subject.mixer, Experts):
        raise LeftOut("experts are placed by model.moe, and counted there")
    task = Classify(name="checked", inputs={"image": "image"}, source=Pictures(), batch=2)
    model = ModelSpec(**SIZES, **subject.placed())
    recipe = Recipe("check", "one task", 1, dict(subject.modalities), [task], model=model)
    counted, _, _ = count(recipe, 1)
    own = sum(p.numel() for p in prepare(recipe).model(recipe).parameters())
    if counted != own:
        raise Fault(f"plan counts {counted:,} parameters, the model has {own:,}")
    return f"{counted:,} parameters of the model"


def refusing(subject: Subject) -> str:
    """What cannot work ends in one line when it is read: names, lists, sizes of maps, models without a map."""
    key = "channel_mixers" if subject.channel else "mixers"
    subject.refused(f"did you mean {subject.name!r}", **{key: [subject.name + "x", "attention"]})
    subject.refused(f"model.{key} lists 3 of model.layers=2", **subject.placed("attention", "attention"))
    subject.refused("has no setting 'unheard_of'", **{key: [subject.given | {"unheard_of": 1}, "attention"]})
    if not subject.channel:
        subject.refused("heads", heads=5, width=WIDTH)
    settings = {k: v for k, v in subject.given.items() if k != "kind"}
    needs = subject.mixer.needs_with(settings)
    if needs.axes:
        subject.refused("works on grids", modalities={"summary": {}, "table": {}})
    if not subject.channel and needs.reach in ("grid", "token"):
        subject.refused("learns nothing", **{key: [subject.given] * 2})
    return "names, lists, settings, heads" + (", models without maps" if needs.axes else "")


def sizing(subject: Subject) -> str:
    """Maps of any size are mixed, or refused when the recipe is read, never later."""
    operator = subject.mixer.operator if isinstance(subject.mixer, MapMixer) else None
    if not isinstance(operator, MapOperator):
        raise LeftOut("it is no operator on maps")
    own = {name: m.settings() for name, m in subject.modalities.items()}
    taken = []
    for side in (1, 2, 3, 5, 7):
        made = own | {"image": Image(size=PATCH * side, patch=PATCH, channels=1).settings()}
        if why := operator.refuses(side, side):
            subject.refused(why, modalities=made)
            continue
        subject.config(modalities=made)
        with torch.no_grad():
            found = operator(torch.randn(2, side, side, WIDTH, generator=torch.Generator().manual_seed(0)), None)
        if found.shape != (2, side, side, WIDTH) or not bool(found.isfinite().all()):
            raise Fault(f"a map of {side} x {side} gives {tuple(found.shape)}, or values that are not finite")
        taken.append(f"{side} x {side}")
    return f"takes {', '.join(taken)}; others are refused"


def compiled(subject: Subject) -> str:
    """torch.compile gives what the module gives."""
    subject.compilable()
    module, given = subject.module()
    with torch.no_grad():
        return same(torch.compile(module)(*given), module(*given), 10 * EXACT, "results compiled and not")


def exported(subject: Subject) -> str:
    """torch.export gives a program of the same numbers."""
    subject.compilable()
    module, given = subject.module()
    program = torch.export.export(module, given, strict=False)
    with torch.no_grad():
        return same(program.module()(*given), module(*given), EXACT, "results of the program and the module")


CHECKS: dict[str, Callable[[Subject], str]] = {
    "settings round trip": described,
    "batched = alone": batching,
    "padded = packed": padding,
    "causal": causality,
    "bf16": rounding,
    "save and load": saving,
    "gradients": learning,
    "bad input": refusing,
    "sizes of maps": sizing,
    "plan": planned,
    "torch.compile": compiled,
    "torch.export": exported,
}
LONG = ("plan", "torch.compile", "torch.export")  # seconds each
