"""Our encoder's training step over that of the published Uni-Perceiver code, where a checkout of it is given.

    UNI_PERCEIVER=FOLDER python -m scripts.bench --only published

Its code is read from FOLDER/uniperceiver/modeling/layers and run; nothing of it is kept here. Without the variable the
section says that it was left out.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.nn.encoder import Encoder
from generalist.recipe.encoder import EncoderSpec
from generalist.scripts.bench_training import line
from generalist.scripts.timing import alternate

WHERE = "UNI_PERCEIVER"
WIDTH, LAYERS, HEADS = 384, 6, 6
BATCHES = {
    "32 pictures of 50 tokens": [50] * 32,
    "32 texts of 6 to 68 tokens": [6 + 2 * i for i in range(32)],
}


def measure(rounds: int) -> list[dict[str, Any]]:
    """A step - forward, backward, clipping, AdamW; drop path .1 - on the same sequences, padded for theirs."""
    folder = os.environ.get(WHERE, "")
    if not folder:
        return [{"what": f"left out: set {WHERE} to a folder with the published code"}]
    made = layers_of(Path(folder))
    found = []
    for name, lengths in BATCHES.items():
        calls = {"ours": stepping(Ours(lengths)), "published": stepping(Published(made, lengths))}
        timing = alternate(calls, "published", rounds, warm=1)
        found.append(
            line(f"a step of {LAYERS} layers at width {WIDTH}, {name}", "published", timing, "ours", "<= 1.00")
        )
    return found


def layers_of(folder: Path) -> ModuleType:
    """The file of the published encoder layer, its neighbours around it."""
    place = folder / "uniperceiver" / "modeling" / "layers"
    for name, path in (
        ("published", place / "__init__.py"),
        ("published.layer", place / "transformer_encoder_layer.py"),
    ):
        spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=[str(place)])
        assert spec is not None and spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        if name != "published":
            module.__package__ = "published"
        spec.loader.exec_module(module)
    return module


class Ours(nn.Module):
    def __init__(self, lengths: list[int]) -> None:
        super().__init__()
        spec = EncoderSpec(width=WIDTH, layers=LAYERS, heads=HEADS, hidden=4 * WIDTH, drop_path=0.1, layer_scale=1e-3)
        self.encoder = Encoder(spec)
        packed = pack([[Span("x", {"x": torch.zeros(n, 1)}, n).ask([0])] for n in lengths])
        self.layout, self.x = packed.layout, torch.randn(packed.tokens, WIDTH)

    def forward(self) -> Tensor:
        out, _ = self.encoder(self.x, At(self.layout, only=True))
        assert isinstance(out, Tensor)
        return out


class Published(nn.Module):
    def __init__(self, made: ModuleType, lengths: list[int]) -> None:
        super().__init__()
        prompts = SimpleNamespace(DEEP_PROMPT=False)
        config = SimpleNamespace(
            SOLVER=SimpleNamespace(FUSED_LAYERNORM=False), MODEL=SimpleNamespace(PROMPT_EMBED=prompts)
        )
        shape: dict[str, Any] = {"d_model": WIDTH, "nhead": HEADS, "dim_feedforward": 4 * WIDTH, "dropout": 0.0}
        more: dict[str, Any] = {"drop_path_ratio": 0.1, "activation": "gelu", "layer_scale": True, "cfg": config}
        each = (made.TransformerEncoderLayer(**shape, **more, batch_first=True, norm_first=True) for _ in range(LAYERS))
        self.layers = nn.ModuleList(each)
        self.x = torch.randn(len(lengths), max(lengths), WIDTH)
        padding = torch.arange(max(lengths)) >= torch.tensor(lengths).unsqueeze(1)
        self.padding = padding if bool(padding.any()) else None

    def forward(self) -> Tensor:
        x = self.x
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=self.padding)
        return x[:, 0]


def stepping(model: nn.Module) -> Any:
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    model.train()

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        model().square().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()

    return run
