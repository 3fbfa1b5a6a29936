"""The parts of a recipe that say how a run is carried out: engine, checkpoints, faults. None changes what is learnt."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class EngineSpec:
    """Where and how a recipe is trained; none of it changes what is learnt.

    kind: "auto" (DeepSpeed where several processes were launched), "local" or "deepspeed". precision: "fp32",
    "bf16" (autocast, parameters stay fp32) or "fp16" (DeepSpeed on CUDA). accumulate: micro steps a step. threads:
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
class FaultSpec:
    """explode: a mean loss above this many times (usual + 1 nat) is a fault, 0 = off; patience: such steps in a row
    before the run goes back to the last checkpoint; rollbacks: how often it may; bad_rate: share of samples that
    may fail to decode.
    """

    explode: float = 10.0
    patience: int = 3
    rollbacks: int = 2
    bad_rate: float = 0.01
