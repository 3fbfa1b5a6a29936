"""What stands in the two slots of a block: token mixers and channel mixers, by explicit tables.

A mixer says what it needs: `needs_grid` (every span must carry its H x W), `needs_order`, `causal` (can
obey the causal blocks). A configuration that cannot work is refused when it is read. `stacked` names linears that hold
several matrices one above the other, {name: how many}: each is initialised on its own.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from data.types import Layout
from generalist.attention import attend
from generalist.config import GeneralistConfig
from generalist.moe import ExpertAttention, ExpertMLP, Experts, expert_spec, placed


class Attention(nn.Module):
    """Multi-head self-attention with one fused q, k, v matrix (1706.03762, section 3.2)."""

    needs_grid: ClassVar[bool] = False
    needs_order: ClassVar[bool] = False
    causal: ClassVar[bool] = True
    stacked: ClassVar[dict[str, int]] = {"qkv": 3}

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.config: Any = None  # the model's, set by the block: its attention implementation may change later
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, layout: Layout, masks: list[Tensor | None], prompts: Tensor | None = None) -> Tensor:
        """x: Float[N D]; prompts: Float[P D], already normalised like x -> Float[N D]."""
        q, k, v = self.qkv(x).view(x.shape[0], 3, self.heads, -1).unbind(1)
        extra = None
        if prompts is not None:
            _, pk, pv = self.qkv(prompts).view(len(prompts), 3, self.heads, -1).unbind(1)
            extra = (pk, pv)
        implementation = getattr(self.config, "_attn_implementation", None)
        return self.out(attend(q, k, v, layout, masks, extra, implementation).reshape(x.shape[0], -1))


class MLP(nn.Module):
    """linear - activation - linear, token by token."""

    def __init__(self, width: int, hidden: int, activation: nn.Module) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.activation = activation
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))


TOKEN_MIXERS: dict[str, type[nn.Module]] = {"attention": Attention, "expert_attention": ExpertAttention}
CHANNEL_MIXERS: dict[str, type[nn.Module]] = {"mlp": MLP, "expert_mlp": ExpertMLP}


def mixer_names(config: GeneralistConfig) -> list[tuple[str, str]]:
    """The token and channel mixer of every layer, experts in their places."""
    n = config.num_hidden_layers
    tokens = [config.mixers] * n if isinstance(config.mixers, str) else config.mixers
    channels = [config.channel_mixers] * n if isinstance(config.channel_mixers, str) else config.channel_mixers
    return list(zip(placed(tokens, config, "attention"), placed(channels, config, "mlp"), strict=True))


def build_mixer(kind: type[nn.Module], config: GeneralistConfig, *sizes: Any) -> nn.Module:
    """A mixer of its sizes; experts take the configuration's router besides."""
    if issubclass(kind, Experts):
        return kind(*sizes, expert_spec(config), config.moe_router)  # type: ignore[call-arg]  # sizes differ by kind
    return kind(*sizes)
