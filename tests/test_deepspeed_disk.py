"""What is mended of DeepSpeed's offload to NVMe, with a disk that is a dictionary (the real one: test_deepspeed.py)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from generalist.train.engines import deepspeed_disk, portable

SIZES = (2, 3)  # this rank's parts of two parameters, one group


class Disk:
    """DeepSpeed's optimiser around one group of five numbers, which are in memory only between in and out."""

    def __init__(self) -> None:
        self.stored = {"fp32": torch.arange(5.0), "exp_avg": torch.ones(5), "exp_avg_sq": torch.full((5,), 2.0)}
        self.flat = torch.empty(0)
        self.fp32_partitioned_groups_flat = [self.flat]
        self.fp16_groups = [[nn.Parameter(torch.empty(0)) for _ in SIZES]]
        first, second = self.fp16_groups[0]
        self.ids, self.grad_position = {first: 0, second: 1}, {0: [0, 0, 2], 1: [0, 2, 3]}
        self.optimizer = SimpleNamespace(state={self.flat: {k: torch.empty(0) for k in portable.MOMENTS} | {"step": 7}})
        self.info = SimpleNamespace(swapped_gradients={}, unswapped_gradients={})
        self.optimizer_swapper: Any = SimpleNamespace(
            _get_param_swap_info=lambda parameter: self.info, _swap_in_gradients=self.read
        )

    def get_param_id(self, parameter: nn.Parameter) -> int:
        return self.ids[parameter]

    def _swappable_optimizer_subgroup(self, number: int) -> bool:
        return True

    def read(self, aio_handle: Any, parameter: Tensor, dest_buffer: Tensor) -> None:
        """Only the gradients that are there, as DeepSpeed does."""
        parameter.grad = dest_buffer.narrow(0, 0, 5)
        for offset, gradient in {**self.info.swapped_gradients, **self.info.unswapped_gradients}.items():
            parameter.grad.narrow(0, offset, len(gradient)).copy_(gradient)

    def _optimizer_states_and_gradient_swap_in(self, number: int, timer_names: Any = None) -> None:
        own = self.optimizer.state[self.flat]
        self.flat.data = self.stored["fp32"].clone()
        for key in portable.MOMENTS:
            own[key].data = self.stored[key].clone()
        if self.info.swapped_gradients or self.info.unswapped_gradients:
            self.optimizer_swapper._swap_in_gradients(None, self.flat, torch.full((8,), 9.0))  # a buffer used before

    def _optimizer_states_and_gradient_swap_out(self, number: int, timer_names: Any = None) -> None:
        own = self.optimizer.state[self.flat]
        self.stored = {"fp32": self.flat.data} | {key: own[key].data for key in portable.MOMENTS}
        for tensor in (self.flat, *(own[key] for key in portable.MOMENTS)):
            tensor.data = torch.empty(0)
        self.flat.grad, self.info.unswapped_gradients = None, {}


def gradient(zero: Disk) -> list[float]:
    with deepspeed_disk.in_memory(zero, 0) as flat:
        assert flat.grad is not None
        return flat.grad.tolist()


@pytest.mark.parametrize("kind", ["swapped_gradients", "unswapped_gradients"])
def test_a_parameter_that_a_step_does_not_use_has_gradient_zero_whatever_the_buffer_and_the_disk_held(kind):
    zero = Disk()
    getattr(zero.info, kind)[2] = torch.tensor([3.0, 4.0, 5.0])
    with deepspeed_disk.in_memory(zero, 0) as flat:
        assert flat.grad[:2].tolist() == [9, 9]  # left to itself
    deepspeed_disk.clear_before_reading(zero)
    getattr(zero.info, kind)[2] = torch.tensor([3.0, 4.0, 5.0])
    assert gradient(zero) == [0, 0, 3, 4, 5]
    getattr(zero.info, kind)[0] = torch.tensor([6.0, 7.0])  # the next step uses the other parameter
    assert gradient(zero) == [6, 7, 0, 0, 0]
    assert gradient(zero) == [0] * 5  # and the one after it none


def test_a_checkpoint_holds_what_is_on_the_disk_and_leaves_it_there():
    zero, written = Disk(), {}
    state = {"optimizer_state_dict": {"optimizer_state_dict": {"state": {0: "empty"}}, "fp32_flat_groups": ["empty"]}}
    write = deepspeed_disk.filled(zero, lambda value, path: written.update({path.name: value}))
    write(state, Path("zero_pp_rank_0_mp_rank_00_optim_states.pt"))
    write({"module": {}}, Path("zero_pp_rank_0_mp_rank_00_model_states.pt"))
    assert written["zero_pp_rank_0_mp_rank_00_model_states.pt"] == {"module": {}}
    held = written["zero_pp_rank_0_mp_rank_00_optim_states.pt"]["optimizer_state_dict"]
    assert held["fp32_flat_groups"][0].tolist() == [0, 1, 2, 3, 4]
    own = held["optimizer_state_dict"]["state"][0]
    assert (own["step"], own["exp_avg"].tolist(), own["exp_avg_sq"].tolist()) == (7, [1] * 5, [2] * 5)
    assert zero.flat.numel() == 0
    assert zero.stored["exp_avg_sq"].tolist() == [2] * 5


def test_a_rank_takes_its_parts_of_whole_tensors_and_zero_behind_their_end():
    zero = Disk()
    first, second = zero.fp16_groups[0]
    state = {
        "a": {key: torch.tensor([1.0, 2.0, 3.0]) * n for n, key in enumerate(("fp32", *portable.MOMENTS), 1)},
        "b": {"fp32": torch.arange(10.0, 16.0).reshape(2, 3)},  # frozen so far: no moments
    }
    deepspeed_disk.take(zero, state, {first: "a", second: "b"}, rank=1, world=2)
    assert zero.stored["fp32"].tolist() == [3, 0, 13, 14, 15]
    assert zero.stored["exp_avg"].tolist() == [6, 0, 1, 1, 1]
    assert zero.stored["exp_avg_sq"].tolist() == [9, 0, 2, 2, 2]
