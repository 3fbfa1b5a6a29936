"""The loss of every step of small runs that between them use every modality, every kind of task, experts and prompts.

    python -m tests.golden --write FILE      # on one commit
    python -m tests.golden --compare FILE    # on the next, on the same machine: equal to the last bit, or exit code 1

A change that moves code and computes nothing anew leaves every bit as it was. Another processor rounds differently, so
tests/golden/losses.json is compared within `MARGIN` (tests/test_golden.py); renew it with --write where a computation
was meant to change.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

if __package__ == "tests":  # run with -m, so that the shared files below are found as they are under pytest
    sys.path.insert(0, str(Path(__file__).parent))

from regions import CONVNEXT, RT_DETR
from small import Listed
from tiny import tiny

from generalist.data.sources.coco import CocoObjects
from generalist.data.stream.schedule import Schedule
from generalist.data.stream.stream import Steps, loader
from generalist.recipe.keys import override
from generalist.recipe.load import load_recipe
from generalist.recipe.recipe import Recipe
from generalist.tasks.kinds.answer import Answer
from generalist.tasks.kinds.classify import Classify
from generalist.tasks.kinds.describe import Describe
from generalist.tasks.kinds.multilabel import MultiLabel
from generalist.tasks.kinds.regions.detect import Detect
from generalist.tasks.kinds.regions.segment import Segment
from generalist.tasks.kinds.restore import Restore, RestoreCodes
from generalist.tokenizers_mod.base.modalities import build_modalities, modality_class
from generalist.train.engines.build import build_engine
from generalist.train.loop import StepResult, train
from generalist.train.prepare import prepare

FILE = Path(__file__).parent / "golden" / "losses.json"
# Relative, sixteen times the widest that a step moved (boxes 6e-5, rarer 3e-5, the others under 6e-6) between AVX-512,
# AVX2 and plain kernels of torch, oneDNN, MKL and numpy.
MARGIN = 1e-3
SMALL = ["engine.threads=1", "engine.device=cpu", "engine.kind=local", "checkpoint.every=0", "workers=0"]


def losses(recipe: Recipe) -> list[tuple[str, float]]:
    """(task, mean loss) of every step of a recipe on one thread, trained as `generalist train` trains it."""
    override(recipe, *SMALL)
    recipe.check()
    torch.set_num_threads(1)
    prepared = prepare(recipe)
    engine = build_engine(recipe, prepared.objective(recipe), torch.device("cpu"))
    torch.manual_seed(recipe.seed + 1)
    tasks, seen = prepared.tasks, list[StepResult]()
    schedule = Schedule(list(tasks), [task.share for task in tasks.values()], recipe.seed, recipe.sampling == "mixed")
    steps = Steps(prepared.feeds(), schedule, recipe.seed, 0, 1)
    batches = loader(steps, 0, recipe.steps, 0)
    rate, warmup = recipe.optimizer.lr, recipe.optimizer.warmup
    train(engine, batches, tasks, schedule, 0, recipe.steps, rate, warmup, after=seen.append)
    return [(result.task, result.loss) for result in seen]


# --- the runs ---


def demo(_: Path) -> Recipe:
    recipe = load_recipe("demo")
    sizes = ["model.width=16", "model.layers=2", "model.heads=2", "model.hidden=24", "modalities.text.learn=300"]
    options = '{"train": 40, "val": 10, "test": 12}'
    override(recipe, "steps=24", "optimizer.warmup=2", *sizes)
    override(recipe, *(f"tasks.{task.name}.{key}" for task in recipe.tasks for key in ("batch=4", "share=1")))
    override(recipe, *(f"tasks.{name}.source.options={options}" for name in ("tones", "solids")))
    return recipe


def rarer(_: Path) -> Recipe:
    """The modalities and the kinds of task that the demo has not; experts, prompts, linear heads, dropped paths."""
    rng = np.random.default_rng(0)

    def source(field: str, raws: list[Any], **more: list[Any]) -> Listed:
        rows = [
            {"id": f"{field}/{i}", field: raw, "label": i % 2, **{name: values[i] for name, values in more.items()}}
            for i, raw in enumerate(raws)
        ]
        return Listed({"train": rows}, {"classes": ["no", "yes"]})

    pictures = [rng.random((20, 24, 3)) for _ in range(6)]
    captions = ["a red cat", "two dogs run", "one bus", "a cat sleeps", "no dog here", "the blue bus"]
    ring = [{"nodes": [i % 3, 1, 2], "edges": [[0, 1], [1, 2]]} for i in range(6)]
    raws: dict[str, list[Any]] = {
        "xray": [rng.integers(0, 4096, (30, 20)) for _ in range(6)],
        "thermal": [rng.normal(20, 5, (12, 16)) for _ in range(6)],
        "depth": [rng.uniform(0.5, 5, (12, 16)) for _ in range(6)],
        "spectral": [rng.normal(size=(3, 5, 5)) for _ in range(6)],
        "video": [rng.random((5, 16, 20, 3)) for _ in range(6)],
        "imu": [rng.normal(size=(17 + i, 3)) for i in range(6)],
        "graph": ring,
    }
    signals = source("imu", raws["imu"])
    settings: dict[str, dict[str, Any]] = {
        "summary": {},
        "text": {"tokenizer": "", "learn": 280, "max_length": 16, "positions": 16},
        "image": {"size": 16, "patch": 8, "channels": 3},
        "xray": {"size": 16, "patch": 8},
        "thermal": {"size": 16, "patch": 8},
        "depth": {"size": 16, "patch": 8},
        "spectral": {"bands": 5, "patch": 2, "group": 2},
        "video": {"size": 16, "patch": 8, "frames": 5},
        "imu": {"channels": 3, "patch": 4},
        "graph": {"node_columns": [3], "identifiers": 2},
        "number": {},
    }
    tasks = [
        *(
            Classify(name=name, source=source(name, given), inputs={name: name}, batch=4)
            for name, given in raws.items()
        ),
        Describe(name="caption", source=source("image", pictures, captions=captions), batch=4),
        Answer(
            name="question",
            source=source("image", pictures, question=["what is it?"] * 6, answer=["cat", "dog", "bus"] * 2),
            max_length=12,
            batch=4,
        ),
        Restore(name="restore", source=signals, inputs={"imu": "imu"}, bins=5, batch=4),
        RestoreCodes(name="codes", source=source("image", pictures), inputs={"image": "image"}, codes=5, batch=4),
    ]
    recipe = Recipe(name="rarer", about="golden", steps=36, modalities=build_modalities(settings), tasks=tasks)
    model = ["width=16", "layers=2", "heads=2", "hidden=24", "drop_path=0.1", "layer_scale=0.1", "final_norm=true"]
    model += ["prompts=2", "linear_heads=true", "moe.placement=all", "moe.experts=3", "moe.router=attribute"]
    override(recipe, *(f"model.{key}" for key in model), "optimizer.warmup=2", "sampling=mixed")
    return recipe


def regions(folder: Path, kind: type[Detect], masks: bool) -> Recipe:
    """Proposals named by likelihood, as boxes or as masks."""
    from test_detect import pictures

    source = CocoObjects(str(pictures(folder)), masks=masks)
    region = {"height": 96, "width": 128, "config": RT_DETR, "backbone": CONVNEXT, "proposals": 20, "masks": masks}
    text = {"tokenizer": "", "learn": 270, "max_length": 8, "positions": 8}
    made = build_modalities({"summary": {}, "text": text, "region": region})
    tasks = [kind(name="shapes", source=source, inputs={"region": "image"}, batch=2)]
    recipe = Recipe(name="regions", about="golden", steps=4, modalities=made, tasks=tasks)
    sizes = ["model.width=32", "model.layers=1", "model.heads=2", "model.hidden=32"]
    override(recipe, *sizes, "optimizer.warmup=2")
    return recipe


def tags(_: Path) -> Recipe:
    """Several names a record."""
    names = [["red"], ["red", "big"], [], ["big"], ["round"], ["big", "round"]]
    rows = [{"id": str(i), "row": {"a": i / 3, "b": (i * i) % 5 / 2}, "label": given} for i, given in enumerate(names)]
    text = {"tokenizer": "", "learn": 270, "max_length": 8, "positions": 8}
    made = build_modalities({"summary": {}, "text": text, "table": {}})
    tasks = [MultiLabel(name="tags", source=Listed({"train": rows}), inputs={"table": "row"}, batch=4)]
    recipe = Recipe(name="tags", about="golden", steps=4, modalities=made, tasks=tasks)
    override(recipe, "model.width=16", "model.layers=1", "model.heads=2", "model.hidden=24", "optimizer.warmup=2")
    return recipe


def many_series(_: Path) -> Recipe:
    """Windows of several series, a token each."""
    rng = np.random.default_rng(1)
    rows = [{"id": str(i), "window": rng.normal(i % 2, 1, (24 + i, 3)), "label": i % 2} for i in range(6)]
    text = {"tokenizer": "", "learn": 270, "max_length": 8, "positions": 8}
    made = build_modalities({"summary": {}, "text": text, "variates": {"context": 24}})
    source = Listed({"train": rows}, {"classes": ["low", "high"]})
    tasks = [Classify(name="windows", source=source, inputs={"variates": "window"}, batch=4)]
    recipe = Recipe(name="windows", about="golden", steps=4, modalities=made, tasks=tasks)
    override(recipe, "model.width=16", "model.layers=1", "model.heads=2", "model.hidden=24", "optimizer.warmup=2")
    return recipe


BORROWED = ("backbone", "heard", "pretrained_audio", "pretrained_video", "pretrained_series")


def borrowed(kinds: tuple[str, ...] = BORROWED, steps: int = 10) -> Recipe:
    """Networks of other libraries as tokenizers, a step each."""
    shown = {name: modality_class(name).examples() for name in (*kinds, "pretrained_text")}
    own = {name: {"class": name, **one.settings} for name, one in shown.items()}
    made = build_modalities({"summary": {}, "text": own.pop("pretrained_text"), **own})
    tasks = []
    for name in kinds:
        rows = [{"id": str(i), name: shown[name].good[i % 2], "label": i % 2} for i in range(4)]
        source = Listed({"train": rows}, {"classes": ["a cat", "two dogs"]})
        tasks.append(Classify(name=f"of_{name}", source=source, inputs={name: name}, batch=2, templates=[]))
    recipe = Recipe(name="borrowed", about="golden", steps=steps, modalities=made, tasks=tasks)
    override(recipe, "model.width=16", "model.layers=1", "model.heads=2", "model.hidden=24", "optimizer.warmup=2")
    return recipe


RUNS: dict[str, Callable[[Path], Recipe]] = {
    "tiny": lambda folder: tiny(),
    "demo": demo,
    "rarer": rarer,
    "tags": tags,
    "variates": many_series,
    "borrowed": lambda folder: borrowed(),
    "stages": lambda folder: borrowed(("stages",), steps=4),
    "boxes": lambda folder: regions(folder, Detect, masks=False),
    "masks": lambda folder: regions(folder, Segment, masks=True),
}


def all_losses() -> dict[str, list[tuple[str, str]]]:
    """Run -> (task, loss as a hexadecimal float, which keeps every bit) of each step."""
    found = {}
    for name, make in RUNS.items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = [(task, loss.hex()) for task, loss in losses(make(Path(folder)))]
    return found


def differences(expected: dict[str, list], found: dict[str, list]) -> list[str]:
    """One line for each run whose steps differ in any bit: the first such step."""
    lines = [f"{name}: missing" for name in expected.keys() ^ found.keys()]
    for name in expected.keys() & found.keys():
        pairs = list(zip(expected[name], found[name], strict=False))
        wrong = next((i for i, (a, b) in enumerate(pairs) if tuple(a) != tuple(b)), None)
        if wrong is not None or len(expected[name]) != len(found[name]):
            told = "another number of steps" if wrong is None else f"step {wrong}: {pairs[wrong][0]}, {pairs[wrong][1]}"
            lines.append(f"{name}: {told}")
    return sorted(lines)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__.split("\n\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", type=Path, metavar="FILE")
    what.add_argument("--compare", type=Path, metavar="FILE")
    given = parser.parse_args(words)
    found = all_losses()
    if given.write:
        given.write.write_text(json.dumps(found, indent=0) + "\n", encoding="utf-8")
        return 0
    wrong = differences(json.loads(given.compare.read_text(encoding="utf-8")), found)
    print("\n".join(wrong) or f"equal to the last bit: {sum(map(len, found.values()))} steps of {len(found)} runs")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
