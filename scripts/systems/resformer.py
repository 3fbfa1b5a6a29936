"""ResFormer: the global positions, one attention with its local term, the whole network at every size, and the loss of
a step with its gradients."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d, cross_entropy, layer_norm, smooth_l1_loss

from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.nn.encoder import Encoder
from generalist.nn.mixers.attention import Attention
from generalist.recipe.encoder import EncoderSpec
from generalist.scripts.systems.plain import NAMES, linear
from generalist.scripts.systems.reference import Reference, loaded

EPS = 1e-6
LOCAL = "get_v"  # the authors' name of the local term


def knows(reference: Reference) -> bool:
    return reference.has("pos_embed.embed_layer.weight", f"blocks.0.attn.{LOCAL}.weight")


def compute(reference: Reference) -> dict[str, Tensor]:
    config = reference.config
    sizes = [name.removeprefix("input_") for name in reference.tensors if name.startswith("input_")]
    found = {f"global_pe_{size}": globally(reference, int(size)) for size in sizes}
    found |= {f"output_{size}": output(reference, size)[0] for size in sizes}
    if "attn_input" in reference.tensors:
        x, own = reference["attn_input"], reference.under("blocks.0.attn.")
        mixer = Attention(x.shape[-1], config["num_heads"], local=own[f"{LOCAL}.weight"].shape[-1], local_shared=True)
        names = {"qkv": "qkv", "proj": "out", LOCAL: "local.filter"}
        loaded(mixer, own, lambda key: names[key.rpartition(".")[0]] + "." + key.rpartition(".")[2])
        found["attn_output"] = mixer(x.flatten(0, 1), placed(x)).view(x.shape)
    return found | step(reference) if "labels" in reference.tensors else found


def globally(reference: Reference, size: int) -> Tensor:
    """Sines of the places of whole rows and columns, a depthwise 3x3 over them beside; 0 at the class token."""
    weights, config = reference.weights, reference.config
    width, cells = config["embed_dim"], size // config["patch_size"]
    at = (torch.arange(cells) + 1) / (cells + 1e-6) * 2 * math.pi
    power = 10000 ** (2 * (torch.arange(width // 2) // 2) / (width // 2))
    angle = at[:, None] / power
    half = torch.where(torch.arange(width // 2) % 2 == 0, angle.sin(), angle.cos())
    rows, columns = half[:, None].expand(-1, cells, -1), half[None].expand(cells, -1, -1)
    waves = torch.cat([rows, columns], dim=-1).permute(2, 0, 1)[None]
    name = "pos_embed.embed_layer"
    made = conv2d(waves, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1, groups=width)
    return torch.cat([torch.zeros(1, 1, width), made.flatten(2).transpose(1, 2)], dim=1)


def placed(x: Tensor) -> At:
    """Where [class token, square map] stands in a batch Float[B 1+n D]."""
    side = math.isqrt(x.shape[1] - 1)
    rows = [
        Span("x", {"x": torch.zeros(1, 1)}, 1),
        Span("x", {"x": torch.zeros(side**2, 1)}, side**2, grid=(side, side)),
    ]
    return At(pack([rows for _ in x]).layout)


def named(key: str) -> str | None:
    """Our encoder's name of an official weight of a block."""
    for theirs, ours in {**NAMES, f"attn.{LOCAL}": "mixer.local.filter"}.items():
        key = key.replace(theirs, ours)
    return key.replace("blocks.", "layers.") if key.startswith("blocks.") else None


def encoder(reference: Reference) -> Encoder:
    config, weights = reference.config, reference.weights
    width, local = config["embed_dim"], weights[f"blocks.0.attn.{LOCAL}.weight"].shape[-1]
    made = Encoder(
        EncoderSpec(
            width=width,
            layers=config["depth"],
            heads=config["num_heads"],
            hidden=int(config["mlp_ratio"] * width),
            eps=EPS,
            local=local,
            local_shared=True,
        )
    )
    return loaded(made, weights, named)


def output(
    reference: Reference, size: str, weights: dict[str, Tensor] | None = None, made: Encoder | None = None
) -> tuple[Tensor, Tensor]:
    """Logits of the pictures of a size, and the class token behind the last norm."""
    weights = weights or reference.weights
    kernel, bias = weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"]
    patches = conv2d(reference[f"input_{size}"], kernel, bias, reference.config["patch_size"]).flatten(2)
    x = torch.cat([weights["cls_token"].expand(patches.shape[0], -1, -1), patches.transpose(1, 2)], dim=1)
    x = x + globally(reference, int(size))
    hidden = (made or encoder(reference))(x.flatten(0, 1), placed(x))[0].view(x.shape)
    own = layer_norm(hidden, hidden.shape[-1:], weights["norm.weight"], weights["norm.bias"], EPS)[:, 0]
    return linear(weights, "head", own), own


@torch.enable_grad()
def step(reference: Reference) -> dict[str, Tensor]:
    """1/R sum_r [cross-entropy_r + alpha smoothL1(class token_r, that of the size before, taken as given)]."""
    config, labels = reference.config, reference["labels"]
    config.only(reference.name, target="cls", loss="smooth-l1")
    config.only(reference.name, **{"step loss": "mean over resolutions"})
    weights = {name: tensor.clone().requires_grad_() for name, tensor in reference.weights.items()}
    made, found, before = encoder(reference), {}, None
    for size in config["resolutions"]:
        logits, token = output(reference, str(size), weights, made)
        loss = cross_entropy(logits, labels)
        if before is not None:
            target = layer_norm(before.detach(), before.shape[-1:])
            loss = loss + config["alpha"] * smooth_l1_loss(token, target)
        found[f"loss_{size}"], before = loss.view(1), token
    total = torch.cat(list(found.values())).mean().view(1)
    total.backward()
    found["loss"] = total
    grads = {name: tensor.grad for name, tensor in weights.items()}
    own = dict(made.named_parameters())
    grads |= {name: own[ours].grad for name in weights if (ours := named(name)) is not None}
    found |= {f"grad.{name}": grad for name, grad in grads.items() if grad is not None}
    return {name: tensor.detach() for name, tensor in found.items()}
