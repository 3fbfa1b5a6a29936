"""From a loader's worker to the trainer: all tensors of a batch in one piece of shared memory.

torch's loader hands over every tensor as a file of its own, opened and mapped by the trainer while the step waits; a
packed batch has some thirty. Here one buffer holds them all, and the trainer's tensors are views of it.
"""

from __future__ import annotations

import io
import math
import pickle
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ALIGNED = 64  # bytes; no dtype needs more


@dataclass
class Shipped:
    """header: the pickled object with places for its tensors; buffer: Uint8[bytes], the tensors end to end."""

    header: bytes
    buffer: Tensor

    def pin_memory(self) -> Shipped:
        """Called by the loader where it pins what its workers send."""
        return Shipped(self.header, self.buffer.pin_memory())


class _Packer(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.tensors: list[tuple[int, Tensor]] = []
        self.bytes, self.known = 0, dict[int, Any]()

    def persistent_id(self, obj: Any) -> Any:
        if type(obj) is not Tensor or obj.layout != torch.strided:
            return None
        if id(obj) not in self.known:
            self.tensors.append((self.bytes, obj))
            self.known[id(obj)] = (self.bytes, str(obj.dtype).removeprefix("torch."), tuple(obj.shape))
            self.bytes += -(-obj.numel() * obj.element_size() // ALIGNED) * ALIGNED
        return self.known[id(obj)]


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, buffer: Tensor) -> None:
        super().__init__(file)
        self.buffer, self.known = buffer, dict[int, Tensor]()

    def persistent_load(self, pid: Any) -> Tensor:
        start, name, shape = pid
        dtype = getattr(torch, name)
        count = math.prod(shape)
        if not count:
            return torch.empty(shape, dtype=dtype)
        if start not in self.known:
            self.known[start] = self.buffer[start : start + count * dtype.itemsize].view(dtype).view(shape)
        return self.known[start]


def ship(value: Any) -> Shipped:
    """Anything that pickles, its tensors (of the CPU, without gradients) side by side in shared memory."""
    file = io.BytesIO()
    packer = _Packer(file)
    packer.dump(value)
    buffer = torch.empty(max(1, packer.bytes), dtype=torch.uint8)
    for start, tensor in packer.tensors:
        flat = tensor.detach().contiguous().view(-1).view(torch.uint8)
        buffer[start : start + len(flat)] = flat
    return Shipped(file.getvalue(), buffer.share_memory_())


def unpacked(shipped: Shipped) -> Any:
    """What was shipped; its tensors share the buffer."""
    return _Unpacker(io.BytesIO(shipped.header), shipped.buffer).load()
