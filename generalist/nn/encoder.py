"""The shared encoder: blocks of a token mixer, a channel mixer and a residual rule (pre-norm by default).

Uni-Perceiver spec 1.7: x += drop_path(g1 * mixer(LN1(x))); x += drop_path(g2 * mlp(LN2(x))), no final norm.
It works on packed tokens only and knows nothing of modalities, tasks, devices or parallelism.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generalist.data.batch.at import At
from generalist.nn.mixers.base import Mixer
from generalist.nn.mixers.channel import Nothing
from generalist.nn.mixers.maps import GridMixer
from generalist.nn.mixers.table import channel_mixer, layers_of, stage, token_mixer
from generalist.nn.spec import EncoderSpec, LayerSpec
from generalist.nn.steps.base import Step


class DropPath(nn.Module):
    """Drops a whole residual branch of a sequence with probability `rate` in training (1603.09382)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "N D"], at: At) -> Float[Tensor, "N D"]:
        if not self.training or self.rate == 0:
            return x
        sizes = torch.tensor([[g.length, g.count] for g in at.groups], device=x.device)
        lengths = sizes[:, 0].repeat_interleave(sizes[:, 1])
        keep = torch.rand(len(lengths), device=x.device) >= self.rate
        return x * (keep / (1 - self.rate)).repeat_interleave(lengths).unsqueeze(1).to(x.dtype)


class Block(Step):
    """A token mixer and a channel mixer, each on a residual branch; tokens and width stay.

    gradient_checkpointing and the function beside it are set by transformers' `gradient_checkpointing_enable`.
    """

    gradient_checkpointing = False
    _gradient_checkpointing_func: Callable[..., Any]

    def __init__(self, config: EncoderSpec, layer: LayerSpec) -> None:
        super().__init__()
        self.width = width = layer.width
        eps = config.eps
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.mixer = token_mixer(config, layer)
        mlp = channel_mixer(config, layer)
        alone = isinstance(mlp, Nothing)
        self.norm2 = nn.Identity() if alone else nn.LayerNorm(width, eps=eps)
        self.mlp = mlp
        self.drop_path = DropPath(config.drop_path)
        self.post_norm, self.branch_norm = layer.norm == "post", layer.norm == "branch"
        self.gamma1: nn.Parameter | None = None
        self.gamma2: nn.Parameter | None = None
        if config.layer_scale:
            self.gamma1 = nn.Parameter(torch.full((width,), config.layer_scale))
            self.gamma2 = None if alone else nn.Parameter(torch.full((width,), config.layer_scale))

    def forward(self, x: Float[Tensor, "N D"], at: At) -> tuple[Float[Tensor, "M E"], At]:
        """Float[N D] -> Float[N D], or where `at.only` and the channel mixer allows it Float[W D], the tokens asked."""
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(self.mixed, x, at)
        return self.mixed(x, at)

    def mixed(self, x: Float[Tensor, "N D"], at: At) -> tuple[Float[Tensor, "M E"], At]:
        """What `forward` gives, made anew in the backward pass where the layer is recomputed."""
        only = at.only and self.mlp.apart
        after = at.of_asked() if only else at
        own = x.index_select(0, at.asked) if only else x
        mixer, mlp = replace(at.inside("mixer"), only=only and self.mixer.narrows), after.inside("mlp")
        if at.prompts is not None and not (self.post_norm or self.branch_norm):
            mixer = replace(mixer, prompts=self.norm1(at.prompts))
        mixed = self.mixer(x if self.post_norm or self.branch_norm else self.norm1(x), mixer)
        if only and not self.mixer.narrows:
            mixed = mixed.index_select(0, at.asked)
        if self.post_norm:
            x = self.norm1(own + self.drop_path(mixed, after))
            return self.norm2(x + self.drop_path(self.mlp(x, mlp), after)), after
        if self.branch_norm:
            x = self.added(own, self.norm1(mixed), self.gamma1, after, "mixer")
            return self.added(x, self.norm2(self.mlp(x, mlp)), self.gamma2, after, "mlp"), after
        x = self.added(own, mixed, self.gamma1, after, "mixer")
        return self.added(x, self.mlp(self.norm2(x), mlp), self.gamma2, after, "mlp"), after

    def added(self, x: Tensor, mixed: Tensor, gamma: Tensor | None, at: At, name: str) -> Tensor:
        """The residual rule: x + drop_path(gamma * mixed)."""
        branch = self.drop_path(mixed if gamma is None else gamma * mixed, at)
        return x + (at.inside(name).tap("branch", branch) if at.taps else branch)


class Encoder(nn.Module):
    """Packed tokens Float[N D] and where they stand -> Float[N' D'] and where those stand."""

    def __init__(self, config: EncoderSpec) -> None:
        super().__init__()
        self.layers, width = nn.ModuleList(), config.width
        for layer in layers_of(config):
            if layer.stage:
                self.layers.append(stage(layer, width))
            self.layers.append(Block(config, layer))
            width = layer.width
        self.width = width  # of what comes out
        self.placed = any(m.positions for m in self.modules() if isinstance(m, Mixer))  # looks at where tokens stand
        changing = any(not isinstance(layer, Block) for layer in self.layers)
        # asks which tokens are whose: mixes maps, or merges tokens and drops some
        self.mapped = changing or any(isinstance(m, GridMixer) for m in self.modules())
        self.norm = nn.LayerNorm(width, eps=config.eps) if config.final_norm else None

    def forward(self, x: Float[Tensor, "N D"], at: At) -> tuple[Float[Tensor, "M E"], At]:
        """Where `at.only`, the last layer makes the tokens asked alone: queries of theirs, keys and values of all."""
        x = at.tap("embedded", x)
        only = at.only and not at.taps  # whoever looks on sees all
        of_blocks = iter(at.layer_prompts or ())
        for number, layer in enumerate(self.layers):
            prompts = next(of_blocks, None) if isinstance(layer, Block) else None
            if prompts is not None:  # as wide as the widest layer; a narrower one reads their first channels
                prompts = prompts[:, : layer.width]
            last = number == len(self.layers) - 1
            here = replace(at, name=f"layers.{number}", layer=number, prompts=prompts)
            x, at = layer(x, replace(here, only=only and last and at.layout.some))
            x = replace(at, name="").tap(f"layers.{number}", x)
        return (x if self.norm is None else self.norm(x)), replace(at, name="", prompts=None)
