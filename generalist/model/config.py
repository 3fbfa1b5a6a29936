"""`ModelConfig`: the shared encoder, the modalities and the logit scales of one model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from generalist.data.base.errors import UserError, nearest
from generalist.data.base.moved import old_name
from generalist.nn.mixers.table import check as check_mixers
from generalist.nn.spec import Inputs
from generalist.recipe.encoder import EncoderSpec
from generalist.recipe.layers import MoeSpec, check_name
from generalist.tasks.candidates.likelihood import MAX_SCALE
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.modalities import MODALITIES, build_modalities


def inputs_of(modalities: Mapping[str, Modality], writes: bool, asked: Collection[str]) -> Inputs:
    """What mixers may rely on. writes: whether a task writes its answers, a word after the other; asked: the modalities
    that go into tasks, none where no task is known."""
    shapes = {name: m.one_grid() for name, m in modalities.items()}
    return Inputs(
        axes={name: m.axes for name, m in modalities.items()},
        shapes={name: shape for name, shape in shapes.items() if shape is not None},
        largest={name: shape for name, m in modalities.items() if (shape := m.largest_grid()) is not None},
        causal=writes or any(m.is_causal() for m in modalities.values()),
        asked=frozenset(asked or (name for name, m in modalities.items() if m.takes_input)),
    )


@dataclass(kw_only=True)
class ModelConfig(EncoderSpec):
    """Configuration of a model: its `EncoderSpec`, and what is known of its modalities and tasks.

    modalities: {name: settings of its tokenizer}; modality_order: their names in order, by which a modality router
    knows them (a saved configuration has its keys sorted). scales: names of the learnable logit scales.
    temperatures: {logit scale: T}, by which logits are divided once the model is trained
    (`generalist.evaluate.calibration`).
    biases: logit scales whose logits have a learnable bias added; largest_scale: where exp(log scale) is clamped.
    pairwise: every pair was trained to be judged by itself, by the sigmoid of its logit (SigLIP, 2303.15343): a stock
    pipeline does so, this framework's law compares as ever, and no bias changes that.
    linear_heads: {logit scale: classes} that get a linear head beside the cosine (spec 4).
    zero_shot_scale: the logit scale of two modalities compared by `forward`, the first by default; of a question that
    tasks of one other scale were trained on, that one.
    writing_scale: the logit scale of the words of a caption (`generate`), zero_shot_scale by default.
    head_task: the task as which a head of transformers asks (`generalist.hf.heads`), by default the first that fits; a
    head's classes are id2label, where a user names none those of the task.
    frozen: a saved model's frozen weights that lie in a package, "refer" (left out, found again by name and hash) or
    "include"; referred: {modality: weights, package, digest} of those left out (`generalist.model.folder.referred`).
    tasks: names that a task router knows. task_sides: {task: what its inputs and candidates are told of each other}
    (`Task.sides`); zero_shot_task: the task that a question without a name is answered as by such a router, by default
    the one that asks such questions.
    """

    if TYPE_CHECKING:
        _attn_implementation: str | None
    else:
        _attn_implementation = None  # transformers' name of a kernel; its own class lets one choose

    linear_heads: dict[str, int] | None = None
    tasks: list[str] | None = None
    task_sides: dict[str, Any] | None = None
    zero_shot_task: str = ""
    zero_shot_scale: str = ""
    writing_scale: str = ""
    modalities: dict[str, Any] | None = None
    modality_order: list[str] | None = None
    scales: list[str] | None = None
    biases: list[str] | None = None
    largest_scale: float = MAX_SCALE
    frozen: str = "refer"
    referred: dict[str, Any] | None = None
    pairwise: bool = False
    temperatures: dict[str, float] | None = None
    candidate_sets: dict[str, Any] | None = None
    head_task: str = ""

    def __post_init__(self) -> None:
        self.settle()
        self.check()

    def settle(self) -> None:
        """None becomes what it stands for, a dict of a file the class that it holds. UserError for unknown keys."""
        settings = self.modalities or {}
        self.modality_order = list(dict.fromkeys([*(n for n in self.modality_order or [] if n in settings), *settings]))
        self.modalities = {name: settings[name] for name in self.modality_order}
        self.scales = list(self.scales or ["default"])
        self.zero_shot_scale = self.zero_shot_scale or self.scales[0]
        self.linear_heads = dict(self.linear_heads or {})
        self.candidate_sets = dict(self.candidate_sets or {})
        self.temperatures = dict(self.temperatures or {})
        self.biases = list(self.biases or [])
        self.referred = dict(self.referred or {})
        self.tasks = list(self.tasks or [])
        self.task_sides = dict(self.task_sides or {})
        moe: Any = asdict(self.moe) if isinstance(self.moe, MoeSpec) else self.moe  # a file holds a dict
        if not isinstance(moe, dict):
            raise UserError(f'model: moe takes {{"placement": ...}}, not {moe!r}')
        for name in moe:
            check_name(name, [f.name for f in fields(MoeSpec)], "moe has no")
        self.moe = MoeSpec(**moe)

    def check(self) -> None:
        """UserError for what cannot be or cannot work together."""
        self.separate_prompts = self.separate_prompts or self.candidate_prompts is not None
        for name, value in (self.temperatures or {}).items():
            if not 0 < value < float("inf"):
                raise UserError(f"model: the temperature of scale {name!r} is {value}; it must be positive and finite")
        for name, values in (self.modalities or {}).items():
            if name not in MODALITIES and "class" not in values:
                raise UserError(f"unknown modality {name!r}; {nearest(name, MODALITIES)}")
        asked = set[str]().union(*map(itemgetter("inputs"), (self.task_sides or {}).values()))
        check_mixers(self, lambda: inputs_of(build_modalities(self.modalities), bool(self.writing_scale), asked))

    @property
    def known(self) -> tuple[int, int]:
        return len(self.modalities or {}), len(self.tasks or [])


def __getattr__(name: str) -> Any:  # transformers' class of it stood here
    return old_name(__name__, name)
