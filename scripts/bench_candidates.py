"""What many candidates cost: an evaluation among them in time and memory; a training step among 1,000 to 49,411.

python -m scripts.bench_candidates peak 200000 bounded      # MB that an evaluation adds, in a process of its own
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from generalist.data.batch.pack import pack
from generalist.data.batch.types import Batch, Span
from generalist.data.stream.source import Records
from generalist.evaluate import answer as evaluate
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.model.candidates import Auto
from generalist.model.objective import Objective
from generalist.recipe.specs import CandidateSpec
from generalist.scripts.bench_training import line
from generalist.scripts.timing import Timing, alternate, worst
from generalist.tasks.candidates.likelihood import log_likelihood
from generalist.tasks.candidates.names import Vocabulary
from generalist.tasks.kinds.classify import Classify
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.modalities import build_modalities, modality_settings

ASKED, WIDTH = 2000, 96
TIMED = 500
MANY = 200_000
SAMPLE = 400
COUNTS = (1000, 10_000, 49_408)  # the last is CLIP's vocabulary
WAYS = ("bounded", "whole")


def answers(count: int, asked: int = ASKED) -> evaluate.Answers:
    """Random answers of a classification among `count` candidates, before they are measured."""
    torch.manual_seed(0)
    task = Classify(name="what", inputs={"text": "text"}, label="label")
    scale = torch.tensor([3.0])
    return evaluate.Answers(
        task,
        Records([{}] * asked, {}),
        torch.randn(asked, WIDTH),
        torch.randn(count, WIDTH),
        torch.randint(count, (asked,)),
        torch.arange(asked),
        partial(log_likelihood, log_scale=scale),
    )


def measured(found: evaluate.Answers, way: str) -> None:
    """Keeps the lines of all answers, by one of the `WAYS`: the whole is 4,096 answers at once whatever their bytes."""
    bound = evaluate.HELD
    evaluate.HELD = bound if way == "bounded" else 2**62
    evaluate.kept(found)
    evaluate.HELD = bound


def peak(count: int, way: str) -> float:
    """MB of memory that this process took more at its worst than before (on Linux)."""
    found = answers(count)
    before = worst()
    measured(found, way)
    return worst() - before


def evaluation(rounds: int) -> list[dict[str, Any]]:
    """Answers among 200,000 candidates measured within the bound, over all at once: time and memory."""
    found = answers(MANY, TIMED)
    timing = alternate({way: partial(measured, found, way) for way in WAYS}, "whole", rounds, warm=0)
    what = f"{TIMED} answers among {MANY} candidates, measured within the bound"
    out = [line(what, "all at once", timing, "bounded", "<= 1.05")]
    for way in WAYS:
        command = [sys.executable, "-m", "generalist.scripts.bench_candidates", "peak", str(MANY), way]
        told = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        value: dict[str, Any] = {"least": told, "target": 512} if way == "bounded" else {"MB": told}
        out.append({"what": f"{ASKED} answers, memory ({way}, MB)", **value})
    return out


@dataclass
class First(Vocabulary):
    """The first entries of the vocabulary."""

    many: int = 0

    def sequences(self, modalities: dict[str, Modality]) -> list[list[Span]]:
        return super().sequences(modalities)[: self.many]


def steps(rounds: int, counts: tuple[int, ...] = COUNTS) -> list[dict[str, Any]]:
    """A step of the demo's encoder on 64 sentences: a sample and `auto` over exact, and what exact costs a token."""
    found = []
    settings: dict[str, Any] = {"summary": {}, "text": {"tokenizer": "clip", "max_length": 24, "positions": 24}}
    made = build_modalities(settings)
    for count in counts:
        timing, told, each = _step_costs(made, count, max(3, rounds * 1000 // count))
        found += [
            line(f"{name} among {count}", "exact", timing, name, "<= 1", told=told) for name in ("sampled", "auto")
        ]
        found.append({"what": f"exact among {count}, a token over the batch's", "least": each, "target": 1.5})
        found.append({"what": f"among {count}, {told}"})
    return found


def _step_costs(made: dict[str, Modality], count: int, rounds: int) -> tuple[Timing, str, float]:
    """Times of a step by policy; what `auto` said; exact's processor time a token over that of the batch alone."""
    told: list[str] = []
    policies = {name: CandidateSpec(name, size=SAMPLE) for name in ("exact", "sampled", "auto")}
    calls = {}
    for name, spec in policies.items():
        torch.manual_seed(0)
        config = GeneralistConfig(
            hidden_size=96,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=384,
            modalities=modality_settings(made),
            scales=["fill"],
        )
        objective = Objective(GeneralistModel(config), {"words": First(many=count)}, made, {"words": spec})
        policy = objective.policies[0]
        if isinstance(policy, Auto):
            policy.told = told.append
        calls[name] = partial(_step, objective, _sentences(made, count))
        while isinstance(policy, Auto) and not told:
            calls[name]()
    calls["batch"] = partial(_alone, objective, _sentences(made, count))
    timing = alternate(calls, "exact", rounds, warm=1)
    own = _sentences(made, count).inputs.tokens
    return timing, told[0], own / (own + objective.packed("words").tokens) / timing.cpu["batch"]


def _sentences(made: dict[str, Modality], count: int) -> Batch:
    """64 sentences of about twenty words, each asked for one of the candidates."""
    labels = torch.randint(count, (64,), generator=torch.Generator().manual_seed(0))
    words = "a picture of a small brown dog that runs along the beach with a red ball in its mouth"
    spans = [
        [made["summary"].span(None).ask([0], n[None]), made["text"].span(f"{words} {i}")] for i, n in enumerate(labels)
    ]
    return Batch("words", pack(spans), "words", count=len(labels), scale="fill")


def _step(objective: Objective, batch: Batch) -> None:
    objective(batch).sum().backward()
    objective.zero_grad()


def _alone(objective: Objective, batch: Batch) -> None:
    objective.model.features(batch.inputs).sum().backward()
    objective.zero_grad()


if __name__ == "__main__":
    print(peak(int(sys.argv[2]), sys.argv[3]))
