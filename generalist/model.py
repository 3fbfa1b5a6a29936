"""`GeneralistModel`: tokenizers, shared encoder, output head and logit scales, as a Hugging Face model.

    p(y | x)  ∝  exp( cos(f(x), f(y)) · scale )

`features` is f at the asked tokens; `rank` and `log_likelihood` are the law for whoever has inputs and
candidates in hand. Nothing here knows a task or a modality by name.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from data.errors import UserError, nearest
from data.pack import pack
from data.types import Layout, Packed, Span
from generalist.config import GeneralistConfig
from generalist.encoder import Encoder
from generalist.prompts import DeepPrompts, LinearHeads
from tasks import likelihood
from tokenizers_mod.modalities import build_modalities


class GeneralistModel(PreTrainedModel):
    config_class = GeneralistConfig
    config: GeneralistConfig
    base_model_prefix = "generalist"
    main_input_name = "packed"
    _no_split_modules = ["Block"]

    def __init__(self, config: GeneralistConfig) -> None:
        super().__init__(config)
        width, eps = config.hidden_size, config.layer_norm_eps
        modalities = build_modalities(config.modalities)
        self.tokenizers = nn.ModuleDict({name: m.build(width) for name, m in modalities.items()})
        self.embedding_norm = nn.LayerNorm(width, eps=eps) if config.embedding_norm else nn.Identity()
        self.encoder = Encoder(config)
        self.head = (
            OutputHead(width, eps, config.output_size or width, config.output_bias) if config.output_head else nn.Identity()
        )
        self.prompts = DeepPrompts(config) if config.prompts else None
        self.linear_heads = LinearHeads(config)
        # shape [1]: a 0-dimensional parameter is refused by ZeRO on CPU and by FSDP2
        self.log_scales = nn.ParameterDict(
            {name: nn.Parameter(torch.tensor([config.initial_scale]).log()) for name in config.scales}
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Fresh linears of the encoder and head; tokenizers keep the initialisation they chose."""
        if isinstance(module, GeneralistModel):
            for value in module.log_scales.values():
                init.constant_(value, float(torch.tensor(self.config.initial_scale).log()))
        elif isinstance(module, Encoder | OutputHead):
            for part in module.modules():
                if isinstance(part, nn.Linear):
                    # Xavier (spec 1.12); fused q, k, v as the three matrices they are
                    for matrix in part.weight.chunk(part.out_features // part.in_features or 1) if fused(part) else [part.weight]:
                        init.xavier_uniform_(matrix)
                    if part.bias is not None:
                        init.zeros_(part.bias)

    def embed(self, packed: Packed) -> Tensor:
        """Raw spans -> packed tokens Float[N D], before the encoder."""
        for modality in packed.data:
            if modality not in self.tokenizers:
                raise UserError(f"this model has no modality {modality!r}; {nearest(modality, self.tokenizers)}")
        tokens = [self.tokenizers[m](data) for m, data in packed.data.items()]
        starts = torch.tensor([0] + [len(t) for t in tokens[:-1]], device=packed.row.device).cumsum(0)
        return self.embedding_norm(torch.cat(tokens)[starts[packed.source] + packed.row])

    def forward(self, packed: Packed, candidate: bool = False) -> Tensor:
        """Packed tokens after the encoder: Float[N D]. candidate: answers, which may have prompts of their own."""
        return self.encoder(self.embed(packed), packed.layout, self.layer_prompts(candidate))

    def layer_prompts(self, candidate: bool = False) -> list[Tensor | None] | None:
        """The deep prompts of every layer, None where the model has none."""
        return None if self.prompts is None else self.prompts(candidate)

    def encode_together(self, parts: Sequence[Packed]) -> list[Tensor]:
        """Packed inputs, then candidates, in one pass through the encoder: their features at the asked tokens.

        Where inputs and candidates have prompts of their own they take two passes.
        """
        if len(parts) == 1 or self.config.separate_prompts:
            return [self.features(part, candidate=i > 0) for i, part in enumerate(parts)]
        layout: Layout = parts[0].layout
        for part in parts[1:]:
            layout = layout + part.layout
        hidden = self.encoder(torch.cat([self.embed(p) for p in parts]), layout, self.layer_prompts())
        return [
            self.read_out(h, p) for h, p in zip(hidden.split([p.tokens for p in parts]), parts, strict=True)
        ]

    def read_out(self, hidden: Tensor, packed: Packed) -> Tensor:
        """f at the asked tokens: Float[M D], or Float[M a D] where a token asks a questions."""
        asked = hidden[packed.asked]
        unfold = getattr(self.tokenizers[packed.asked_modality], "unfold", None)
        return self.head(asked if unfold is None else unfold(asked))

    def features(self, packed: Packed, candidate: bool = False) -> Tensor:
        """f at the asked tokens. candidate: the sequences are answers, not inputs."""
        return self.read_out(self(packed, candidate), packed)

    def score(self, queries: Tensor, candidates: Tensor, scale: str) -> Tensor:
        """log p(candidate | query) under a named logit scale and its linear head, if it has one: Float[... K]."""
        cosines = likelihood.logits(queries, candidates, self.log_scale(scale))
        return self.linear_heads(scale, queries, cosines).log_softmax(dim=-1)

    def log_scale(self, name: str) -> Tensor:
        if name not in self.log_scales:
            raise UserError(f"this model has no logit scale {name!r}; {nearest(name, self.log_scales)}")
        return self.log_scales[name]

    @torch.no_grad()
    def encode(self, sequences: Sequence[Sequence[Span]]) -> Tensor:
        """Sequences asked at one token each -> unit vectors Float[B D] in the shared space."""
        features = self.features(pack(sequences).to(self.device))
        return nn.functional.normalize(features.float(), dim=-1)

    @torch.no_grad()
    def log_likelihood(
        self, inputs: Sequence[Sequence[Span]], candidates: Sequence[Sequence[Span]], scale: str = "default"
    ) -> Tensor:
        """log p(candidate | input): Float[M K] (or [M a K]), one row an asked token of the inputs."""
        if len(candidates) < 2:
            raise UserError(f"{len(candidates)} candidate given: a likelihood needs at least two to choose among")
        queries, keys = self.encode_together([pack(inputs).to(self.device), pack(candidates).to(self.device)])
        return self.score(queries, keys, scale)

    def rank(
        self, inputs: Sequence[Sequence[Span]], candidates: Sequence[Sequence[Span]], scale: str = "default"
    ) -> Tensor:
        """Probabilities of the candidates: Float[M K], rows sum to one."""
        return self.log_likelihood(inputs, candidates, scale).exp()


def fused(linear: nn.Linear) -> bool:
    """Whether a linear holds q, k and v as three square matrices."""
    return linear.out_features == 3 * linear.in_features


class OutputHead(nn.Module):
    """Output norm and projection of every compared feature, inputs and candidates alike (spec 1.8)."""

    def __init__(self, width: int, eps: float, out: int, bias: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=eps)
        self.projection = nn.Linear(width, out, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.norm(x))
