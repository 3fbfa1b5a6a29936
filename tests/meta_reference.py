"""The Meta-Transformer reference's files as inputs, weights and encoders of this framework."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from generalist.convert.meta_transformer import encoder_tensors, sizes
from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.nn.encoder import Encoder

CLOSE = {"atol": 2e-6, "rtol": 2e-6}
ENCODED = {"atol": 2e-6, "rtol": 1e-5}  # two blocks of float32 sums in another order


def reader(folder: Path) -> Callable[[str], dict[str, torch.Tensor]]:
    """What reads a file of the folder by its name; a folder need not have all of them."""

    def read(name):
        path = folder / f"{name}.safetensors"
        if not path.is_file():
            pytest.skip(f"the folder has no {path.name}")
        return load_file(path)

    return read


@cache
def encoder_of(folder: Path) -> Encoder:
    """The shared encoder; how many heads it has no file tells: as many as its own output agrees with best."""
    r = load_file(folder / "encoder.safetensors")
    blocks = encoder_tensors(prefixed(r, "sd."))[0]
    layers, width, hidden = sizes(blocks)
    tried = []
    for heads in (h for h in range(1, width + 1) if width % h == 0):
        config = GeneralistConfig(
            hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=hidden
        )
        found = Encoder(config).eval()
        found.load_state_dict(blocks)
        tried.append((float((encode(found, r["in.tokens"], blocks=1) - r["out.block0"]).abs().max()), heads, found))
    return min(tried, key=lambda t: t[:2])[2]


def prefixed(tensors, prefix):
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def encode(encoder, tokens, blocks=None, each=None):
    """[B, n, D] through the packed encoder (or `blocks` of it), `each` added before every block."""
    b, n, width = tokens.shape
    layout = pack([[Span("x", {"t": torch.zeros(n)}, n)] for _ in range(b)]).layout
    x = tokens.reshape(b * n, width)
    with torch.no_grad():
        if each is None and blocks is None:
            return encoder(x, At(layout))[0].view(b, n, width)
        for layer in encoder.layers[: blocks or len(encoder.layers)]:
            x, _ = layer(x if each is None else x + each.reshape(b * n, width), At(layout))
    return x.view(b, n, width)


def tokens_of(modality, raws, weights, rename=None, strict=True):
    """Raw inputs -> [B, n, D] with the reference's weights."""
    weights = weights if rename is None else rename(weights)
    module = modality.build(width_of(weights)).eval()
    module.load_state_dict(weights, strict=strict)
    spans = [modality.span(modality.read(raw)) for raw in raws]
    with torch.no_grad():
        return torch.stack([module(span.data) for span in spans]), spans


def width_of(weights):
    """The number of outputs of a tokenizer's first linear map."""
    return len(next(value for name, value in weights.items() if name.endswith("weight")))


def patches(weights):
    """A convolution with kernel = stride as the linear map it is."""
    return {"proj.weight": weights["weight"].flatten(1), "proj.bias": weights["bias"]}


def pictures(tensor):
    """The originals read normalised pixels: undo the 0..1 rule of arrays by going in behind `read`."""
    return list(tensor)
