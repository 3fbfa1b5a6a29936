"""Published networks and mixers on scikit-learn's digits: python -m scripts.systems_digits [KIND ...] --epochs 8.

1,437 pictures to learn, 360 to test (split at random, seed 0), 8 x 8 pixels repeated to 32 x 32, three equal channels;
the last map's mean (of retention, which is causal, a token behind the patches) and a linear head; AdamW, one cycle to
1e-3, weight decay .05, batches of 64. A line a kind.
Kinds are networks of our stages, and mixers in all four layers of a plain encoder of width 48 over 8 x 8 patches.
`ASKED`: what a first version must reach, a few points below single runs of the authors' modules.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.nn.encoder import Encoder
from generalist.recipe.encoder import EncoderSpec
from generalist.tokenizers_mod.backbones.stages import network_class
from generalist.tokenizers_mod.maps.base import OwnLinear

FRAME = {"depths": [2, 1, 1], "heads": [2, 4, 4], "ratios": [2, 2, 2], "stem": 16, "size": [32, 32]}
BLOCKS = [[1, [32, 2, 16], [32, 64], 1]] * 2, [[1, [48, 3, 16], [48, 96], 1]] * 2
KINDS: dict[str, dict[str, Any]] = {
    "crossformer": {"width": 32, "depths": [2, 2], "heads": [2, 4], "groups": [4, 4], "intervals": [2, 1]}
    | {"ratios": [4, 4], "merges": [[2, 4]]},
    "s2a": {"widths": [32, 48], "depths": [2, 2], "heads": [2, 4], "reduces": [2, 1], "ratios": [2, 2]},
    "spectformer": {"width": 48, "depth": 6, "spectral": 4, "heads": 6, "ratio": 2, "patch": 4, "size": [32, 32]},
    "spectformer_h": FRAME | {"widths": [32, 48, 48], "mixers": ["spectral_gate", "spectral_gate", "attention"]},
    "svt": FRAME | {"widths": [64, 48, 48], "mixers": ["scattering", "attention", "attention"]},
    "t2t": {"width": 48, "inner": 16},
    "vit_res": {"definition": [[4, 32], *BLOCKS[0], [3, 32, 48], *BLOCKS[1]], "patch": 4, "size": [32, 32]},
}
KINDS["rmt"] = {"widths": [16, 32, 48, 64], "depths": [1, 1, 2, 1], "heads": [2, 2, 4, 4], "spans": [4, 4, 6, 6]}
HYENA = [{"kind": "hyena", "filter": "grid", "direction": "seq" if i % 2 == 0 else "standard"} for i in range(4)]
# what of an encoder each is: mixers in all four layers where no list is given
MIXERS: dict[str, dict[str, Any]] = {name: {"mixers": name} for name in ("attention", "retention", "decay_attention")}
MIXERS["retention"] = {"mixers": {"kind": "retention", "direction": "causal"}, "last": True}
MIXERS |= {name: {"mixers": name} for name in ("decay_axes", "window", "strip", "convolution", "pool", "random")}
MIXERS |= {
    "hyena": {"mixers": HYENA},
    "spectral_gate": {"mixers": {"kind": "spectral_gate", "rows": 8, "columns": 8}},
    "scattering": {"mixers": {"kind": "scattering", "rows": 8, "columns": 8}},
    "local": {"local": 3},
    "activator": {"mixers": ["activator", "activator", "activator", "attention"]},
    "identity": {"mixers": ["identity", "identity", "identity", "attention"]},
    "minimal_attention": {"mixers": {"kind": "minimal_attention", "qk": "shared"}, "channel_mixers": "none"},
    "minimal_bare": {"mixers": {"kind": "minimal_attention", "vo": "none"}, "channel_mixers": "none"},
}
EVERY = [*MIXERS, *KINDS]
EPOCHS = {"retention": 16}
ASKED = {"rmt": 0.96, "retention": 0.86, "hyena": 0.93, "spectformer": 0.95, "svt": 0.97, "s2a": 0.90}
ASKED |= {"crossformer": 0.89, "t2t": 0.95}


class Plain(nn.Module):
    """Patches of 4 px with positions, then an encoder of ours: Float[B 3 32 32] -> [Float[B 48 8 8]].

    last: the patches as a sequence, a learned token behind them, and what that says alone, Float[B 48 1 1] (ViR). What
    reads in order knows it without positions, and starts as torch does: products of small weights say nothing.
    """

    def __init__(self, last: bool = False, **keys: Any) -> None:
        super().__init__()
        self.token = nn.Parameter(0.02 * torch.randn(48)) if last else None
        self.patches, self.channels = nn.Conv2d(3, 48, 4, 4), [48]
        self.positions = nn.Parameter(0.02 * torch.randn(64, 48))
        self.encoder = Encoder(EncoderSpec(width=48, heads=4, hidden=96, layers=4, final_norm=True, **keys))
        for module in () if last else self.modules():  # as vision transformers start: positions weigh beside patches
            if isinstance(module, nn.Linear | nn.Conv2d) and not isinstance(module, OwnLinear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        x = self.patches(pixels).flatten(2).transpose(1, 2) + self.positions
        if self.token is not None:
            x = torch.cat([x, self.token.expand(len(x), 1, -1)], 1)
            span = Span("series", {"x": torch.zeros(65, 1)}, 65)
            found = self.encoder(x.flatten(0, 1), At(pack([[span]] * len(x)).layout))[0]
            return [found.view(len(x), 65, -1)[:, -1, :, None, None]]
        span = Span("image", {"x": torch.zeros(64, 1)}, 64, grid=(8, 8))
        at = At(pack([[span]] * len(x)).layout)
        return [self.encoder(x.flatten(0, 1), at)[0].view(len(x), 8, 8, -1).permute(0, 3, 1, 2)]


class Classifier(nn.Module):
    """The last map's mean, normalised, through a linear."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.network = Plain(**MIXERS[kind]) if kind in MIXERS else network_class(kind)(**KINDS[kind])
        width = self.network.channels[-1]
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 10))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.network(pixels)[-1].flatten(2).mean(2))


def digits() -> tuple[Tensor, Tensor]:
    """Float[1797 3 32 32] in -1 .. 1 and Int[1797], shuffled."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    maps = torch.from_numpy(pixels).float().view(-1, 1, 8, 8)[order] / 8 - 1
    return maps.repeat_interleave(4, 2).repeat_interleave(4, 3).expand(-1, 3, -1, -1), torch.from_numpy(labels)[order]


def trained(kind: str, epochs: int, seed: int) -> tuple[float, int, float]:
    """Accuracy on the test pictures, parameters, seconds of processor time."""
    torch.manual_seed(seed)
    model, (pixels, labels), began = Classifier(kind), digits(), time.process_time()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    steps = epochs * (1437 // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(1437)
        for batch in order[: 1437 // 64 * 64].split(64):
            optimizer.zero_grad()
            cross_entropy(model(pixels[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        right = (model(pixels[1437:]).argmax(1) == labels[1437:]).float().mean()
    return float(right), sum(p.numel() for p in model.parameters()), time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kinds", nargs="*", choices=[*EVERY, []], help="all where none is named")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(f"{'kind':<16}{'parameters':>12}{'epochs':>8}{'accuracy':>10}{'seconds':>9}")
    for kind in args.kinds or EVERY:
        accuracy, parameters, seconds = trained(kind, args.epochs, args.seed)
        print(f"{kind:<16}{parameters:>12,}{args.epochs:>8}{accuracy:>10.3f}{seconds:>9.0f}", flush=True)


if __name__ == "__main__":
    main()
