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
from generalist.parts import Part
from generalist.relative import RelativeBias


class Attention(nn.Module):
    """Multi-head self-attention with one fused q, k, v matrix (1706.03762, section 3.2)."""

    needs_grid: ClassVar[bool] = False
    needs_order: ClassVar[bool] = False
    causal: ClassVar[bool] = True
    stacked: ClassVar[dict[str, int]] = {"qkv": 3}

    def __init__(self, width: int, heads: int, norm: float | None = None, relative: int = 0) -> None:
        """norm: epsilon of a LayerNorm of all heads' outputs together, in front of `out`; None for no such norm.

        relative: hidden width of the MLP of relative positions, 0 for none.
        """
        super().__init__()
        self.heads = heads
        self.config: Any = None  # the model's, set by the block: its attention implementation may change later
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.relative = RelativeBias(heads, relative) if relative else None
        self.norm = None if norm is None else nn.LayerNorm(width, eps=norm)

    def forward(self, x: Tensor, layout: Layout, parts: list[Part], prompts: Tensor | None = None) -> Tensor:
        """x: Float[N D]; prompts: Float[P D], already normalised like x -> Float[N D]."""
        q, k, v = self.qkv(x).view(x.shape[0], 3, self.heads, -1).unbind(1)
        extra = None
        if prompts is not None:
            _, pk, pv = self.qkv(prompts).view(len(prompts), 3, self.heads, -1).unbind(1)
            extra = (pk, pv)
        implementation = getattr(self.config, "_attn_implementation", None)
        bias = None if self.relative is None or layout.offsets is None else self.relative(layout.offsets.steps)
        mixed = attend(q, k, v, layout, parts, extra, implementation, bias).reshape(x.shape[0], -1)
        return self.out(mixed if self.norm is None else self.norm(mixed))


class MLP(nn.Module):
    """linear - activation - linear, token by token."""

    def __init__(self, width: int, hidden: int, activation: nn.Module, norm: float | None = None) -> None:
        """norm: epsilon of a LayerNorm in front of the second linear; None for no such norm."""
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.activation = activation
        self.norm = None if norm is None else nn.LayerNorm(hidden, eps=norm)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.up(x))
        return self.down(x if self.norm is None else self.norm(x))


class SwiGLU(nn.Module):
    """silu(x G) * (x W), then a linear, token by token (2002.05202, section 2); G and W are one matrix, G above.

    The activation is SiLU whatever `hidden_act` says. At equal parameters `hidden` is 2/3 of an MLP's.
    """

    stacked: ClassVar[dict[str, int]] = {"up": 2}

    def __init__(self, width: int, hidden: int, activation: nn.Module, norm: float | None = None) -> None:
        """norm: epsilon of a LayerNorm in front of the last linear; None for no such norm."""
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden)
        self.norm = None if norm is None else nn.LayerNorm(hidden, eps=norm)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.up(x).chunk(2, dim=-1)
        x = nn.functional.silu(gate) * value
        return self.down(x if self.norm is None else self.norm(x))


TOKEN_MIXERS: dict[str, type[nn.Module]] = {"attention": Attention, "expert_attention": ExpertAttention}
CHANNEL_MIXERS: dict[str, type[nn.Module]] = {"mlp": MLP, "swiglu": SwiGLU, "expert_mlp": ExpertMLP}


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
    options: dict[str, Any] = {"norm": config.layer_norm_eps} if config.inner_norm else {}
    if config.relative and issubclass(kind, Attention):
        options["relative"] = config.relative
    return kind(*sizes, **options)
