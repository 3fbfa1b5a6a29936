"""The official Uni-Perceiver key layouts and this model's, name by name (spec section 6); no tensor is computed here.

Two dialects: "torch" (fused_encoder., in_proj_weight, gamma_1) and the older "deepspeed" (encoder., attention.self.
qkv_proj, residual_scale). Both are first brought to "torch", then to this model's names.
"""

from __future__ import annotations

import re

from torch import Tensor

from generalist.convert.uni_perceiver.expert_keys import is_expert_key
from generalist.data.base.errors import UserError

SCALES = (
    "img_cls",
    "video_cls",
    "text_mlm",
    "text_caption",
    "caption",
    "mlm",
    "retrieve",
    "tqa_mlm",
    "tqa_caption",
    "tqa_retrieve",
    "downstream",
)  # spec 1.8

# the logit scales of names that a client gives, and of written words: the first that a file has (spec 1.8, 1.9)
ZERO_SHOT = ("img_cls", "video_cls", "retrieve", "downstream")
WRITING = ("caption", "text_caption")

# logit scale -> what is asked under it; "writes": answers are written word by word
TASKS: dict[str, dict[str, object]] = {
    "img_cls": {"kind": "classify", "inputs": ["image"]},
    "video_cls": {"kind": "classify", "inputs": ["video"]},
    "retrieve": {"kind": "retrieve", "inputs": ["image"]},
    "caption": {"kind": "describe", "inputs": ["image"], "writes": True},
    "text_mlm": {"kind": "fill", "inputs": ["text"]},
    "downstream": {"kind": "answer", "inputs": ["image", "text"]},
}

# old DeepSpeed name -> torch name, inside one layer
_OLD_LAYER = (
    ("attention.self.qkv_proj.deepspeed_moe.", "self_attn.qkv_proj."),
    ("attention.output.dense.deepspeed_moe.", "self_attn.dense."),
    ("ffn.dense.deepspeed_moe.", "linear1."),
    ("ffn.dense2.deepspeed_moe.", "linear2."),
    ("attention.self.qkv_proj.", "self_attn.in_proj_"),
    ("attention.output.dense.", "self_attn.out_proj."),
    ("attention_output.residual_scale", "gamma_1"),
    ("ffn.dense.", "linear1."),
    ("ffn.dense2.", "linear2."),
    ("ffn_output.residual_scale", "gamma_2"),
    ("LayerNormModules.0.", "norm1."),
    ("LayerNormModules.1.", "norm2."),
)
_OLD = re.compile(r"^encoder\.(?:layers?\.)?(\d+)\.(.*)$")

# torch name -> this model's name, inside one layer; MoE files name the attention's linears as in the second pair
LAYER = {
    "gamma_1": "gamma1",
    "gamma_2": "gamma2",
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "self_attn.in_proj_weight": "mixer.qkv.weight",
    "self_attn.in_proj_bias": "mixer.qkv.bias",
    "self_attn.out_proj.weight": "mixer.out.weight",
    "self_attn.out_proj.bias": "mixer.out.bias",
    "linear1.weight": "mlp.up.weight",
    "linear1.bias": "mlp.up.bias",
    "linear2.weight": "mlp.down.weight",
    "linear2.bias": "mlp.down.bias",
}
MOE_DENSE = {
    "self_attn.qkv_proj.weight": "self_attn.in_proj_weight",
    "self_attn.qkv_proj.bias": "self_attn.in_proj_bias",
    "self_attn.dense.weight": "self_attn.out_proj.weight",
    "self_attn.dense.bias": "self_attn.out_proj.bias",
}
TOP = {
    "token_embed.embeddings.weight": "tokenizers.text.token.weight",
    "token_embed.embeddings_norm.weight": "embedding_norm.weight",
    "token_embed.embeddings_norm.bias": "embedding_norm.bias",
    "token_embed.embeddings_pos.position_embeddings.weight": "tokenizers.text.position.weight",
    "token_embed.s_token_bias": "tokenizers.text.spe_bias",
    "video_embed.embeddings.bias": "tokenizers.image.projection.bias",
    "video_embed.embeddings_st_pos.spatial_pos_embed.weight": "tokenizers.image.spatial",
    "video_embed.embeddings_st_pos.temporal_pos_embed.weight": "tokenizers.image.temporal.weight",
    "loss_prepare.ln_post.weight": "head.norm.weight",
    "loss_prepare.ln_post.bias": "head.norm.bias",
    "loss_prepare.proj.weight": "head.projection.weight",
    "loss_prepare.proj.bias": "head.projection.bias",
}
CONV = "video_embed.embeddings.weight"
TYPES = "token_embed.embeddings_token_type.weight"
VISION_TYPE = "video_embed.embeddings_type.weight"
SPATIAL = "video_embed.embeddings_st_pos.spatial_pos_embed.weight"
TEMPORAL = "video_embed.embeddings_st_pos.temporal_pos_embed.weight"
PROMPT = "deep_prompt_embedding.embedding.weight"
CANDIDATE_PROMPT = "deep_prompt_embedding.target_embedding.weight"
ANCHOR = "token_embed.embeddings.weight"  # every dialect has it: what stands in front of it is a prefix


LAYERS = re.compile(r"fused_encoder\.layers\.(\d+)\.(.*)$")
HIDDEN = re.compile(r"linear1\.(experts\.deepspeed_experts\.\d+\.)?weight$")
HEAD = ("fc_prompt.weight", "fc_prompt.bias", "similarity_weight")
SCALE = "loss_prepare.logit_scale_"
# tensors with more axes than one; scales and similarity_weight are single numbers
AXES = {ANCHOR: 2, TYPES: 2, VISION_TYPE: 2, CONV: 4, SPATIAL: 2, TEMPORAL: 2, "fc_prompt.weight": 2}
AXES |= {"token_embed.embeddings_pos.position_embeddings.weight": 2, "loss_prepare.proj.weight": 2}


def known(name: str) -> bool:
    """Whether a torch-dialect name is one of an official file."""
    if match := LAYERS.match(name):
        inner = match[2]
        return inner in LAYER or inner in (PROMPT, CANDIDATE_PROMPT) or is_expert_key(inner)
    return name in TOP or name in AXES or name in HEAD or name.startswith(SCALE)


def check_shape(name: str, value: Tensor) -> None:
    """UserError for a tensor that has too few or too many axes, no entry, or a patch that is not square."""
    one = name.startswith(SCALE) or name == "similarity_weight"
    if one and value.numel() != 1:
        raise UserError(f"{name} has shape {tuple(value.shape)}, it is one number")
    if name in AXES and (value.ndim != AXES[name] or not value.numel()):
        raise UserError(f"{name} has shape {tuple(value.shape)}, it has {AXES[name]} axes")
    match = LAYERS.match(name)
    inner = match[2] if match else ""
    wanted = 2 if inner in (PROMPT, CANDIDATE_PROMPT) or HIDDEN.match(inner) else 0
    if wanted and (value.ndim != wanted or not value.shape[1]):
        raise UserError(f"{name} has shape {tuple(value.shape)}, it has {wanted} axes")
    if name == CONV and value.shape[2] != value.shape[3]:
        raise UserError(f"{name} has shape {tuple(value.shape)}; only square patches convert")


def strip_prefix(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Names without a wrapper's prefix ("module.", "model."), and the names that do not carry it."""
    found = min((k[: -len(ANCHOR)] for k in tensors if k.endswith(ANCHOR)), key=len, default="")
    own = {k[len(found) :]: v for k, v in tensors.items() if k.startswith(found)}
    return own, [k for k in tensors if not k.startswith(found)]


def is_deepspeed(tensors: dict[str, Tensor]) -> bool:
    """Whether the names are of the old DeepSpeed dialect."""
    return any(_OLD.match(k) or k.startswith("predictor.") for k in tensors)


def to_torch_dialect(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Old DeepSpeed names -> torch names; tensors unchanged but for residual scales, which become Float[d]."""
    out = {}
    for name, value in tensors.items():
        if match := _OLD.match(name):
            number, rest = match.groups()
            for old, new in _OLD_LAYER:
                if rest.startswith(old):
                    rest = new + rest[len(old) :]
                    break
            value = value.reshape(-1) if rest in ("gamma_1", "gamma_2") else value
            name = f"fused_encoder.layers.{number}.{rest}"
        elif name.startswith("predictor."):
            name = "loss_prepare." + name[len("predictor.") :]
        out[name] = value
    return out


def to_deepspeed_dialect(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_torch_dialect`, residual scales as Float[1 1 d]."""
    out = {}
    for name, value in tensors.items():
        if match := re.match(r"^fused_encoder\.layers\.(\d+)\.(.*)$", name):
            number, rest = match.groups()
            moe = ".experts." in rest or ".gate." in rest
            for old, new in _OLD_LAYER:
                if ("deepspeed_moe" in old) == moe and rest.startswith(new):
                    rest = old + rest[len(new) :]
                    break
            value = value.reshape(1, 1, -1) if rest.endswith("residual_scale") else value
            name = f"encoder.layers.{number}.{rest}"
        elif name.startswith("loss_prepare."):
            name = "predictor." + name[len("loss_prepare.") :]
        out[name] = value
    return out
