"""The parts of a recipe: how a run is carried out (none of it changes what is learnt), then what is trained."""

from __future__ import annotations

from dataclasses import dataclass, field

from generalist.data.base.errors import UserError, nearest
from generalist.recipe.encoder import EncoderSpec
from generalist.recipe.layers import MoeSpec

__all__ = [
    "CandidateSpec",
    "CheckpointSpec",
    "EncoderSpec",
    "EngineSpec",
    "FaultSpec",
    "ModelSpec",
    "MoeSpec",
    "OptimizerSpec",
    "SaveSpec",
    "ValidationSpec",
]


@dataclass
class EngineSpec:
    """Where and how a recipe is trained; none of it changes what is learnt.

    kind: "auto" (DeepSpeed where several processes were launched), "local" or "deepspeed". precision: "fp32",
    "bf16" (autocast, parameters stay fp32), "fp16" (DeepSpeed on CUDA) or "auto" (fp32 or bf16, whichever costs less in
    the first steps; one process). accumulate: micro steps a step. threads:
    0 leaves torch's own. zero_stage: 0 to 3, what DeepSpeed shards (one process that offloads nothing has nothing to
    shard and runs 1 and 2 as 0); offload: "none", "cpu" or "nvme" (then nvme_path is the folder). deepspeed: a
    DeepSpeed config file, taken whole. activation_checkpointing: compute the layers' activations again in the
    backward pass. timeout: minutes after which a silent rank is taken for dead.
    compile: torch.compile for the channel mixers, at any number of tokens (needs a C++ compiler).
    """

    precision: str = "fp32"
    accumulate: int = 1
    threads: int = 0
    device: str = "auto"
    kind: str = "auto"
    zero_stage: int = 1
    offload: str = "none"
    nvme_path: str = ""
    deepspeed: str = ""
    activation_checkpointing: bool = False
    timeout: float = 10.0
    compile: bool = False


@dataclass
class CheckpointSpec:
    """every: steps between checkpoints, 0 = only at the end; keep: how many of the newest stay.

    asynchronous: training goes on while a checkpoint is written (it costs a copy of the state in CPU memory).
    """

    every: int = 200
    keep: int = 2
    asynchronous: bool = False


@dataclass
class SaveSpec:
    """frozen: weights that stay and lie in a package (`generalist models`): a saved model names them, "refer", or holds
    them, "include".
    """

    frozen: str = "refer"

    def check(self) -> None:
        """UserError for another word."""
        if self.frozen not in ("refer", "include"):
            raise UserError(f"save.frozen={self.frozen!r}; {nearest(self.frozen, ('refer', 'include'))}")


@dataclass
class FaultSpec:
    """explode: a mean loss above this many times (usual + 1 nat) is a fault, 0 = off; patience: such steps in a row
    before the run goes back to the last checkpoint; rollbacks: how often it may; bad_rate: share of samples that
    may fail to decode; a few more may (`generalist.train.faults.too_many`).
    """

    explode: float = 10.0
    patience: int = 3
    rollbacks: int = 2
    bad_rate: float = 0.01


@dataclass
class ValidationSpec:
    """Looks at the validation data while training (`generalist.run.looks`).

    every: steps between two of them, 0 = none. cost: share of training's work that they may take: where all validation
    data would take more, fewer samples are looked at, and looks are rarer where too few were left. patience: looks in
    a row without a better score after which a task stops and leaves its share of the steps to the others, 0 = never.
    best: the run's weights are those of its best look, not the last.
    """

    every: int = 0
    cost: float = 0.05
    patience: int = 0
    best: bool = True


POLICY_NAMES = ("exact", "sampled", "cached", "auto")


@dataclass
class CandidateSpec:
    """How training uses a task's candidates (recipe keys candidates.TASK.*).

    policy: "exact", "sampled", "cached", or "auto", the first or one of the others by their cost, measured in the first
    uses. size: members sampled besides the batch's answers. every: uses of the set between two encodings of a cached
    one. shard: split the encoding over ranks, "auto" from 1024 members on, "always" or "never". negatives: of in-batch
    candidates, "gathered" from all ranks with gradient, "constant" (gathered without gradient to the other ranks, the
    official Uni-Perceiver) or "local".
    """

    policy: str = "exact"
    size: int = 512
    every: int = 10
    shard: str = "auto"
    negatives: str = "gathered"

    def __post_init__(self) -> None:
        for key, valid in (
            ("policy", POLICY_NAMES),
            ("shard", ("auto", "always", "never")),
            ("negatives", ("gathered", "constant", "local")),
        ):
            value = vars(self)[key]
            if value not in valid:
                raise UserError(f"candidates: {key}={value!r}; {nearest(value, valid)} (valid: {', '.join(valid)})")
        for key in ("size", "every"):
            if vars(self)[key] < 1:
                raise UserError(f"candidates: {key} must be at least 1, got {vars(self)[key]}")


FREEZABLE = ("nothing", "encoder", "towers", "all_but_prompts")


def check_freeze(part: str) -> None:
    """UserError when `model.freeze` names no part."""
    if part not in FREEZABLE:
        raise UserError(f"model.freeze={part!r}; {nearest(part, FREEZABLE)} (valid: {', '.join(FREEZABLE)})")


@dataclass
class ModelSpec(EncoderSpec):
    """The shared encoder (`EncoderSpec`), where its weights come from and what of it trains.

    freeze: "encoder", "towers" (what came pretrained in tokenizers), "all_but_prompts" (prompt tuning) or "nothing".
    linear_heads: a linear head beside the cosine for every task that ranks names (Uni-Perceiver, 2112.01522, section
    3.4).
    encoder_from: a model folder whose encoder's weights are taken, and with them what says how it computes
    (`generalist.recipe.encoder.HOW`); random_encoder:
    they are not, all else equal (the control of a frozen result, `generalist.train.freeze`). control: a frozen run
    trains its control too and shows it beside its results (`generalist.run.control`).
    sparsity: weight of a term that makes attention sparse (`generalist.train.methods.sparse`), 0 = none;
    sparsity_layers: "last" or "all". elastic: every step trains a smaller network within the model
    (`generalist.train.methods.elastic`).
    """

    freeze: str = "nothing"
    encoder_from: str = ""
    random_encoder: bool = False
    control: bool = False
    linear_heads: bool = False
    sparsity: float = field(default=0.0, kw_only=True)
    sparsity_layers: str = field(default="last", kw_only=True)
    elastic: bool = field(default=False, kw_only=True)

    def check(self) -> None:
        """UserError for values that no model can have."""
        check_freeze(self.freeze)
        self.check_sizes()
        if not 0 <= self.sparsity < float("inf"):
            raise UserError(f"model.sparsity={self.sparsity}: it must lie in 0 <= sparsity < inf")
        if self.sparsity_layers not in (valid := ("last", "all")):
            raise UserError(f"model.sparsity_layers={self.sparsity_layers!r}; {nearest(self.sparsity_layers, valid)}")


@dataclass
class OptimizerSpec:
    """kind: "balanced" (MT-AdamW) or "adamw". warmup in steps; clip: largest gradient norm, 0 = off. schedule: how lr
    goes on behind the warm-up, "cosine", "linear" (both to the end), "constant" or "wsd" (constant, and in a line over
    the last `decay` of the steps). min_lr: where it ends, 0 = at a hundredth of lr. ema: a moving average of the
    weights with this decay is what is looked at and saved, 0 = the weights themselves (`generalist.train.average`).

    interference: gradients kept a task to measure how tasks help or harm each other (`interference`), 0 = off.
    by_share: a tokenizer that few tasks use moves a step as far as if they were alone (`generalist.train.optimizer`).
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
    schedule: str = "cosine"
    decay: float = 0.2
    ema: float = 0.0

    def __post_init__(self) -> None:
        self.betas = tuple(self.betas)  # type: ignore[assignment]  # a saved recipe holds a list

    @property
    def floor(self) -> float:
        """The least factor of lr behind the warm-up."""
        return self.min_lr / self.lr if self.min_lr and self.lr else 0.01
