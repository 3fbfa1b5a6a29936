"""SpectFormer's hierarchical form and SVT: every stage, the class-attention block and the logits; SVT's mixers and
wavelet transform alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from generalist.scripts.systems.plain import layer_norm, linear
from generalist.scripts.systems.reference import Reference, loaded
from generalist.tokenizers_mod.backbones.hierarchical import MARKS, Hierarchical
from generalist.tokenizers_mod.maps.scattering import Scattering
from generalist.tokenizers_mod.maps.wavelets import G0, G1, H0, H1, forward_transform, inverse_transform

BUFFERS = ("xfm.", "ifm.")  # filters that are written out here


def knows(reference: Reference) -> bool:
    network = reference.has("patch_embed1.conv.0.weight", "block1.0.norm1.weight", "post_network.0.attn.q.weight")
    return network or reference.has("complex_weight_ll") or "inverse_lowpass_in" in reference.tensors


def compute(reference: Reference) -> dict[str, Tensor]:
    if "inverse_lowpass_in" in reference.tensors:
        return transform(reference)
    return mixer(reference) if reference.has("complex_weight_ll") else network(reference)


def transform(reference: Reference) -> dict[str, Tensor]:
    reference.config.only(reference.name, J=1, biort="near_sym_b")
    x = reference["input"]
    edge = (0, x.shape[3] % 2, 0, x.shape[2] % 2)  # the authors' library repeats the last row and column of odd maps
    low, high = forward_transform(torch.nn.functional.pad(x, edge, mode="replicate"))
    back = inverse_transform(reference["inverse_lowpass_in"], reference["inverse_highpass_in"])
    for name in reference.tensors:
        if name.partition(".")[0] in ("fwd", "inv") and name[-1] in "ab":
            reference.asked.add(name)  # of further levels, which are not built
    taps = {"fwd.h0o": H0, "fwd.h1o": H1, "inv.g0o": G0, "inv.g1o": G1}
    found = {name: torch.tensor(own).view(1, 1, -1, 1) for name, own in taps.items()}
    found = {name: tensor for name, tensor in found.items() if name in reference.tensors}
    return found | {"lowpass": low, "highpass": high, "inverse_out": back}


def mixer(reference: Reference) -> dict[str, Tensor]:
    weights = {name: t for name, t in reference.weights.items() if not name.startswith(BUFFERS)}
    own, rows, columns = weights["complex_weight_ll"].shape
    halved = "conv.weight" in weights
    blocks = weights["complex_weight_lh_1"].shape[1]
    made = Scattering(2 * own if halved else own, "token" if halved else "channel", rows, columns, blocks)
    x = reference["input"].unflatten(1, (rows, columns))
    found = {"output": loaded(made, weights)(x, None).flatten(1, 2)}
    if not halved:
        found["lowpass"], found["highpass"] = forward_transform(x.permute(0, 3, 1, 2))
    return found


def network(reference: Reference) -> dict[str, Tensor]:
    config, weights, pixels = reference.config, reference.weights, reference["input"]
    mixers = []
    for stage in range(1, len(config["embed_dims"]) + 1):
        marks = [m for m in MARKS if f"block{stage}.0.attn.{m}" in weights]
        mixers.append(MARKS[marks[0]])
    made = loaded(
        Hierarchical(
            config["embed_dims"],
            config["depths"],
            config["num_heads"],
            config["mlp_ratios"],
            mixers,
            config["stem_hidden_dim"],
            pixels.shape[2:],
            pixels.shape[1],
        ),
        weights,
        Hierarchical.renamed,
    )
    found, x = {}, pixels
    for number, stage in enumerate(made.embed):
        x = made.embed[stage](x)
        found[f"stage{number}_in"] = x.flatten(1, 2)
        x = made.blocks[stage](x)
        found[f"stage{number}_blocks_out"] = x.flatten(1, 2)
        if stage != list(made.embed)[-1]:
            x = made.norms[stage](x).permute(0, 3, 1, 2)
    tokens = x.flatten(1, 2)
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1)
    tokens = found["class_block_out"] = class_block(tokens, reference.under("post_network.0."), config["num_heads"][-1])
    last: nn.Module = list(made.norms.values())[-1]
    tokens = last(tokens)
    found["output"] = linear(weights, "head", tokens[:, 0])
    if "aux_head.weight" in weights:
        best = linear(weights, "aux_head", tokens[:, 1:]).amax(1)
        found["output_token_label_eval"] = found["output"] + 0.5 * best
        if config.get("token_label", "output_token_label_eval" not in reference.tensors):  # what the network puts out
            found["output"] = found["output_token_label_eval"]
    config.get("token_label")
    return found


def class_block(x: Tensor, weights: dict[str, Tensor], heads: int) -> Tensor:
    """The first token of Float[B n D] looks at all and is changed; the others stay."""
    normed = layer_norm(weights, "norm1", x, 1e-6)
    q = linear(weights, "attn.q", normed[:, :1]).unflatten(-1, (heads, -1)).transpose(1, 2)
    k, v = linear(weights, "attn.kv", normed).unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4)
    first = x[:, :1] + linear(weights, "attn.proj", scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    inner = gelu(linear(weights, "mlp.fc1", layer_norm(weights, "norm2", first, 1e-6)))
    return torch.cat([first + linear(weights, "mlp.fc2", inner), x[:, 1:]], dim=1)
