"""ZeRO 3 with its optimiser on NVMe, made to train and resume as it does without (DeepSpeed 0.19, measured).

Left to itself DeepSpeed moves a parameter that a step does not use by whatever its read buffer held before (every
parameter of another task; the curve is another one from the first step on), and a resume takes over neither the small
groups that stay in memory nor the optimiser's count of steps. Here a buffer is cleared before gradients are read into
it, and a checkpoint holds what it holds without offload, so that any engine, stage and number of processes reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.train.engines import portable

PLACES = ("offload_optimizer", "offload_param")


def check_disk_reader(config: dict[str, Any]) -> None:
    """UserError where a configuration offloads to NVMe in a way that cannot work here."""
    zero = config.get("zero_optimization", {})
    places = [zero.get(key, {}) for key in PLACES]
    if "nvme" not in [place.get("device") for place in places]:
        return
    if any(places[0].get(key) for key in ("pipeline_read", "pipeline_write")):
        raise UserError("offload_optimizer with pipeline_read or pipeline_write trains wrongly here; set both to false")
    from deepspeed.ops.op_builder import AsyncIOBuilder

    if not AsyncIOBuilder().is_compatible(verbose=False):
        raise UserError(
            "offload to NVMe needs libaio, and DeepSpeed does not find it (it builds its disk reader at first use): "
            "install libaio-dev, g++ and ninja, or use engine.offload=cpu"
        )


def clear_before_reading(zero: Any) -> None:
    """Gradient zero for parameters that a step does not use, instead of what stood in the buffer or on the disk."""
    swapper, read, swap_in = (
        zero.optimizer_swapper,
        zero.optimizer_swapper._swap_in_gradients,
        zero._optimizer_states_and_gradient_swap_in,
    )

    def read_cleared(aio_handle: Any, parameter: Tensor, dest_buffer: Tensor) -> None:
        dest_buffer.zero_()
        read(aio_handle, parameter, dest_buffer)
        swapper._get_param_swap_info(parameter).swapped_gradients.clear()  # or the next step would read them again

    def swap_in_whole(number: int, timer_names: set[str] | None = None) -> None:
        swap_in(number, timer_names)
        flat = zero.fp32_partitioned_groups_flat[number]
        if flat.grad is None:  # no parameter of the group was used
            flat.grad = torch.zeros_like(flat)

    swapper._swap_in_gradients = read_cleared
    zero._optimizer_states_and_gradient_swap_in = swap_in_whole


@contextmanager
def in_memory(zero: Any, number: int) -> Iterator[Tensor]:
    """A group's flat fp32 weights, and their optimiser state, read from the disk and written back."""
    on_disk = zero._swappable_optimizer_subgroup(number)  # small groups stay in memory
    if on_disk:
        zero._optimizer_states_and_gradient_swap_in(number)
    try:
        yield zero.fp32_partitioned_groups_flat[number]
    finally:
        if on_disk:
            zero._optimizer_states_and_gradient_swap_out(number)


def parts(zero: Any, number: int) -> Iterator[tuple[Any, int, int]]:
    """(parameter of DeepSpeed, offset, size) of this rank's part of every parameter in a group's flat tensor."""
    for parameter in zero.fp16_groups[number]:
        _, offset, size = zero.grad_position[zero.get_param_id(parameter)]
        yield parameter, int(offset), int(size)


def filled(zero: Any, write: portable.Write) -> portable.Write:
    """`write`, which puts the state on the disk into DeepSpeed's file for the optimiser.

    A save holds this rank's share in CPU memory, as an offload to the CPU does all the time.
    """

    def whole(value: Any, path: Path) -> None:
        if path.name.endswith("optim_states.pt"):
            held = value["optimizer_state_dict"]
            states = held["optimizer_state_dict"]["state"]
            flats = []
            for number in range(len(zero.fp32_partitioned_groups_flat)):
                with in_memory(zero, number) as flat:
                    flats.append(flat.detach().clone())
                    own = zero.optimizer.state[flat]
                    states[number] = {k: v.clone() if isinstance(v, Tensor) else v for k, v in own.items()}
            held["fp32_flat_groups"] = flats
        write(value, path)

    return whole


def take(zero: Any, state: portable.Portable, names: dict[nn.Parameter, str], rank: int, world: int) -> None:
    """Take over whole tensors: this rank's parts of them, every group read and written once."""
    for number in range(len(zero.fp32_partitioned_groups_flat)):
        with in_memory(zero, number) as flat, torch.no_grad():
            own = zero.optimizer.state[flat]
            for parameter, offset, size in parts(zero, number):
                held = state.get(names[parameter], {})
                targets = {"fp32": flat, **{key: own[key] for key in portable.MOMENTS}}
                for key, target in targets.items():
                    if key in held:
                        value = held[key].flatten()
                        padded = nn.functional.pad(value, (0, size * world - value.numel()))
                        target.narrow(0, offset, size).copy_(padded.chunk(world)[rank])
