"""What many candidates cost: an evaluation among them in time and memory; a training step among 1,000 to 49,411.

python -m scripts.bench_candidates peak 200000 bounded      # MB that an evaluation adds, in a process of its own
"""

from __future__ import annotations

import resource
import subprocess
import sys
from functools import partial
from typing import Any

import torch

from generalist.data.stream.source import Records
from generalist.evaluate import answer as evaluate
from generalist.scripts.bench_training import line
from generalist.scripts.timing import alternate
from generalist.tasks.candidates.likelihood import log_likelihood
from generalist.tasks.kinds.classify import Classify

ASKED, WIDTH = 2000, 96
MANY = 200_000
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
    """MB of memory that this process took more at its worst than before."""
    found = answers(count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    measured(found, way)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def evaluation(rounds: int) -> list[dict[str, Any]]:
    """Answers among 200,000 candidates measured within the bound, over all at once: time and memory."""
    found = answers(MANY)
    timing = alternate({way: partial(measured, found, way) for way in WAYS}, "whole", rounds, warm=0)
    what = f"{ASKED} answers among {MANY} candidates, measured within the bound"
    out = [line(what, "all at once", timing, "bounded", "<= 1.05")]
    for way in WAYS:
        command = [sys.executable, "-m", "generalist.scripts.bench_candidates", "peak", str(MANY), way]
        told = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        value: dict[str, Any] = {"least": told, "target": 512} if way == "bounded" else {"MB": told}
        out.append({"what": f"the same: memory ({way}, MB)", **value})
    return out


if __name__ == "__main__":
    print(peak(int(sys.argv[2]), sys.argv[3]))
