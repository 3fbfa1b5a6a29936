"""What packing saves a step: sequences of many lengths packed against the same padded."""

from __future__ import annotations

from typing import Any

import torch

from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.nn.attention.padded import padded_at
from generalist.nn.encoder import Encoder
from generalist.scripts.bench_training import HERE, line
from generalist.scripts.timing import alternate


def packed_against_padded(rounds: int) -> list[dict[str, Any]]:
    """An encoder step on sequences of 8 to 120 tokens (half of it padding when padded), the same numbers both ways.

    On a GPU also one that fills it, in bfloat16.
    """
    small = packed_step(rounds, 256, 4, 2, torch.float32)
    return [small] if HERE.type == "cpu" else [small, packed_step(rounds, 768, 12, 32, torch.bfloat16)]


def packed_step(rounds: int, width: int, heads: int, times: int, dtype: torch.dtype) -> dict[str, Any]:
    torch.manual_seed(0)
    lengths = [8, 16, 24, 32, 48, 56, 64, 72, 80, 96, 104, 120] * times
    config = GeneralistConfig(
        hidden_size=width, num_hidden_layers=4, num_attention_heads=heads, intermediate_size=4 * width
    )
    encoder = Encoder(config).to(HERE, dtype)
    sequences = [torch.randn(n, width, dtype=dtype) for n in lengths]
    packed = pack([[Span("x", {"x": x}, len(x))] for x in sequences]).to(HERE)
    rows = packed.data["x"]["x"][packed.row].requires_grad_()
    longest = max(lengths)
    padded = torch.zeros(len(lengths), longest, width, dtype=dtype)
    real = torch.zeros(len(lengths), longest, dtype=torch.bool)
    for number, x in enumerate(sequences):
        padded[number, : len(x)], real[number, : len(x)] = x, True
    padded, real = padded.to(HERE).requires_grad_(), real.to(HERE)
    where = padded_at(padded, real)
    weight = torch.randn(width, device=HERE, dtype=dtype)

    def run_packed() -> None:
        encoder.zero_grad(set_to_none=True)
        (encoder(rows, At(packed.layout))[0] @ weight).sum().backward()

    def run_padded() -> None:
        encoder.zero_grad(set_to_none=True)
        (encoder(padded.flatten(0, 1), where)[0] @ weight)[real.flatten()].sum().backward()

    with torch.no_grad():
        a, b = encoder(rows, At(packed.layout))[0], encoder(padded.flatten(0, 1), where)[0].view_as(padded)
        difference = max(float((a[packed.owner == i] - b[i, : lengths[i]]).abs().max()) for i in range(len(lengths)))
    gradients = []
    for run in (run_packed, run_padded):
        run()
        gradients.append(torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None]))
    slope = float((gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max())
    timing = alternate({"padded": run_padded, "packed": run_packed}, base="packed", rounds=rounds)
    fill = sum(lengths) / (len(lengths) * longest)
    kind = str(dtype).removeprefix("torch.")
    what = f"padded over packed, {fill:.0%} filled, {len(lengths)} sequences at width {width}, {kind}"
    more = {"largest_difference": difference, "largest_gradient_difference": slope}
    return line(what, "padded", timing, "padded", ">= 1.50", **more)
