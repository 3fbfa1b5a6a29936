"""ViR: the retention of one block in its forms, and the whole network through our encoder, token after token too."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from generalist.data.base.errors import UserError
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
    gammas = decays(config["num_heads"])
    found = {"output_parallel_logits": linear(weights, "head", pooled(reference, hidden)), "tokens": x}
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


def pooled(reference: Reference, hidden: Tensor) -> Tensor:
    """What the head reads, normalised: one token, or a mean behind as many tokens as there would be in front."""
    config, weights = reference.config, reference.weights
    pool = config.get("global_pool", "token_last")
    where = {"token_last": -1, "final": -1, "token": 0}
    if pool not in (*where, "avg"):
        raise UserError(f"{reference.name}: global_pool={pool!r} is not built; token_last, final, token and avg are")
    late = config.get("fc_norm") if config.get("fc_norm") is not None else pool == "avg"
    hidden = hidden if late else layer_norm(weights, "norm", hidden, EPS)
    prefix = 1 if config.get("class_token", True) else 0
    read = hidden[:, prefix:].mean(1) if pool == "avg" else hidden[:, where[pool]]
    return layer_norm(weights, "fc_norm", read, EPS) if late else read


def embedded(reference: Reference) -> Tensor:
    """Patches with positions, the class token where the configuration has it, and where it says so the reverse too."""
    config, weights = reference.config, reference.weights
    patches = conv2d(
        reference["input"], weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], config["patch_size"]
    )
    x = patches.flatten(2).transpose(1, 2)
    places, pool = weights["pos_embed"], config.get("global_pool", "token_last")
    alone = config.get("no_embed_class", True)  # whether the class token has no position
    x = x + places if alone else x
    if config.get("class_token", True) and pool in ("token_last", "token"):
        own = weights["cls_token"].expand(len(x), -1, -1)
        x = torch.cat([x, own] if pool == "token_last" else [own, x], dim=1)
    x = x if alone else x + places
    x = layer_norm(weights, "norm_pre", x, EPS) if config.get("pre_norm", False) else x
    return torch.cat([x, x.flip(1)], dim=1) if config.get("encode_mode") == "bidirectional" else x


def encoder(reference: Reference, normalise: str, chunk: int = 64) -> Encoder:
    config = reference.config
    config.only(reference.name, qk_norm=False)
    config.get("init_values")
    width = config["embed_dim"]
    spec = EncoderSpec(
        width=width,
        layers=config["depth"],
        heads=config["num_heads"],
        hidden=int(width * config.get("mlp_ratio", 4)),
        eps=EPS,
        layer_scale=float("blocks.0.ls1.gamma" in reference.weights),  # the weights say it
        mixers={"kind": "retention", "direction": "causal", "normalise": normalise, "chunk": chunk},
    )
    made = Encoder(spec)
    named = {name: torch.zeros_like(t) for name, t in made.state_dict().items() if name.endswith("qkv.bias")}
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
