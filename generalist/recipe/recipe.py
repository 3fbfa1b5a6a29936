"""A run is a recipe: a Python function that returns this dataclass tree. Keys change it by dotted path.

generalist train demo steps=100 optimizer.lr=1e-3 tasks.digits.batch=32 modalities.image.patch=4
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError, nearest
from generalist.data.base.trust import find_class
from generalist.recipe.method import DistillSpec, MethodSpec, chosen
from generalist.recipe.specs import (
    CandidateSpec,
    CheckpointSpec,
    EngineSpec,
    FaultSpec,
    ModelSpec,
    MoeSpec,
    OptimizerSpec,
    SaveSpec,
    ValidationSpec,
)
from generalist.recipe.watch import Watch
from generalist.tasks.base.task import Task
from generalist.tokenizers_mod.base.base import Modality


@dataclass
class Recipe:
    """Everything a run is made of. sampling: "unmixed" (one task a step on all ranks) or "mixed".

    workers: loader processes; profile: measure where the first steps' time goes (`generalist.train.profile`);
    trackers: who is told the scalars besides log.jsonl (`generalist.train.trackers`); watches: callbacks that are told
    them too, objects of yours (`generalist.recipe.watch`); cache_gb: keep decoded pictures
    and sounds on disk, at most so many 1e9 bytes, 0 = do not; memory_gb: keep samples and what is made of them in
    memory, likewise, shared out over the loader processes of a rank.
    baseline: measure an ordinary method beside every task's result; baseline_seconds: processor seconds that one may
    take (0 = as many as it likes; what they do not suffice for is said).
    step_seconds: what a step was measured to take on two cores, 0 = not measured; told at the start, else not used.
    combine: the ordinary method and the model together are measured too, weighted by validation data
    (`generalist.evaluate.together`). calibrate: a temperature a logit scale is fitted on validation data once training
    is over (`generalist.evaluate.calibration`).
    init: a run's or a model's folder whose weights the run starts from (`generalist.train.start`), "" starts afresh.
    """

    name: str
    about: str
    steps: int
    modalities: dict[str, Modality]
    tasks: list[Task]
    seed: int = 0
    sampling: str = "unmixed"
    workers: int = 0
    profile: bool = False
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"], kw_only=True)
    watches: list[Watch] = field(default_factory=list, kw_only=True)
    cache_gb: float = 0.0
    memory_gb: float = 2.0
    model: ModelSpec = field(default_factory=ModelSpec)
    optimizer: OptimizerSpec = field(default_factory=OptimizerSpec)
    engine: EngineSpec = field(default_factory=EngineSpec)
    checkpoint: CheckpointSpec = field(default_factory=CheckpointSpec)
    save: SaveSpec = field(default_factory=SaveSpec, kw_only=True)
    validation: ValidationSpec = field(default_factory=ValidationSpec, kw_only=True)
    step_seconds: float = 0.0
    faults: FaultSpec = field(default_factory=FaultSpec)
    candidates: dict[str, CandidateSpec] = field(default_factory=dict)
    init: str = ""
    baseline: bool = True
    calibrate: bool = False
    combine: bool = False
    baseline_seconds: float = 60.0
    method: MethodSpec = field(default_factory=MethodSpec)
    distill: DistillSpec = field(default_factory=DistillSpec)

    def __post_init__(self) -> None:
        for task in self.tasks:  # so that every task's keys candidates.TASK.* exist
            self.candidates.setdefault(task.name, CandidateSpec())

    @property
    def folder(self) -> Path:
        """Where the run goes when nothing else is asked for."""
        return Path("runs") / self.name

    @property
    def asked_method(self) -> str:
        """The name of the method that the keys ask for, "" for the law alone. UserError for keys that cannot work."""
        return chosen(self.method, self.distill, self.model.sparsity, self.model.elastic)

    def check(self) -> None:
        """UserError for values that cannot work."""
        if self.steps < 1:
            raise UserError(f"steps must be at least 1, got {self.steps}")
        if not self.tasks:
            raise UserError("a recipe needs at least one task")
        if wrong := [one for one in self.watches if not isinstance(one, Watch)]:
            raise UserError(f"watches holds {wrong[0]!r:.60}, which is no Watch; extend generalist.recipe.watch.Watch")
        for value, key, valid in (
            (self.sampling, "sampling", ("unmixed", "mixed")),
            (self.optimizer.kind, "optimizer.kind", ("balanced", "adamw")),
            (self.optimizer.schedule, "optimizer.schedule", ("cosine", "linear", "constant", "wsd")),
            (self.engine.kind, "engine.kind", ("auto", "local", "deepspeed")),
            (self.engine.offload, "engine.offload", ("none", "cpu", "nvme")),
        ):
            if value not in valid:
                raise UserError(f"{key}={value!r}; {nearest(value, valid)} (valid: {', '.join(valid)})")
        for key, low, high in LIMITS:
            number: Any = self
            for part in key.split("."):
                number = vars(number)[part]
            if not low <= number < high:
                raise UserError(f"{key}={number}: it must lie in {low:g} <= {key} < {high:g}")
        if any(not 0 <= b < 1 for b in self.optimizer.betas):
            raise UserError(f"optimizer.betas={list(self.optimizer.betas)}: each must lie in 0 <= beta < 1")
        if self.optimizer.min_lr > self.optimizer.lr:
            raise UserError(f"optimizer.min_lr={self.optimizer.min_lr} exceeds optimizer.lr={self.optimizer.lr}")
        self.model.check()
        self.save.check()
        chosen(self.method, self.distill, self.model.sparsity, self.model.elastic)
        names = [task.name for task in self.tasks]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise UserError(f"two tasks are named {twice[0]!r}; give each its own name")


INF = float("inf")
# what a number may be: (key, at least, less than)
LIMITS: list[tuple[str, float, float]] = [
    ("seed", 0, 2**63),
    ("workers", 0, 1025),
    ("memory_gb", 0.0, INF),
    ("baseline_seconds", 0.0, INF),
    ("optimizer.lr", 0.0, INF),
    ("optimizer.min_lr", 0.0, INF),
    ("optimizer.eps", 0.0, INF),
    ("optimizer.weight_decay", 0.0, INF),
    ("optimizer.warmup", 0, INF),
    ("optimizer.clip", 0.0, INF),
    ("optimizer.decay", 0.0, 1.0),
    ("optimizer.ema", 0.0, 1.0),
    ("validation.every", 0, INF),
    ("validation.cost", 0.0001, INF),
    ("validation.patience", 0, INF),
    ("engine.accumulate", 1, INF),
    ("engine.threads", 0, INF),
    ("checkpoint.every", 0, INF),
    ("checkpoint.keep", 0, INF),
]


# --- JSON ---

MODEL_PARTS = (ModelSpec, MoeSpec, CandidateSpec)
TRAINING_PARTS = (
    OptimizerSpec,
    EngineSpec,
    CheckpointSpec,
    FaultSpec,
    MethodSpec,
    DistillSpec,
    ValidationSpec,
    SaveSpec,
)


def _built(value: Any) -> Any:
    if isinstance(value, list):
        return [_built(v) for v in value]
    if not isinstance(value, dict):
        return value
    values = {k: _built(v) for k, v in value.items() if k != "class"}
    if "class" not in value:
        return values
    kind = find_class(str(value["class"]), "the recipe")
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise UserError(f"the recipe names {value['class']!r}, which is not a dataclass")
    if not _is_part(kind):
        raise UserError(f"the recipe names {value['class']!r}, which is no modality, task, source or other part of one")
    try:
        return kind(**values)
    except UserError:
        raise
    except Exception as error:  # a value of the wrong kind fails wherever the class first uses it
        raise UserError(f"the recipe's {value['class']!r} does not fit this version ({error})") from error


def _is_part(kind: type) -> bool:
    """Whether a recipe is made of such things: modalities, tasks, sources (what can be opened) and its own parts."""
    return issubclass(kind, (Modality, Task, Recipe, *MODEL_PARTS, *TRAINING_PARTS)) or callable(
        getattr(kind, "open", None)
    )


# --- finding recipes ---
