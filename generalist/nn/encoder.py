"""The shared encoder: blocks of a token mixer, a channel mixer and a residual rule (pre-norm by default).

Uni-Perceiver spec 1.7: x += drop_path(g1 * mixer(LN1(x))); x += drop_path(g2 * mlp(LN2(x))), no final norm.
It works on packed tokens only and knows nothing of modalities, tasks, devices or parallelism.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from generalist.data.batch.types import Layout
from generalist.nn.attention.parts import Part, parts_of
from generalist.nn.attention.relative import with_offsets
from generalist.nn.attention.rotary import build_rotary
from generalist.nn.mixers.table import CHANNEL_MIXERS, TOKEN_MIXERS, build_mixer, mixer_names
from generalist.nn.spec import EncoderSpec


class DropPath(nn.Module):
    """Drops a whole residual branch of a sequence with probability `rate` in training (1603.09382)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        sizes = torch.tensor([[g.length, g.count] for g in layout.groups], device=x.device)
        lengths = sizes[:, 0].repeat_interleave(sizes[:, 1])
        keep = torch.rand(len(lengths), device=x.device) >= self.rate
        return x * (keep / (1 - self.rate)).repeat_interleave(lengths).unsqueeze(1).to(x.dtype)


class Block(GradientCheckpointingLayer):
    def __init__(self, config: EncoderSpec, mixer: str, channel_mixer: str) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.mixer = build_mixer(TOKEN_MIXERS[mixer], config, width, config.num_attention_heads)
        self.mixer.config = config  # type: ignore[assignment]
        self.norm2 = nn.LayerNorm(width, eps=eps)
        activation = ACT2FN[config.hidden_act]
        self.mlp = build_mixer(CHANNEL_MIXERS[channel_mixer], config, width, config.intermediate_size, activation)
        self.mlp_layout = getattr(self.mlp, "needs_layout", False)
        self.drop_path = DropPath(config.drop_path)
        self.post_norm, self.branch_norm = config.post_norm, config.branch_norm
        self.gamma1: nn.Parameter | None = None
        self.gamma2: nn.Parameter | None = None
        if config.layer_scale:
            self.gamma1 = nn.Parameter(torch.full((width,), config.layer_scale))
            self.gamma2 = nn.Parameter(torch.full((width,), config.layer_scale))

    def forward(self, x: Tensor, layout: Layout, parts: list[Part], prompts: Tensor | None = None) -> Tensor:
        more = (layout,) if self.mlp_layout else ()
        if self.post_norm:
            x = self.norm1(x + self.drop_path(self.mixer(x, layout, parts, prompts), layout))
            return self.norm2(x + self.drop_path(self.mlp(x, *more), layout))
        if self.branch_norm:
            x = self.added(x, self.norm1(self.mixer(x, layout, parts, prompts)), self.gamma1, layout)
            return self.added(x, self.norm2(self.mlp(x, *more)), self.gamma2, layout)
        prompts = None if prompts is None else self.norm1(prompts)
        x = self.added(x, self.mixer(self.norm1(x), layout, parts, prompts), self.gamma1, layout)
        return self.added(x, self.mlp(self.norm2(x), *more), self.gamma2, layout)

    def added(self, x: Tensor, mixed: Tensor, gamma: Tensor | None, layout: Layout) -> Tensor:
        """The residual rule: x + drop_path(gamma * mixed)."""
        return x + self.drop_path(mixed if gamma is None else gamma * mixed, layout)


class Encoder(nn.Module):
    """Packed tokens Float[N D] and their layout -> Float[N D]."""

    def __init__(self, config: EncoderSpec) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(config, m, c) for m, c in mixer_names(config))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.final_norm else None
        self.rotary, self.relative = build_rotary(config), config.relative > 0
        self.placed = self.rotary is not None or self.relative  # whether it looks at where tokens stand

    def forward(
        self,
        x: Tensor,
        layout: Layout,
        prompts: list[Tensor | None] | None = None,
        states: list[Tensor] | None = None,
    ) -> Tensor:
        """prompts: one Float[P D] (or None) a layer, seen by every token in front of its own sequence.

        states: a list to which the input of every layer is appended, or None.
        """
        layout = self.located(layout) if self.placed else layout
        parts = parts_of(layout, x)
        for i, layer in enumerate(self.layers):
            if states is not None:
                states.append(x)
            x = layer(x, layout, parts, prompts[i] if prompts else None)
        return x if self.norm is None else self.norm(x)

    def located(self, layout: Layout) -> Layout:
        """The layout with what the mixers of all layers take from places, computed once a pass."""
        place = layout.place
        if place is None:
            raise ValueError(
                "this model looks at places; give the encoder the layout of GeneralistModel.routed(packed)"
            )
        if self.rotary is not None:
            layout = replace(layout, angles=self.rotary.angles(place))
        return with_offsets(layout, place) if self.relative else layout
