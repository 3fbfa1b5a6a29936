"""What the encoder asks of its description; `GeneralistConfig` is one."""

from __future__ import annotations

from typing import Any, Protocol


class EncoderSpec(Protocol):
    """Sizes and choices of the encoder and of what is read off it. Meanings stand in `generalist.model.config`."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str
    layer_norm_eps: float
    layer_scale: float
    drop_path: float
    final_norm: bool
    mixers: str | list[str]
    channel_mixers: str | list[str]
    prompts: int
    separate_prompts: bool
    linear_heads: dict[str, int] | None
    output_size: int
    post_norm: bool
    branch_norm: bool
    inner_norm: bool
    rotary: dict[str, Any] | None
    relative: int
    pooling: str
    pooler: dict[str, Any] | None
    moe_placement: str
    moe_parts: str
    moe_experts: int
    moe_top: int
    moe_router: str
    moe_noise: float
    moe_gelu: bool
    tasks: list[str] | None
    modalities: dict[str, Any] | None
