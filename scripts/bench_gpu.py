"""On a GPU: tokens/s, memory and MFU of a training step, against the matrix product that the device reaches.

MFU here is the model's floating-point operations (6 a parameter and token, plus 12 layers x width x length of
attention a token, PaLM 2204.02311 appendix B) over the measured ceiling, not over the data sheet.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch

from generalist.scripts.bench_encoder import Shape, ours, step
from generalist.scripts.timing import wait

SHAPES = (
    Shape("base: ViT-B/16 at 224 px", 224, 16, 768, 12, 12, 128),
    Shape("large: ViT-L/16 at 224 px", 224, 16, 1024, 24, 16, 64),
)


def ceiling(device: str, size: int = 8192, seconds: float = 2.0) -> float:
    """Floating-point operations a second of a square bf16 matrix product."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    a @ b
    wait()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        a @ b
        wait()
        count += 1
    return 2 * size**3 * count / (time.perf_counter() - start)


def operations(shape: Shape, parameters: int, tokens: int) -> float:
    length = tokens / shape.batch
    return tokens * (6 * parameters + 12 * shape.layers * shape.width * length)


def measure(
    device: str = "cuda", shapes: tuple[Shape, ...] = SHAPES, rounds: int = 20, best: float | None = None
) -> list[dict[str, Any]]:
    best = ceiling(device) if best is None else best
    found: list[dict[str, Any]] = [{"what": "bf16 matrix product, measured ceiling", "tflops": best / 1e12}]
    for shape in shapes:
        model, packed = ours(shape)
        model, packed = model.to(device).train(), packed.to(device)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        run = step(model, partial(model.features, packed), "bf16")
        for _ in range(3):
            run()
        wait()
        start = time.perf_counter()
        for _ in range(rounds):
            run()
        wait()
        seconds = (time.perf_counter() - start) / rounds
        parameters = sum(p.numel() for p in model.encoder.parameters())
        memory = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else float("nan")
        found.append(
            {
                "what": f"training step, {shape.name}, batch {shape.batch}, bf16",
                "tokens_per_second": packed.tokens / seconds,
                "mfu": operations(shape, parameters, packed.tokens) / seconds / best,
                "memory_gib": memory,
            }
        )
    return found
