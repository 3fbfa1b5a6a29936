"""Conditional mixture of experts: attention and feed-forward mixers whose linears are experts (spec 3.3).

    W = sum over the chosen experts of weight * W_e        y = x W^T + b

Where the router looks at a row of attributes and not at the token, the chosen experts are merged before use:
exactly a dense layer, at its cost. Merged weights are kept while a model in evaluation is unchanged.

Layout of the parameters of one block, E experts, width D, hidden H (the keys of a dense block, with the
experts as a leading axis, and the routers beside them):

    mixer.qkv.weight [E 3D D]   mixer.qkv.bias [E 3D]      mixer.out.weight [E D D]   mixer.out.bias [E D]
    mlp.up.weight    [E H D]    mlp.up.bias    [E H]       mlp.down.weight  [E D H]   mlp.down.bias  [E D]
    mixer.router.* decides for qkv and out, mlp.router.* for up and down, each holding
        gate.weight [E C]                          (C = D, and 2D for "context")
        attributes.{weight [D 8], bias [D]}, norm.{weight, bias} [D]               for "attribute"
        embedding.weight [modalities or tasks, D]                                  for "modality", "task"

`moe_state_dict` maps one block of the official key layout (spec 6) to this one, `official_state_dict` back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from data.errors import UserError, nearest
from data.types import Group, Layout, Routes
from generalist.attention import attend
from generalist.cached import StepLayout
from generalist.parts import Part
from generalist.routing import ROUTERS, Choice, RouterSpec, routes


class ExpertLinear(nn.Module):
    """E linears of one shape: weight Float[E out in], bias Float[E out]. parts: square matrices stacked in each."""

    decayed: ClassVar[tuple[str, ...]] = ("weight",)  # for the optimiser: matrices, though not of an nn.Linear

    def __init__(self, experts: int, inputs: int, outputs: int, parts: int = 1) -> None:
        super().__init__()
        self.parts = parts
        self.weight = nn.Parameter(torch.empty(experts, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(experts, outputs))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier, every matrix of every expert on its own (spec 1.12)."""
        if getattr(self.weight, "_is_hf_initialized", False):
            return  # loaded
        for expert in self.weight.data:
            for part in expert.chunk(self.parts):
                nn.init.xavier_uniform_(part)
        nn.init.zeros_(self.bias)

    def merge(self, choice: Choice) -> tuple[Tensor, Tensor]:
        """One weight and bias a row: Float[R out in], Float[R out]."""
        w, shape = choice.weights.to(self.weight.dtype), choice.experts.shape
        chosen = self.weight.index_select(0, choice.experts.flatten()).unflatten(0, shape)
        weight = (chosen * w[..., None, None]).sum(1)
        return weight, (embedding(choice.experts, self.bias) * w[..., None]).sum(1)


@dataclass
class Rows:
    """The chosen experts of a layer merged once a row: a dense layer where all tokens have one row.

    choice: of the R rows; merged: {name of the linear: R weights Float[out in] and biases Float[out]}.
    """

    routes: Routes
    choice: Choice
    merged: dict[str, list[tuple[Tensor, Tensor]]]

    def apply(self, name: str, x: Tensor) -> Tensor:
        """x: Float[N in] -> Float[N out]."""
        merged = self.merged[name]
        if len(merged) == 1:
            return linear(x, *merged[0])
        order = self.routes.order
        parts = (x if order is None else x[order[0]]).split(self.routes.counts)
        out = torch.cat([linear(part, *m) for part, m in zip(parts, merged, strict=True)])
        return out if order is None else out[order[1]]

    def row(self, name: str, x: Tensor, row: int) -> Tensor:
        """Another sequence's Float[P in] through the linear of one row."""
        return linear(x, *self.merged[name][row])

    def served(self, experts: int) -> tuple[Tensor, Tensor]:
        tokens = torch.tensor(self.routes.counts, device=self.choice.experts.device, dtype=torch.float32)
        return _count(self.choice, tokens, experts)


@dataclass
class PerToken:
    """Every token goes through its own experts; the tokens of one expert go together."""

    choice: Choice
    linears: dict[str, ExpertLinear]

    def apply(self, name: str, x: Tensor) -> Tensor:
        """x: Float[N in] -> Float[N out]."""
        of, k = self.linears[name], self.choice.experts.shape[1]
        flat = self.choice.experts.flatten()
        order = torch.argsort(flat, stable=True)
        counts = torch.bincount(flat, minlength=len(of.weight)).tolist()
        token = order // k
        parts = x.index_select(0, token).split(counts)
        out = torch.cat([linear(part, w, b) for part, w, b in zip(parts, of.weight, of.bias, strict=True)])
        out = out * self.choice.weights.flatten()[order].unsqueeze(1).to(out.dtype)
        return out.new_zeros(len(x), out.shape[1]).index_add_(0, token, out)

    def served(self, experts: int) -> tuple[Tensor, Tensor]:
        return _count(self.choice, torch.ones(len(self.choice.experts), device=self.choice.experts.device), experts)


def _count(choice: Choice, tokens: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """Tokens that each expert serves and the gate weight they give it: Float[E], Float[E]."""
    each = tokens.unsqueeze(1).expand_as(choice.weights)
    hits = torch.zeros(experts, device=tokens.device)
    flat = choice.experts.flatten()
    mass = hits.index_add(0, flat, (each * choice.weights.detach()).flatten())
    return hits.index_add(0, flat, each.flatten()), mass


class Experts(nn.Module):
    """Base of the two mixers: one router that decides for all linears of the mixer."""

    def __init__(self, spec: RouterSpec, router: str) -> None:
        super().__init__()
        self.router = ROUTERS[router](spec)
        self.recorder: Callable[[Rows | PerToken], None] | None = None
        self._kept: dict[tuple[int, ...], Kept] = {}
        self._state: tuple[Any, ...] = ()

    def linears(self) -> dict[str, ExpertLinear]:
        return {name: m for name, m in self.named_children() if isinstance(m, ExpertLinear)}

    def train(self, mode: bool = True) -> Experts:
        self._kept.clear()  # parameters written around autograd (`p.data`) leave no other trace
        return super().train(mode)

    def decide(self, x: Tensor, layout: Layout) -> Rows | PerToken:
        """Which experts serve the tokens x: Float[N D]."""
        decision: Rows | PerToken
        if not self.router.per_row:
            decision = PerToken(self.router(x, layout), self.linears())
        elif self.training or torch.is_grad_enabled():
            choice, merged = self._merge(x, layout)
            decision = Rows(routes(layout), choice, merged)
        else:
            decision = self._remembered(x, layout)
        if self.recorder is not None:
            self.recorder(decision)
        return decision

    def _merge(self, x: Tensor, layout: Layout) -> tuple[Choice, dict[str, list[tuple[Tensor, Tensor]]]]:
        choice = self.router(x, layout)
        return choice, {n: list(zip(*m.merge(choice), strict=True)) for n, m in self.linears().items()}

    def _remembered(self, x: Tensor, layout: Layout) -> Rows:
        """Rows met before keep their merged weights until a parameter changes."""
        found = routes(layout)
        # an optimiser step or a load writes in place and counts the version up; a move changes the address
        state = tuple((p.data_ptr(), p._version) for p in self.parameters())
        if state != self._state:
            self._kept.clear()
            self._state = state
        rows = [tuple(row) for row in found.table.tolist()]
        new = [i for i, row in enumerate(rows) if row not in self._kept]
        if new:
            table = Routes(found.index[:0], found.table[new])
            choice, merged = self._merge(x, replace(layout, routes=table))
            for at, i in enumerate(new):
                own = Choice(choice.experts[at], choice.weights[at])
                self._kept[rows[i]] = Kept(own, {name: m[at] for name, m in merged.items()})
        kept = [self._kept[row] for row in rows]
        choice = Choice(torch.stack([k.choice.experts for k in kept]), torch.stack([k.choice.weights for k in kept]))
        return Rows(found, choice, {name: [k.merged[name] for k in kept] for name in self.linears()})


@dataclass
class Kept:
    """One row's experts and the merged weight and bias of every linear."""

    choice: Choice
    merged: dict[str, tuple[Tensor, Tensor]]


class ExpertAttention(Experts):
    """Multi-head self-attention whose q, k, v and output matrices are experts chosen together."""

    needs_grid: ClassVar[bool] = False
    needs_order: ClassVar[bool] = False
    causal: ClassVar[bool] = True

    def __init__(self, width: int, heads: int, spec: RouterSpec, router: str) -> None:
        super().__init__(spec, router)
        self.heads = heads
        self.config: Any = None  # the model's, set by the block: its attention implementation may change later
        self.qkv = ExpertLinear(spec.experts, width, 3 * width, parts=3)
        self.out = ExpertLinear(spec.experts, width, width)

    def forward(self, x: Tensor, layout: Layout, parts: list[Part], prompts: Tensor | None = None) -> Tensor:
        """x: Float[N D]; prompts: Float[P D], already normalised like x -> Float[N D].

        Prompts go with the first part of their sequence. Token routers route each prompt by itself.
        """
        chosen = self.decide(x, layout)
        q, k, v = self._split(chosen.apply("qkv", x))
        implementation = getattr(self.config, "_attn_implementation", None)
        if prompts is None:
            mixed = attend(q, k, v, layout, parts, None, implementation)
        elif isinstance(chosen, PerToken):
            _, pk, pv = self._split(self._prompts(prompts).apply("qkv", prompts))
            mixed = attend(q, k, v, layout, parts, (pk, pv), implementation)
        else:
            row = first_rows(layout)
            different = row.unique().tolist()  # one, unless sequences of several kinds stand in one pass
            if len(different) > 1 and isinstance(layout, StepLayout):
                raise UserError("with deep prompts and experts, answers are written for one kind of input at a time")
            mixed = q
            for i in different:
                _, pk, pv = self._split(chosen.row("qkv", prompts, i))
                of_row = attend(q, k, v, layout, parts, (pk, pv), implementation)
                mixed = torch.where((row == i)[:, None, None], of_row, mixed)
        return chosen.apply("out", mixed.reshape(len(x), -1))

    def _split(self, qkv: Tensor) -> tuple[Tensor, ...]:
        return qkv.view(len(qkv), 3, self.heads, -1).unbind(1)

    def _prompts(self, prompts: Tensor) -> PerToken:
        none = torch.zeros(len(prompts), dtype=torch.long, device=prompts.device)
        alone = Layout([Group(0, 1, len(prompts), True)], none, none.bool())
        return PerToken(self.router(prompts, alone), self.linears())


def first_rows(layout: Layout) -> Tensor:
    """The row of its sequence's first token, for every token: Int[N]."""
    found = routes(layout)
    if found.first is not None:
        return found.first
    index = found.index
    return torch.cat(
        [index[g.start : g.start + g.count * g.length : g.length].repeat_interleave(g.length) for g in layout.groups]
    )


class ExpertMLP(Experts):
    """linear - activation - linear whose two linears are experts chosen together."""

    needs_layout: ClassVar[bool] = True

    def __init__(self, width: int, hidden: int, activation: nn.Module, spec: RouterSpec, router: str) -> None:
        super().__init__(spec, router)
        self.up = ExpertLinear(spec.experts, width, hidden)
        self.activation = activation
        self.down = ExpertLinear(spec.experts, hidden, width)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        chosen = self.decide(x, layout)
        return chosen.apply("down", self.activation(chosen.apply("up", x)))


# Every how many layers hold experts, from the first. Known of the released code: "all"; "odd", the layers 0, 2, 4, ...
# (every tensor of it is compared with a file); "four" is every 4th. Guessed: that "four" begins with the first layer
# (0, 4, 8), as "odd" does; no released model or file uses it.
PLACEMENTS: dict[str, int] = {"none": 0, "all": 1, "odd": 2, "four": 4}
PARTS: dict[str, tuple[str, ...]] = {"both": ("attention", "mlp"), "attention": ("attention",), "mlp": ("mlp",)}
EXPERT_MIXER = {"attention": "expert_attention", "mlp": "expert_mlp"}


def placed(names: Sequence[str], config: Any, part: str) -> list[str]:
    """The mixers of all layers with experts where the configuration puts them ("odd": the 1st, 3rd, ... layer)."""
    every = PLACEMENTS[config.moe_placement]
    if not every or part not in PARTS[config.moe_parts]:
        return list(names)
    return [EXPERT_MIXER.get(name, name) if i % every == 0 else name for i, name in enumerate(names)]


def expert_spec(config: Any) -> RouterSpec:
    """What a configuration says of its routers."""
    return RouterSpec(
        width=config.hidden_size,
        experts=config.moe_experts,
        top=config.moe_top,
        noise=config.moe_noise,
        gelu=config.moe_gelu,
        modalities=len(config.modalities),
        tasks=len(config.tasks),
    )


def has_experts(config: Any) -> bool:
    """Whether any layer of this configuration holds experts."""
    named = [config.mixers, config.channel_mixers]
    listed = [name for names in named for name in ([names] if isinstance(names, str) else names)]
    return PLACEMENTS[config.moe_placement] > 0 or any(name in EXPERT_MIXER.values() for name in listed)


def check_experts(config: Any) -> None:
    """UserError for experts that cannot work."""
    for key, valid in (("moe_placement", PLACEMENTS), ("moe_parts", PARTS), ("moe_router", ROUTERS)):
        value = getattr(config, key)
        if value not in valid:
            raise UserError(f"model: {key} {value!r}; {nearest(value, valid)} (valid: {', '.join(valid)})")
    if config.moe_experts < 1 or not 1 <= config.moe_top <= config.moe_experts:
        raise UserError(
            f"model: moe_top {config.moe_top} of moe_experts {config.moe_experts}; choose 1 <= moe_top <= moe_experts"
        )
    for name in ("inner_norm", "relative"):
        if has_experts(config) and getattr(config, name):
            raise UserError(f"model: experts have no {name}; leave it out or set moe_placement to none")
    channels = config.channel_mixers if isinstance(config.channel_mixers, list) else [config.channel_mixers]
    other = [name for name in channels if name not in EXPERT_MIXER and name not in EXPERT_MIXER.values()]
    if PLACEMENTS[config.moe_placement] and "mlp" in PARTS[config.moe_parts] and other:
        raise UserError(f"model: the channel mixer {other[0]!r} has no experts; set moe_parts to attention, or use mlp")
    if config.moe_noise < 0:
        raise UserError(f"model: moe_noise is {config.moe_noise}; it must be 0 (none) or more")
