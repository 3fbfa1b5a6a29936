"""From packed sequences to f at the tokens asked: tokenizers, shared encoder, readout, output head.

What is built here is the whole of a model's tensors; the law over f stands in `generalist.model.model`. Nothing here
knows a task or a modality by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import init

from generalist.data.base.errors import UserError, nearest
from generalist.data.batch.at import At
from generalist.data.batch.routes import Routes
from generalist.data.batch.types import Packed
from generalist.model.config import ModelConfig
from generalist.model.kept import Kept
from generalist.model.sides import SIDES, SUMMARY, Sides
from generalist.nn.activations import activation
from generalist.nn.encoder import Encoder
from generalist.nn.experts.experts import ExpertLinear
from generalist.nn.experts.placement import has_experts
from generalist.nn.experts.routing import ROUTERS
from generalist.nn.mixers.base import Mixer
from generalist.nn.paths import Paths
from generalist.nn.prompts import DeepPrompts, LinearHeads
from generalist.nn.readout import build_pooling, reads_all
from generalist.nn.taps import Tapped
from generalist.tokenizers_mod.base.modalities import build_modalities
from generalist.tokenizers_mod.base.tokenizer import Embedded, Tokenizer
from generalist.tokenizers_mod.maps.base import OwnLinear


class EncodingModel(Tapped, nn.Module):
    """All parts of a model, and what it makes of packed sequences."""

    config: ModelConfig
    name_or_path = ""  # the folder that it was read from

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.make(config)
        self.apply(self._init_weights)

    def make(self, config: ModelConfig) -> None:
        """All parts of the model."""
        width, eps = config.width, config.eps
        self.modalities = build_modalities(config.modalities)
        self.tokenizers = nn.ModuleDict({name: m.build(width) for name, m in self.modalities.items()})
        self.embedding_norm = nn.LayerNorm(width, eps=eps) if config.embedding_norm else nn.Identity()
        self.encoder = Encoder(config)
        self.kinds = {name: m.kind for name, m in self.modalities.items()}
        self.router = ROUTERS[config.moe.router] if has_experts(config) else None
        self.pooling = build_pooling(config)
        pooled, compared = self.pooling.size, config.output_size or config.out_width
        self.head = (
            OutputHead(pooled, eps, compared, config.output_bias, config.output_norm, config.output_act)
            if config.output_head
            else nn.Identity()
        )
        counts = config.prompt_counts
        self.prompts = DeepPrompts(config.layers, config.widest, counts) if any(counts) else None
        self.linear_heads = LinearHeads(compared, config.linear_heads or {})
        # shape [1]: a 0-dimensional parameter is refused by ZeRO on CPU and by FSDP2
        self.log_scales = nn.ParameterDict(
            {name: nn.Parameter(torch.tensor([config.initial_scale]).log()) for name in config.scales or []}
        )
        self.logit_biases = nn.ParameterDict({name: nn.Parameter(torch.zeros(1)) for name in config.biases or []})
        parts = {
            weight: count for m in self.encoder.modules() if isinstance(m, Mixer) for weight, count in m.matrices()
        }
        own = [m for root in (self.encoder, self.head) for m in root.modules() if isinstance(m, nn.Linear)]
        own = [m for m in own if not isinstance(m, OwnLinear)]
        self.own_linears = {linear: parts.get(linear.weight, 1) for linear in own}
        self.kept = Kept()

    def _init_weights(self, module: nn.Module) -> None:
        """Fresh linears of the encoder and head, and logit scales; tokenizers keep the initialisation they chose.

        transformers shows it each module that holds parameters itself, and none that only holds modules, and keeps
        `torch.nn.init` off what was loaded.
        """
        if module is self.log_scales:
            for value in module.values():
                init.constant_(value, float(torch.tensor(self.config.initial_scale).log()))
        elif module is self.logit_biases:
            for value in module.values():
                init.zeros_(value)
        elif isinstance(module, ExpertLinear):
            module.reset_parameters()
        elif isinstance(module, nn.Linear) and module in self.own_linears:
            if not getattr(module.weight, "_is_hf_initialized", False):  # the views of a loaded weight do not say so
                # Xavier (spec 1.12); stacked q, k, v as the three matrices they are
                for matrix in module.weight.chunk(self.own_linears[module]):
                    init.xavier_uniform_(matrix)
            if module.bias is not None:
                init.zeros_(module.bias)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def embedded(self, packed: Packed) -> Embedded:
        """Raw spans -> packed tokens Float[N D] before the encoder, and what their tokenizer knows of those asked."""
        for modality in packed.data:
            if modality not in self.tokenizers:
                raise UserError(f"this model has no modality {modality!r}; {nearest(modality, self.tokenizers)}")
        made = {m: Embedded.of(self.tokenizers[m](data)) for m, data in packed.data.items()}
        tokens = [one.x for one in made.values()]
        starts = torch.tensor([0] + [len(t) for t in tokens[:-1]], device=packed.row.device).cumsum(0)
        x = self.embedding_norm(torch.cat(tokens).index_select(0, starts[packed.source] + packed.row))
        own = made.get(packed.asked_modality)
        return Embedded(x) if own is None else own.beside(x, packed.row[packed.asked])

    def embed(self, packed: Packed) -> Float[Tensor, "N D"]:
        """The tokens alone."""
        return self.embedded(packed).x

    def forward(self, packed: Packed, candidate: bool = False) -> Any:
        """Packed tokens after the encoder: Float[N D]. candidate: answers, which may have prompts of their own."""
        return self.encoded(packed, candidate)[0]

    def encoded(
        self, packed: Packed, candidate: bool = False, tokens: Float[Tensor, "N D"] | None = None, only: bool = False
    ) -> tuple[Float[Tensor, "M E"], At]:
        """The same, and where these tokens stand. tokens: Float[N D], those of the batch where they are made already
        (`embedded`). only: the tokens asked are all that is needed."""
        at = replace(self.at(packed, candidate), only=only)
        return self.encoder(self.embed(packed) if tokens is None else tokens, at)

    def at(self, packed: Packed, candidate: bool = False) -> At:
        """Where the tokens of a batch stand in one pass, with what the model adds: routes, prompts, kernel, taps."""
        return self.conditioned(At(packed.layout, routes=self.routes(packed, candidate)), candidate)

    def conditioned(self, at: At, candidate: bool) -> At:
        """The same with this side's deep prompts, the attention kernel and whoever looks on."""
        prompts = None if self.prompts is None else self.prompts(candidate)
        dropped = self.config.dropped_paths
        taps = (*self.taps, Paths(self.encoder, dropped)) if dropped else self.taps
        return replace(at, layer_prompts=prompts, kernel=self.config._attn_implementation, taps=taps)

    def routes(self, packed: Packed, candidate: bool = False) -> Routes | None:
        """What the experts of a batch are chosen by, where the model has such."""
        if self.router is None:
            return None
        role = replace(packed.role, target=packed.role.target or candidate)
        if role.other is None and not role.task:  # whoever packed it did not say what it is compared with
            role = self.sides.role(SIDES[role.target], set(packed.kinds) - {SUMMARY}, None)
        return self.router.table(replace(packed, role=role), self.kinds, self.config.tasks or [])

    def encode_together(self, parts: Sequence[Packed], tokens: Tensor | None = None) -> list[Tensor]:
        """Packed inputs, then candidates, in one pass through the encoder: their features at the asked tokens.

        tokens: Float[N D], those of the inputs where they are made already (`embedded`).
        Where inputs and candidates have prompts of their own, or prompts that experts treat differently, they
        take two passes.
        """
        apart = self.prompts is not None and (self.prompts.separate or self.router is not None)
        if len(parts) == 1 or apart:
            return [self.features(part, i > 0, None if i else tokens) for i, part in enumerate(parts)]
        at = self.at(parts[0])
        for part in parts[1:]:
            at = at + self.at(part, candidate=True)
        first = self.embed(parts[0]) if tokens is None else tokens
        only = not reads_all(self.pooling)
        x = torch.cat([first, *(self.embed(p) for p in parts[1:])])
        hidden, at = self.encoder(x, replace(at, only=only))
        counts = [part.tokens for part in parts]
        starts = list(accumulate([0, *counts[:-1]]))
        if only:  # wherever they stand by now
            asked = torch.cat([part.asked + start for part, start in zip(parts, starts, strict=True)])
            if at.origin is not None:
                asked = standing(at.origin, sum(counts))[asked]
            found = hidden.index_select(0, asked).split([len(part.asked) for part in parts])
            return [self.answered(own, part) for own, part in zip(found, parts, strict=True)]
        if at.origin is None:
            return [self.read_out(h, part, None) for h, part in zip(hidden.split(counts), parts, strict=True)]
        # steps that change tokens may have laid the parts' sequences between one another
        of_part = torch.arange(len(parts)).repeat_interleave(torch.tensor(counts)).to(at.origin.device)[at.origin]
        own = [(hidden[of_part == i], at.origin[of_part == i] - start) for i, start in enumerate(starts)]
        return [self.read_out(h, part, origin) for (h, origin), part in zip(own, parts, strict=True)]

    def read_out(
        self, hidden: Float[Tensor, "N D"], packed: Packed, origin: Int[Tensor, " N"] | None
    ) -> Float[Tensor, "M *a E"]:
        """f at the asked tokens: Float[M D], or Float[M a D] where a token asks a questions.

        hidden: Float[N' D] after the encoder; origin: Int[N'], for which packed token each stands, None: for its own.
        """
        owner, asked = packed.owner, packed.asked
        if origin is not None:
            owner, asked = owner[origin], standing(origin, packed.tokens)[asked]
        return self.answered(self.pooling(hidden, owner, asked, packed.sequences), packed)

    def answered(self, asked: Float[Tensor, "M E"], packed: Packed) -> Float[Tensor, "M *a E"]:
        """What was read at the asked tokens -> f there."""
        tokenizer = self.tokenizers[packed.asked_modality]
        return self.head(tokenizer.unfold(asked) if isinstance(tokenizer, Tokenizer) else asked)

    def features(
        self, packed: Packed, candidate: bool = False, tokens: Float[Tensor, "N D"] | None = None
    ) -> Float[Tensor, "M *a E"]:
        """f at the asked tokens. candidate: the sequences are answers, not inputs. tokens: as `encoded`."""
        hidden, at = self.encoded(packed, candidate, tokens, only=not reads_all(self.pooling))
        return self.read_out(hidden, packed, at.origin)

    @property
    def sides(self) -> Sides:
        """What inputs and candidates are told of each other, by one rule for every client."""
        return Sides(self.config, self.kinds, self.router)


def standing(origin: Int[Tensor, " N"], tokens: int) -> Int[Tensor, " T"]:
    """Where each of `tokens` tokens stands by now, -1 where it is gone. origin: which token each stands for."""
    index = torch.arange(len(origin), device=origin.device)
    return torch.full((tokens,), -1, dtype=torch.long, device=origin.device).index_copy(0, origin, index)


class OutputHead(nn.Module):
    """Output norm and projection of every compared feature, inputs and candidates alike (spec 1.8).

    act: the name of an activation behind the projection, "" for none.
    """

    def __init__(self, width: int, eps: float, out: int, bias: bool = True, norm: bool = True, act: str = "") -> None:
        super().__init__()
        self.activation = activation(act) if act else nn.Identity()
        self.norm = nn.LayerNorm(width, eps=eps) if norm else nn.Identity()
        self.projection = nn.Linear(width, out, bias=bias)

    def forward(self, x: Float[Tensor, "*M D"]) -> Float[Tensor, "*M E"]:
        return self.activation(self.projection(self.norm(x)))
