"""A recipe -> DeepSpeed's configuration: a pure function of the recipe, the number of processes and the device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError
from generalist.recipe.recipe import Recipe

STAGES = (0, 1, 2, 3)
AUTOCAST = {"bf16": "bfloat16", "fp16": "float16"}


def deepspeed_config(recipe: Recipe, world: int, device: str = "cpu") -> dict[str, Any]:
    """What `deepspeed.initialize` takes for this recipe on `world` processes of a device type ("cpu" or "cuda").

    The loop hands over losses that are already divided by the step's global count, and the engine undoes no
    average but the one over ranks. With the balanced optimiser nothing clips: it normalises every gradient.
    UserError for combinations that cannot work.
    """
    spec = recipe.engine
    config = read_config(Path(spec.deepspeed)) if spec.deepspeed else derived(recipe, world)
    stage = zero_stage(config)
    if stage not in STAGES:
        raise UserError(f"ZeRO stage {stage} does not exist; use one of 0, 1, 2, 3")
    if recipe.sampling == "mixed" and stage >= 2 and world > 1:
        raise UserError(
            f"sampling=mixed puts ranks on different tasks, and ZeRO stage {stage} then mixes up their gradients "
            "without a word; use sampling=unmixed or engine.zero_stage=1"
        )
    if device == "cpu" and (config.get("fp16", {}).get("enabled") or spec.precision == "fp16"):
        raise UserError("fp16 does not train on a CPU (DeepSpeed refuses it); use engine.precision=fp32 or bf16")
    sizes = {
        # one "sample" of DeepSpeed's is one micro step of one process: batches differ by task and are our own affair
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": recipe.engine.accumulate,
        "train_batch_size": world * recipe.engine.accumulate,
    }
    for key, value in sizes.items():
        given = config.get(key, value)
        if given not in (value, "auto") and key == "gradient_accumulation_steps":
            raise UserError(
                f"{spec.deepspeed}: {key}={given}, but engine.accumulate={value}; give both the same number"
            )
    if "optimizer" in config or "scheduler" in config:
        raise UserError(f"{spec.deepspeed} names an optimizer or a scheduler; the recipe's optimizer.* keys set those")
    # always said: where the key is absent DeepSpeed clips at 1
    clip = config.get("gradient_clipping", recipe.optimizer.clip) if recipe.optimizer.kind == "adamw" else 0.0
    return {**config, **sizes, "gradient_clipping": clip}


def zero_stage(config: dict[str, Any]) -> int:
    return int(config.get("zero_optimization", {}).get("stage", 0))


def derived(recipe: Recipe, world: int) -> dict[str, Any]:
    """The part of the configuration that follows from the recipe and the number of processes.

    One process has nobody to share its optimiser's state or its gradients with: stages 1 and 2 would only copy every
    gradient into their buffers and back (measured: 1.2 to 1.5 times the time of a step), so stage 0 runs there. The
    numbers are the same and a checkpoint fits any stage. fp16 keeps its stage, whose optimiser scales the loss.
    """
    spec = recipe.engine
    if spec.offload != "none" and spec.zero_stage < (3 if spec.offload == "nvme" else 1):
        need = "3" if spec.offload == "nvme" else "1, 2 or 3"
        raise UserError(f"engine.offload={spec.offload} needs engine.zero_stage={need}, got {spec.zero_stage}")
    if spec.offload == "nvme" and not spec.nvme_path:
        raise UserError("engine.offload=nvme needs engine.nvme_path=FOLDER on a local solid-state disk")
    shares = world > 1 or spec.offload != "none" or spec.zero_stage not in (1, 2) or spec.precision == "fp16"
    zero: dict[str, Any] = {"stage": spec.zero_stage if shares else 0}
    if spec.offload != "none":
        where = {"device": spec.offload} | ({"nvme_path": spec.nvme_path} if spec.offload == "nvme" else {})
        zero["offload_optimizer"] = dict(where)
        if spec.zero_stage == 3:
            zero["offload_param"] = dict(where)
    config: dict[str, Any] = {
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,  # MT-AdamW is not on DeepSpeed's list; its equal curve is tested
        "zero_force_ds_cpu_optimizer": False,  # with offload too: no compiled optimiser is needed
        "steps_per_print": 2**31 - 1,  # the run prints its own progress
    }
    if spec.precision in AUTOCAST:
        config["torch_autocast"] = {"enabled": True, "dtype": AUTOCAST[spec.precision]}
    return config


def read_config(path: Path) -> dict[str, Any]:
    """A DeepSpeed config file. UserError when it is not there or not a JSON object."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"engine.deepspeed={path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"engine.deepspeed={path} is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise UserError(f"engine.deepspeed={path} does not hold a JSON object")
    return {"zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False, **config}
