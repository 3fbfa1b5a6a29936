"""What a person waits for: commands that start, sequences of many lengths, long causal ones, many candidates, lists.

Ratios in one process, the candidates in turn; of commands the least processor time of several starts, which other work
on the machine can only add to.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.hf.predict import load_for_asking
from generalist.model.model import PackedModel
from generalist.nn.encoder import Encoder
from generalist.recipe.encoder import EncoderSpec
from generalist.scripts.bench_training import line
from generalist.scripts.timing import alternate, worst

STARTS = 5
MANY = 127  # lengths
LONG = 8192


def commands() -> list[dict[str, Any]]:
    """Processor time of `--help`, `info` and `predict` of a small model."""
    from generalist.hf.model import GeneralistModel
    from generalist.hf.pretrained.config import GeneralistConfig
    from generalist.hf.processor import GeneralistProcessor
    from generalist.tasks.kinds.classify import Classify
    from generalist.tokenizers_mod.base.modalities import modality_settings
    from generalist.tokenizers_mod.text.summary import Summary
    from generalist.tokenizers_mod.text.text import Text

    text = Text(tokenizer="", learn=300, max_length=16, positions=16)
    text.learn_texts(["a cat and a dog"])
    settings = modality_settings({"summary": Summary(), "text": text})
    with tempfile.TemporaryDirectory() as folder:
        GeneralistModel(GeneralistConfig(modalities=settings, scales=["classify"])).save_pretrained(folder)
        tasks: Any = {"what": Classify(name="what", inputs={"text": "words"})}
        GeneralistProcessor(text.hf_tokenizer(), settings, tasks=tasks).save_pretrained(folder)
        ask = ["predict", folder, "--text", "a cat", "--candidates", "cat", "dog"]
        asked = [("--help", ["--help"], 0.2), ("info", ["info"], 0.6), ("predict", ask, 3.2)]
        return [
            {"what": f"{name}: processor time (s)", "least": min(_spent(words) for _ in range(STARTS)), "target": most}
            for name, words, most in asked
        ]


def _spent(words: list[str]) -> float:
    """Seconds of processor time of a command in a fresh process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "generalist.cli", *words]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def lengths(rounds: int, widths: tuple[int, ...] = (64, 128, 384)) -> list[dict[str, Any]]:
    """A training step of an encoder on sequences of 127 lengths over one on as many tokens of one length."""
    found = []
    for width in widths:
        encoder = Encoder(EncoderSpec(width=width, layers=2, heads=width // 32, hidden=4 * width))
        made = {"one": _tokens([(MANY + 1) // 2] * MANY, width), "many": _tokens(list(range(1, MANY + 1)), width)}
        timing = alternate({name: partial(_step, encoder, *own) for name, own in made.items()}, "one", rounds)
        found.append(line(f"{MANY} lengths at width {width}", "one length, equal tokens", timing, "many", "<= 1.15"))
    return found


def causal(rounds: int) -> list[dict[str, Any]]:
    """A training step on one long causal sequence over one whose tokens all see each other."""
    encoder = Encoder(EncoderSpec(width=64, layers=1, heads=2, hidden=64))
    made = {"full": _tokens([LONG], 64), "causal": _tokens([LONG], 64, True)}
    timing = alternate({name: partial(_step, encoder, *own) for name, own in made.items()}, "full", rounds, warm=1)
    full, own = (told("asked_memory", way) for way in ("full", "causal"))
    more = {"least": own / full, "target": 1.2, "MB": {"full": full, "causal": own}}
    what = f"{LONG} causal tokens, a question at every 16th: memory over full attention's"
    return [line(f"{LONG} causal tokens", "full attention", timing, "causal", "<= 1"), {"what": what, **more}]


def told(name: str, *words: str) -> float:
    """What a function of this file says in a process of its own."""
    code = f"import sys; from generalist.scripts import bench_waiting as b; print(b.{name}(*sys.argv[1:]))"
    return float(
        subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, text=True).stdout
    )


def asked_memory(way: str) -> float:
    """MB that a step on one long sequence, causal or full, adds to this process at its worst (on Linux)."""
    encoder = Encoder(EncoderSpec(width=64, layers=1, heads=2, hidden=64))
    causal = torch.ones(LONG, dtype=torch.bool) if way == "causal" else None
    asked = Span("x", {"x": torch.zeros(LONG, 1)}, LONG, causal=causal).ask(list(range(0, LONG, 16)))
    packed, x = pack([[asked]]), torch.randn(LONG, 64)
    _step(encoder, *_tokens([16], 64))
    before = worst()
    out, _ = encoder(x, At(packed.layout, only=True))
    out.sum().backward()
    return worst() - before


def _tokens(sizes: list[int], width: int, causal: bool = False) -> tuple[At, Tensor]:
    spans = [
        Span("x", {"x": torch.zeros(n, 1)}, n, causal=torch.ones(n, dtype=torch.bool) if causal else None)
        for n in sizes
    ]
    packed = pack([[span.ask([0])] for span in spans])
    return At(packed.layout), torch.randn(packed.tokens, width)


def _step(encoder: Encoder, at: At, x: Tensor) -> None:
    out, _ = encoder(x, At(at.layout))
    out.sum().backward()
    encoder.zero_grad()


def names(rounds: int) -> list[dict[str, Any]]:
    """Ranking among 998 names: those kept over those encoded anew; and the milliseconds of making their sequences."""
    model, processor = load_for_asking(Path("starter"))
    words = [f"thing number {i}" for i in range(998)]
    inputs = processor(image=torch.rand(32, 32, 3).mul(255).byte().numpy())
    kept = model.candidates(processor.candidates(words))
    calls = {
        "anew": lambda: _anew(model, inputs, processor.candidates(words)),
        "kept": lambda: model.rank(inputs, kept, "retrieve"),
        "sequences": lambda: processor.candidates(words),
    }
    timing = alternate(calls, "anew", rounds)
    found = [line("rank among 998 kept names", "encoded anew", timing, "kept", "<= .05")]
    return [*found, {"what": "998 names -> sequences (s)", "least": timing.seconds["sequences"], "target": 0.01}]


@torch.no_grad()
def _anew(model: PackedModel, inputs: Any, candidates: Any) -> None:
    model.kept.clear()
    model.rank(inputs, candidates, "retrieve")
