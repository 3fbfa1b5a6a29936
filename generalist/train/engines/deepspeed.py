"""DeepSpeed behind the engine's verbs: ZeRO 0 to 3 on any number of processes, on CPU or CUDA.

What was measured and is provided for here: DeepSpeed compiles a shared-memory operator at its first use and
fails without ninja or g++ (switched off); under ZeRO 1 to 3 an optimiser sees one flat partition a group and is
stepped group by group, so MT-AdamW is told the norm of the whole gradient.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.data.batch.types import Batch
from generalist.machine.collectives import rank, world
from generalist.machine.ranks import barrier, on_first
from generalist.model.objective import Objective
from generalist.recipe.recipe import Recipe
from generalist.train.engines import deepspeed_disk, deepspeed_files, portable
from generalist.train.engines.base import (
    check_precision,
    group_names,
    one_order,
    read_meta,
    recompute_activations,
    rng_state,
    set_rng_state,
    write_meta,
)
from generalist.train.engines.deepspeed_config import deepspeed_config, zero_stage
from generalist.train.engines.deepspeed_library import Gate, check_accelerator, fresh_state, load_deepspeed
from generalist.train.optimizer import BalancedAdamW, build_optimizer, set_rate


class DeepSpeedEngine:
    """One rank of a DeepSpeed run; the process group exists already (`generalist.machine.ranks.join`)."""

    def __init__(self, objective: Objective, recipe: Recipe, device: torch.device) -> None:
        check_precision(recipe.engine.precision, device)
        check_accelerator(device)
        self.rank, self.world, self.device = rank(), world(), device
        config = deepspeed_config(recipe, self.world, device.type)
        self.stage = zero_stage(config)
        # ranks on different tasks have gradients for different parameters, and stage 1 sums those that are there:
        # every parameter takes part, if only with zero
        self.touch = recipe.sampling == "mixed" and self.stage == 1 and self.world > 1
        deepspeed = load_deepspeed()
        deepspeed_disk.check_disk_reader(config)
        if recipe.engine.activation_checkpointing:
            recompute_activations(objective)
        objective.to(device)
        optimizer = build_optimizer(recipe, objective)
        self.groups = group_names(objective, optimizer)
        self.shapes = {name: list(p.shape) for name, p in objective.named_parameters()}
        self.optimizer = optimizer
        # at stage 0 DeepSpeed reports no norm, so the gate clips there
        clip = config["gradient_clipping"] if self.stage == 0 else 0.0
        if self.stage == 0:
            config["gradient_clipping"] = 0.0
        self.gate, self.micro = Gate(optimizer, clip), 0
        try:
            self.engine, self.zero, _, _ = deepspeed.initialize(
                model=objective, optimizer=optimizer, config=config, dist_init_required=False
            )
        except (ValueError, AssertionError) as error:
            what = recipe.engine.deepspeed or "this recipe"
            raise UserError(f"DeepSpeed refuses {what}: {error}") from error
        self.engine._copy_recovery_script = lambda path: None  # a checkpoint holds no programs
        self.gate.zero = self.zero if self.stage else None
        if self.world == 1 and self.stage == 0:  # nobody to exchange gradients with
            self.engine.enable_backward_allreduce = False
            self.engine.zero_grad = optimizer.zero_grad  # its own looks every parameter up by name
        if isinstance(optimizer, BalancedAdamW) and self.stage:
            optimizer.whole_norm = self.gate.last

        if self.offloads_to_disk:
            self.prepare_disk()
            return
        for flat in self.partitions():
            fresh_state(optimizer, flat)
        if self.stage in (1, 2):
            self.zero._lazy_init_hp_params_optimizer_state()
        if self.stage == 3:
            self.clear_padding()

    @property
    def offloads_to_disk(self) -> bool:
        return bool(self.stage == 3 and getattr(self.zero, "swap_optimizer", False))

    def prepare_disk(self) -> None:
        """What is done for the other engines in memory: fresh optimiser state, zero behind uneven parameters."""
        deepspeed_disk.clear_before_reading(self.zero)
        for number in range(len(self.partitions())):
            with deepspeed_disk.in_memory(self.zero, number) as flat, torch.no_grad():
                fresh_state(self.optimizer, flat)
                for parameter, offset, size in deepspeed_disk.parts(self.zero, number):
                    own = max(0, parameter.ds_numel - self.rank * size)
                    if own < size:
                        flat[offset + own : offset + size] = 0

    def partitions(self) -> list[Tensor]:
        """The tensors that the optimiser steps on this rank: parameters at stage 0, else one flat piece a group."""
        if self.stage == 0:
            return [p for group in self.optimizer.param_groups for p in group["params"]]
        return list(
            self.zero.single_partition_of_fp32_groups if self.stage < 3 else self.zero.fp32_partitioned_groups_flat
        )

    def clear_padding(self) -> None:
        """Zero behind the end of a parameter that the ranks do not divide.

        DeepSpeed leaves what stood in memory there, and a checkpoint of it may hold NaN (measured).
        """
        from deepspeed import utils

        for parameter in self.engine.module.parameters():
            size = parameter.partition_numel()
            own = max(0, parameter.ds_numel - self.rank * size)
            if own >= size:
                continue
            parameter.ds_tensor.data.view(-1)[own:].zero_()
            part = utils.safe_get_local_fp32_param(parameter) if parameter.requires_grad else None
            if part is not None:
                part = part.clone()
                part[own:] = 0
                utils.safe_set_local_fp32_param(parameter, part)

    # --- the verbs ---

    def loss(self, batch: Batch) -> Tensor:
        loss = self.engine(batch)
        if self.touch:
            loss = loss + 0 * sum(p.sum() for p in self.engine.module.parameters() if p.requires_grad)
        return loss

    def backward(self, loss: Tensor) -> None:
        if self.micro:
            self.engine.step()  # ends the micro step before; DeepSpeed only counts here
        with one_order(self.device):
            self.engine.backward(loss, scale_wrt_gas=False)  # or it would divide by the micro steps once more
        self.micro += 1

    def step(self, lr: float, share: float, omega: float, apply: bool = True) -> float:
        set_rate(self.optimizer, lr)
        if isinstance(self.optimizer, BalancedAdamW):
            self.optimizer.task(share, omega)
        self.gate.open, self.micro = apply, 0
        self.engine.step()
        self.forget()
        return self.gate.last()

    def forget(self) -> None:
        """Gradient zero for parameters that the next task does not use.

        DeepSpeed's buffers keep what a parameter got last: at stage 3, and at every stage with offload, a
        parameter that is not used in a step would be moved by an earlier step's gradient (measured).
        """
        if self.stage == 3:
            self.zero.grad_partitions_flat_buffer.zero_()
        if self.stage == 3 or getattr(self.zero, "cpu_offload", False):
            for flat in self.partitions():
                if flat is not None and flat.grad is not None:
                    flat.grad.zero_()

    def save(self, folder: Path, write: portable.Write) -> None:
        if self.rank == 0:
            about = {"engine": "deepspeed", "world": self.world, "stage": self.stage, "steps": self.steps()}
            write_meta(folder, {**about, "groups": self.groups, "shapes": self.shapes})
        kept, on_disk = self.engine.checkpoint_engine, self.engine.zero_nvme_offload_optimizer
        whole = deepspeed_disk.filled(self.zero, write) if self.offloads_to_disk else write
        self.engine.checkpoint_engine = deepspeed_files.engine(whole)
        self.engine.zero_nvme_offload_optimizer = lambda: False  # or it would copy the files of the disk, too
        try:
            self.engine.save_checkpoint(str(folder), tag=portable.TAG, save_latest=False)
        finally:
            self.engine.checkpoint_engine, self.engine.zero_nvme_offload_optimizer = kept, on_disk
        write(rng_state(), folder / f"rng-{self.rank}.pt")

    def load(self, folder: Path, trust: bool = False) -> None:
        if not folder.is_dir():
            raise UserError(f"rank {self.rank} does not see {folder}; --out must lie on a disk that all nodes share")
        meta = read_meta(folder)
        alike = (meta["engine"], meta["world"], meta["stage"]) == ("deepspeed", self.world, self.stage)
        if alike and not self.offloads_to_disk:
            kept, self.engine.checkpoint_engine = self.engine.checkpoint_engine, deepspeed_files.engine(trust=trust)
            try:
                self.engine.load_checkpoint(str(folder), tag=portable.TAG)
            finally:
                self.engine.checkpoint_engine = kept
        else:
            shared = folder.parent / "universal.pt"
            on_first(lambda: torch.save(portable.read(folder, meta, trust), shared))
            self.set_portable(torch.load(shared, map_location="cpu", mmap=True, weights_only=True))
            barrier()
            if self.rank == 0:
                shared.unlink()
        if alike:  # last, so that nothing above draws from it
            set_rng_state(portable.load(folder / f"rng-{self.rank}.pt"))

    def weights(self) -> dict[str, Tensor]:
        if self.stage == 3:
            return self.engine._zero3_consolidated_16bit_state_dict() or {}
        if self.rank:
            return {}
        return {name: value.detach().cpu() for name, value in self.engine.module.state_dict().items()}

    # --- states of other engines, stages and sizes ---

    def steps(self) -> int:
        """How many steps the optimiser has applied."""
        counts = [int(state["step"]) for state in self.optimizer.state.values() if "step" in state]
        return max(counts, default=0)

    def set_portable(self, state: portable.Portable) -> None:
        """Take over whole tensors: every rank keeps its own part of them."""
        if self.stage == 0:
            fitting = portable.to_torch(state, self.groups, self.optimizer)
            self.engine.module.load_state_dict(fitting["model"])
            self.optimizer.load_state_dict(fitting["optimizer"])
            return
        module = self.engine.module
        trained = dict(module.named_parameters())
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                if name in state:
                    buffer.copy_(state[name]["fp32"])
            for name, parameter in trained.items():
                if name not in state:
                    continue
                value = state[name]["fp32"].to(self.device)
                self._set_parameter(parameter, value)
                if "step" not in state[name] or self.offloads_to_disk:
                    continue
                self._set_part(parameter, value, None)
                for key in portable.MOMENTS:
                    self._set_part(parameter, state[name][key].to(self.device), key)
        if self.offloads_to_disk:
            names = {parameter: name for name, parameter in trained.items()}
            deepspeed_disk.take(self.zero, state, names, self.rank, self.world)
        count = max(int(values.get("step", 0)) for values in state.values())
        for held in self.optimizer.state.values():
            held["step"] = torch.full_like(held["step"], count) if isinstance(held["step"], Tensor) else count

    def _set_part(self, parameter: Any, value: Tensor, key: str | None) -> None:
        """This rank's part of an fp32 master weight (key None) or of an optimiser moment, from the whole tensor."""
        from deepspeed import utils

        if self.stage < 3:
            whole = value.clone()
            if key is None:
                utils.safe_set_full_fp32_param(parameter, whole)
            else:
                utils.safe_set_full_optimizer_state(parameter, whole, key)
            return
        # DeepSpeed's own setter for whole tensors fails where ranks do not divide the parameter: pad as it shards
        size = parameter.partition_numel()
        part = nn.functional.pad(value.flatten(), (0, size * self.world - value.numel())).chunk(self.world)[self.rank]
        if key is None:
            utils.safe_set_local_fp32_param(parameter, part.clone())
        else:
            utils.safe_set_local_optimizer_state(parameter, part.clone(), key)

    def _set_parameter(self, parameter: nn.Parameter, value: Tensor) -> None:
        if self.stage < 3:
            parameter.data.copy_(value)
            return
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            if self.rank == 0:
                parameter.data.copy_(value)
