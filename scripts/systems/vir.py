"""ViR: the retention of one block in its forms, and the whole network through our encoder, token after token too."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from generalist.data.batch.at import At
from generalist.nn.attention.kv_cache import Cache
from generalist.nn.attention.padded import padded_at
from generalist.nn.encoder import Encoder
from generalist.nn.mixers.retention import Retention, chunked, decays, parallel, recurrent
from generalist.recipe.encoder import EncoderSpec
from generalist.scripts.systems.plain import layer_norm, linear
from generalist.scripts.systems.reference import Reference, loaded

NAMES = {
    "blocks.": "layers.",
    "retention.qkv": "mixer.qkv",
    "retention.out_proj": "mixer.out",
    "mlp.fc1": "mlp.up",
    "mlp.fc2": "mlp.down",
    "ls1.gamma": "gamma1",
    "ls2.gamma": "gamma2",
}
EPS = 1e-6


def knows(reference: Reference) -> bool:
    return reference.has("blocks.0.retention.qkv.weight", "pos_embed")


def compute(reference: Reference) -> dict[str, Tensor]:
    config, weights = reference.config, reference.weights
    x = embedded(reference)
    hidden = encoder(reference, "softmax")(x.flatten(0, 1), padded_at(x, None))[0].view(x.shape)
    features = layer_norm(weights, "norm", hidden, EPS)
    read = -1 if config.get("global_pool", "token_last") == "token_last" else 0
    gammas = decays(config["num_heads"])
    found = {"output_parallel_logits": linear(weights, "head", features[:, read]), "tokens": x}
    found |= {"decay_gammas": gammas.exp()}
    for name in reference.tensors:
        if name.startswith("decay_mask_"):
            at = torch.arange(int(name.removeprefix("decay_mask_")))
            found[name] = torch.exp(gammas[:, None, None] * (at[:, None] - at).abs()).tril()
        if name.startswith("features_chunkwise_"):
            made = encoder(reference, "none", int(name.removeprefix("features_chunkwise_")))
            found[name] = layer_norm(weights, "norm", made(x.flatten(0, 1), padded_at(x, None))[0].view(x.shape), EPS)
        if name == "features_recurrent":
            found[name] = layer_norm(weights, "norm", stepwise(encoder(reference, "none"), x), EPS)
    return found | (forms(reference, reference["ret_input"]) if "ret_input" in reference.tensors else {})


def embedded(reference: Reference) -> Tensor:
    """Patches with positions, the class token where the configuration has it, and where it says so the reverse too."""
    config, weights = reference.config, reference.weights
    patches = conv2d(
        reference["input"], weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], config["patch_size"]
    )
    x = patches.flatten(2).transpose(1, 2)
    x = x + weights["pos_embed"]
    own = weights["cls_token"].expand(len(x), -1, -1)
    pool = config.get("global_pool", "token_last")
    x = torch.cat([x, own] if pool == "token_last" else [own, x], dim=1)
    return torch.cat([x, x.flip(1)], dim=1) if config.get("encode_mode") == "bidirectional" else x


def encoder(reference: Reference, normalise: str, chunk: int = 64) -> Encoder:
    config = reference.config
    width = config["embed_dim"]
    spec = EncoderSpec(
        width=width,
        layers=config["depth"],
        heads=config["num_heads"],
        hidden=int(width * config.get("mlp_ratio", 4)),
        eps=EPS,
        layer_scale=config.get("init_values") or 0.0,
        mixers={"kind": "retention", "direction": "causal", "normalise": normalise, "chunk": chunk},
    )
    made = Encoder(spec)
    named = {}
    for key, value in reference.weights.items():
        if key.startswith("blocks."):
            for theirs, ours in NAMES.items():
                key = key.replace(theirs, ours)
            named[key] = value
    return loaded(made, named)


def stepwise(made: Encoder, x: Tensor) -> Tensor:
    """Token after token, each layer's state kept from pass to pass as when an answer is written."""
    one, none = padded_at(x[:, :1], None).layout, torch.zeros(len(x), 0, dtype=torch.long)
    cache, out = Cache(none, none.bool()), []
    made(x[:, 0], At(one, cache=cache))  # nothing is read: every state is 0
    cache.append = True
    for at in range(x.shape[1]):
        out.append(made(x[:, at], At(one, cache=cache))[0])
        cache.passed()
    return torch.stack(out, dim=1)


def forms(reference: Reference, x: Tensor) -> dict[str, Tensor]:
    """Block 0's retention: the released softmax, one chunk, several, and token after token with its last state."""
    heads, weights = reference.config["num_heads"], reference.under("blocks.0.retention.")
    own = {key.replace("out_proj", "out"): value for key, value in weights.items()}
    made = loaded(Retention(x.shape[-1], heads, "causal", "softmax"), own)
    q, k, v = made.qkv(x).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    q, place = q * q.shape[-1] ** -0.5, torch.arange(x.shape[1])[None]
    gammas = decays(heads)
    soft = parallel(q, k, v, gammas, place, both=False, normalise="softmax")
    whole, (steps, state) = chunked(q, k, v, gammas, x.shape[1], both=False), recurrent(q, k, v, gammas)
    out = lambda t: made.out(t.transpose(1, 2).flatten(2))  # noqa: E731
    found = {"ret_parallel": out(soft), "ret_chunk_full": out(whole), "ret_recurrent": out(steps)}
    return found | {"ret_recurrent_last_state": state}
