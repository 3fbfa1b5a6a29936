"""A run is a recipe: a Python function that returns this dataclass tree. Keys change it by dotted path.

generalist train demo steps=100 optimizer.lr=1e-3 tasks.digits.batch=32 modalities.image.patch=4
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from data.errors import UserError, nearest
from data.trust import find_class, from_file
from generalist.candidates import CandidateSpec
from generalist.freeze import check_freeze
from generalist.keys import override, parse
from generalist.routing import MoeSpec
from generalist.specs import CheckpointSpec, EngineSpec, FaultSpec
from tasks.base import Task
from tokenizers_mod.base import Modality


@dataclass
class ModelSpec:
    """Sizes and switches of the shared encoder (see `GeneralistConfig`).

    prompts: deep prompt vectors a layer; separate_prompts: candidates have their own, as many as inputs or
    candidate_prompts. freeze: "encoder", "all_but_prompts" (prompt tuning) or "nothing". linear_heads: a linear head
    beside the cosine for every task that ranks names (Uni-Perceiver, 2112.01522, section 3.4).
    encoder_from: a model folder whose encoder's weights are taken, and with them its activation, norms, gates and
    positions (`generalist.initial.RULES`); random_encoder:
    they are not, all else equal (the control of a frozen result, `generalist.freeze`). control: a frozen run trains
    its control too and shows it beside its results (`generalist.control`).
    """

    width: int = 128
    layers: int = 4
    heads: int = 4
    hidden: int = 512
    layer_scale: float = 0.0
    drop_path: float = 0.0
    initial_scale: float = 10.0
    embedding_norm: bool = True
    final_norm: bool = False
    freeze: str = "nothing"
    encoder_from: str = ""
    random_encoder: bool = False
    control: bool = False
    prompts: int = 0
    separate_prompts: bool = False
    candidate_prompts: int | None = None
    linear_heads: bool = False
    moe: MoeSpec = field(default_factory=MoeSpec)

    def check(self) -> None:
        """UserError for sizes that no model can have."""
        check_freeze(self.freeze)
        for name in ("width", "layers", "heads", "hidden"):
            if getattr(self, name) < 1:
                raise UserError(f"model.{name} must be at least 1, got {getattr(self, name)}")
        if self.width % self.heads:
            divisors = [h for h in range(1, self.width + 1) if self.width % h == 0]
            best = min(divisors, key=lambda h: abs(h - self.heads))
            raise UserError(f"model.heads={self.heads} does not divide model.width={self.width}; use heads={best}")
        if not 0 <= self.drop_path < 1:
            raise UserError(f"model.drop_path={self.drop_path}: it is a rate, 0 <= drop_path < 1")
        if not 0 < self.initial_scale <= 100:
            raise UserError(f"model.initial_scale={self.initial_scale}: it must lie in 0 < scale <= 100")


@dataclass
class OptimizerSpec:
    """kind: "balanced" (MT-AdamW) or "adamw". warmup in steps; clip: largest gradient norm, 0 = off. min_lr: where the
    cosine ends, 0 = at a hundredth of lr.

    interference: gradients kept a task to measure how tasks help or harm each other (`interference`), 0 = off.
    by_share: a tokenizer that few tasks use moves a step as far as if they were alone (`generalist.optimizer`).
    """

    kind: str = "balanced"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    weight_decay: float = 0.05
    warmup: int = 50
    clip: float = 0.0
    bias_correction: bool = True
    interference: int = 0
    min_lr: float = 0.0
    by_share: bool = False

    def __post_init__(self) -> None:
        self.betas = tuple(self.betas)  # type: ignore[assignment]  # a saved recipe holds a list

    @property
    def floor(self) -> float:
        """The least factor of lr behind the warm-up."""
        return self.min_lr / self.lr if self.min_lr and self.lr else 0.01


@dataclass
class Recipe:
    """Everything a run is made of. sampling: "unmixed" (one task a step on all ranks) or "mixed".

    workers: loader processes; profile: measure where the first steps' time goes (`generalist.profile`); cache_gb: keep
    decoded pictures and sounds on disk, at most so many 1e9 bytes, 0 = do not; memory_gb: keep samples and what is made
    of them in memory, likewise, shared out over the loader processes of a rank.
    baseline: measure an ordinary method beside every task's result; baseline_seconds: processor seconds that one may
    take (0 = as many as it likes; what they do not suffice for is said).
    step_seconds: what a step was measured to take on two cores, 0 = not measured; told at the start, else not used.
    init: a run's or a model's folder whose weights the run starts from (`generalist.initial`), "" starts afresh.
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
    cache_gb: float = 0.0
    memory_gb: float = 2.0
    model: ModelSpec = field(default_factory=ModelSpec)
    optimizer: OptimizerSpec = field(default_factory=OptimizerSpec)
    engine: EngineSpec = field(default_factory=EngineSpec)
    checkpoint: CheckpointSpec = field(default_factory=CheckpointSpec)
    step_seconds: float = 0.0
    faults: FaultSpec = field(default_factory=FaultSpec)
    candidates: dict[str, CandidateSpec] = field(default_factory=dict)
    init: str = ""
    baseline: bool = True
    baseline_seconds: float = 60.0

    def __post_init__(self) -> None:
        for task in self.tasks:  # so that every task's keys candidates.TASK.* exist
            self.candidates.setdefault(task.name, CandidateSpec())

    @property
    def folder(self) -> Path:
        """Where the run goes when nothing else is asked for."""
        return Path("runs") / self.name

    def check(self) -> None:
        """UserError for values that cannot work."""
        if self.steps < 1:
            raise UserError(f"steps must be at least 1, got {self.steps}")
        if not self.tasks:
            raise UserError("a recipe needs at least one task")
        if "text" not in self.modalities:  # candidates given later are text, and the saved folder brings its tokenizer
            raise UserError('a recipe needs the modality "text", whatever its tasks; add "text": Text()')
        for value, key, valid in (
            (self.sampling, "sampling", ("unmixed", "mixed")),
            (self.optimizer.kind, "optimizer.kind", ("balanced", "adamw")),
            (self.engine.kind, "engine.kind", ("auto", "local", "deepspeed")),
            (self.engine.offload, "engine.offload", ("none", "cpu", "nvme")),
        ):
            if value not in valid:
                raise UserError(f"{key}={value!r}; {nearest(value, valid)} (valid: {', '.join(valid)})")
        for key, low, high in LIMITS:
            number: Any = self
            for part in key.split("."):
                number = getattr(number, part)
            if not low <= number < high:
                raise UserError(f"{key}={number}: it must lie in {low:g} <= {key} < {high:g}")
        if any(not 0 <= b < 1 for b in self.optimizer.betas):
            raise UserError(f"optimizer.betas={list(self.optimizer.betas)}: each must lie in 0 <= beta < 1")
        if self.optimizer.min_lr > self.optimizer.lr:
            raise UserError(f"optimizer.min_lr={self.optimizer.min_lr} exceeds optimizer.lr={self.optimizer.lr}")
        self.model.check()
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
    ("engine.accumulate", 1, INF),
    ("engine.threads", 0, INF),
    ("checkpoint.every", 0, INF),
    ("checkpoint.keep", 0, INF),
]


__all__ = ["RECIPES", "Recipe", "from_json", "load_recipe", "override", "parse", "read_recipe", "to_json"]

# --- JSON ---

PARTS = (Recipe, ModelSpec, OptimizerSpec, MoeSpec, EngineSpec, CheckpointSpec, FaultSpec, CandidateSpec)


def to_json(value: Any) -> Any:
    """A dataclass tree as JSON values; every dataclass keeps the import path of its class."""
    if is_dataclass(value) and not isinstance(value, type):
        path = f"{type(value).__module__}:{type(value).__qualname__}"
        return {"class": path} | {f.name: to_json(getattr(value, f.name)) for f in fields(value) if f.init}
    if isinstance(value, dict):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(v) for v in value]
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    raise UserError(f"a recipe holds JSON values and dataclasses only, not {type(value).__name__}")


def from_json(value: Any, own: bool = False) -> Any:
    """The inverse of `to_json`. A "class" may only name a part of a recipe (`data.trust` says from which modules).

    own: the values are this process's own recipe, not a file's.
    """
    if own:
        return _built(value)
    with from_file():
        return _built(value)


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
    return issubclass(kind, (Modality, Task, *PARTS)) or callable(getattr(kind, "open", None))


# --- finding recipes ---

RECIPES: dict[str, str] = {
    "demo": "generalist.recipes.demo:demo",
    "uni_perceiver_tiny": "generalist.recipes.uni_perceiver:uni_perceiver_tiny",
    "uni_perceiver_base": "generalist.recipes.uni_perceiver:uni_perceiver_base",
    "uni_perceiver_large": "generalist.recipes.uni_perceiver:uni_perceiver_large",
    "uni_perceiver_moe_base": "generalist.recipes.uni_perceiver:uni_perceiver_moe_base",
    "uni_perceiver_base_stage2": "generalist.recipes.uni_perceiver:uni_perceiver_base_stage2",
    "uni_perceiver_large_stage2": "generalist.recipes.uni_perceiver:uni_perceiver_large_stage2",
    "uni_perceiver_moe_base_stage2": "generalist.recipes.uni_perceiver:uni_perceiver_moe_base_stage2",
    "detect_tiny": "generalist.recipes.detect_tiny:detect_tiny",
    "segment_tiny": "generalist.recipes.detect_tiny:segment_tiny",
    "uni_perceiver_v2_base": "generalist.recipes.uni_perceiver_v2:uni_perceiver_v2_base",
    "uni_perceiver_v2_large": "generalist.recipes.uni_perceiver_v2:uni_perceiver_v2_large",
}


def load_recipe(name: str) -> Recipe:
    """A name of the table, a path of a .py file (its `recipe` function) or of a recipe.json."""
    path = Path(name)
    if path.suffix in (".json", ".py") and not path.is_file():
        raise UserError(f"no recipe file {name}; check the path")
    if path.suffix == ".json":
        return read_recipe(path)
    if path.suffix == ".py":
        return _checked(getattr(_module(path), "recipe", None), name)
    if name in RECIPES:
        module_name, _, attribute = RECIPES[name].partition(":")
        return _checked(getattr(importlib.import_module(module_name), attribute), name)
    raise UserError(f"unknown recipe {name!r}; {nearest(name, RECIPES)} (or give a .py file)")


def read_recipe(path: Path) -> Recipe:
    """A saved recipe. UserError when the file is not JSON or holds something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({str(error).splitlines()[0]}); restore it or train anew") from error
    loaded = from_json(values)
    if not isinstance(loaded, Recipe):
        raise UserError(f"{path} does not hold a recipe")
    return loaded


def _module(path: Path) -> types.ModuleType:
    """Run a recipe file under its own name, as `import` would with its folder at the end of the path."""
    folder = str(path.parent.resolve())
    if folder not in sys.path:
        sys.path.append(folder)
    found = sys.modules.get(path.stem)
    if found is not None and Path(getattr(found, "__file__", None) or "").resolve() != path.resolve():
        raise UserError(f"{path}: a module {path.stem!r} is in use already; rename the file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[path.stem]
        if isinstance(error, UserError) or not isinstance(error, Exception):
            raise
        raise UserError(f"{path} cannot be run ({type(error).__name__}: {error}); --debug shows where") from error
    return module


def _checked(make: Callable[[], Any] | None, name: str) -> Recipe:
    if make is None:
        raise UserError(f"{name} defines no function `recipe`; add `def recipe() -> Recipe:`")
    try:
        recipe = make()
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"recipe {name!r} cannot be made ({reason}); --debug shows where") from error
    if not isinstance(recipe, Recipe):
        raise UserError(f"recipe {name!r} returns {type(recipe).__name__}, not a Recipe")
    return recipe
