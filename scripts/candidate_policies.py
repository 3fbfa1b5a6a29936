"""What each candidate policy costs and how good it is: one table of a small real run, one of a step at 49,411 words.

    python -m scripts.candidate_policies                  # both tables
    python -m scripts.candidate_policies --steps 300      # a shorter run
    python -m scripts.candidate_policies --no-run         # the step's cost alone

The run hides words of the docstrings that installed libraries ship, with a vocabulary learnt from them, and
scores the held-out ones against all words, whatever the policy was in training. The same seed, batches and steps
for all policies, on one thread; costs are CPU seconds, which other programs on the machine do not change much.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from generalist.data.sources.embedded import Embedded
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.stream import Steps
from generalist.evaluate.answer import answer
from generalist.recipe.recipe import Recipe
from generalist.recipe.specs import CandidateSpec, ModelSpec
from generalist.tasks.kinds.fill import Fill
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.train.engines.local import LocalEngine
from generalist.train.loop import train
from generalist.train.optimizer import parameter_groups
from generalist.train.prepare import prepare

MODEL = ModelSpec(width=96, layers=4, heads=4, hidden=384, embedding_norm=False)  # the demo's


def policies(large: int, small: int, every: int) -> list[tuple[str, CandidateSpec]]:
    return [
        ("exact", CandidateSpec()),
        (f"sampled {large}", CandidateSpec("sampled", size=large)),
        (f"sampled {small}", CandidateSpec("sampled", size=small)),
        (f"cached {every}", CandidateSpec("cached", every=every)),
    ]


def recipe(text: Text, model: ModelSpec, spec: CandidateSpec, steps: int, batch: int) -> Recipe:
    made = Recipe(
        name="candidate_policies",
        about="masked words of docstrings",
        steps=steps,
        modalities={"summary": Summary(), "text": text},
        tasks=[Fill(name="words", source=Embedded("docstrings"), batch=batch)],
        model=model,
        candidates={"words": spec},
    )
    made.optimizer.warmup = max(1, steps // 10)
    return made


def trained(made: Recipe, start: dict[str, Tensor] | None = None) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Train one policy, from a model's weights or from none: its cost and held-out metrics, and the weights after."""
    prepared = prepare(made)
    objective = prepared.objective(made)
    if start is not None:
        objective.model.load_state_dict(start)
    spec = made.optimizer
    optimizer = torch.optim.AdamW(parameter_groups(objective, spec.weight_decay), spec.lr, spec.betas)
    engine = LocalEngine(objective, optimizer, torch.device("cpu"))
    schedule = Schedule(["words"], [1.0], made.seed, False)
    steps = Steps(prepared.feeds(), schedule, made.seed)
    torch.manual_seed(made.seed + 1)
    batches: Iterator = (steps[i] for i in range(made.steps))
    began = time.process_time()
    train(engine, batches, prepared.tasks, schedule, 0, made.steps, spec.lr, spec.warmup)
    seconds = time.process_time() - began
    task = prepared.tasks["words"]
    found = answer(task, task.open("test"), objective)
    row = {"seconds": seconds, "step": seconds / made.steps, "K": float(len(found.members)), **found.metrics}
    return row, objective.model.state_dict()


def step_seconds(made: Recipe, repeats: int) -> dict[str, float]:
    """The middle of the seconds of a forward and backward pass; of a cached set both kinds of step and their mean."""
    prepared = prepare(made)
    objective = prepared.objective(made)
    batch = Steps(prepared.feeds(), Schedule(["words"], [1.0], 0, False), 0)[0]
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        objective.zero_grad()
        objective(batch).sum().backward()
        seconds.append(time.process_time() - began)
    first, rest = seconds[0], sorted(seconds[1:])
    middle = rest[len(rest) // 2]
    spec = made.candidates["words"]
    mean = (first + (spec.every - 1) * middle) / spec.every if spec.policy == "cached" else middle
    return {"first": first, "later": middle, "mean": mean, "K": float(objective.count("words"))}


def run_table(steps: int, words: int, more: int) -> None:
    """From scratch, then `more` steps on from the exact run's model at a tenth of the learning rate."""
    print(f"masked words of docstrings: {steps} steps of 24 texts, width 96, 4 layers, one policy a line")
    start: dict[str, Tensor] | None = None
    for title, count, begin in (("", steps, False), (f"\n{more} steps on from the exact one, lr / 10", more, True)):
        if count == 0:
            continue
        print(
            f"{title}\n" * bool(title) + f"{'policy':14} {'K':>6} {'CPU ms/step':>11} {'CPU s':>7} accuracy  nll, nats"
        )
        for name, spec in policies(512, 64, 10):
            text = Text(tokenizer="", learn=words, max_length=48, positions=48)
            made = recipe(text, MODEL, spec, count, 24)
            if begin:
                made.optimizer.lr /= 10
            m, weights = trained(made, start if begin else None)
            start = start or weights  # those of the first, exact
            print(
                f"{name:14} {m['K']:6.0f} {1000 * m['step']:11.0f} {m['seconds']:7.1f} "
                f"{m['accuracy']:8.3f} {m['nll']:10.3f}",
                flush=True,
            )


def step_table(repeats: int) -> None:
    print("\none step at 49,411 words: the same model and texts, forward and backward")
    print(f"{'policy':14} {'K':>6} {'CPU s, first':>13} {'later':>9} {'mean':>9}")
    for name, spec in policies(4096, 512, 10):
        text = Text(tokenizer="clip", max_length=48, positions=48)
        m = step_seconds(recipe(text, MODEL, spec, 1, 24), repeats)
        print(f"{name:14} {m['K']:6.0f} {m['first']:13.2f} {m['later']:9.2f} {m['mean']:9.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=600, help="training steps of every policy")
    parser.add_argument("--more", type=int, default=200, help="steps on from the exact run's model, 0 for none")
    parser.add_argument("--words", type=int, default=3000, help="vocabulary of the run")
    parser.add_argument("--repeats", type=int, default=3, help="steps timed at 49,411 words")
    parser.add_argument("--no-run", action="store_true", help="only the cost of a step at 49,411 words")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.no_run:
        run_table(options.steps, options.words, options.more)
    step_table(options.repeats)


if __name__ == "__main__":
    main()
