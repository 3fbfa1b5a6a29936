"""Prompt tuning: deep prompts, the summary token's bias and a linear head are trained, nearly all else is frozen.

Uni-Perceiver v1 (2112.01522, section 3.4; spec section 4). The bias lives in the text tokenizer (`Text.spe_bias`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.base.tokenizer import taken

Filled = TypeVar("Filled", bound=nn.Module)


class DeepPrompts(nn.Module):
    """P vectors a layer, seen by every token in front of its own sequence, never queries; start as N(0, 0.02).

    vectors: Float[layers P D] for inputs and candidates alike, or for inputs only where `candidate_vectors` exist,
    Float[layers P' D]. P and P' need not be equal, and one of them may be 0. D: of the widest layer; a narrower one, in
    front of or behind a stage, takes the first channels.
    """

    def __init__(self, layers: int, width: int, counts: tuple[int, int | None]) -> None:
        """counts: P and P', None for prompts that both sides share."""
        super().__init__()

        def made(count: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(layers, count, width).normal_(std=0.02))

        inputs, candidates = counts
        self.vectors = made(inputs)
        self.candidate_vectors = None if candidates is None else made(candidates)

    @property
    def separate(self) -> bool:
        """Whether candidates have prompts of their own."""
        return self.candidate_vectors is not None

    def forward(self, candidate: bool) -> list[Tensor | None]:
        """One Float[P D] a layer; None where this side has none."""
        own = self.candidate_vectors if candidate and self.candidate_vectors is not None else self.vectors
        return list(own) if own.shape[1] else [None] * len(own)


class LinearHead(nn.Module):
    """alpha * cosine logits + W f + b over a fixed list of classes; starts as the cosine logits alone."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, classes)
        self.alpha = nn.Parameter(torch.ones(1))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Float[Tensor, "*M D"], cosines: Float[Tensor, "*M K"]) -> Float[Tensor, "*M K"]:
        """features Float[... D], not normalised; cosines: scaled cosine logits Float[... K] -> Float[... K]."""
        if cosines.shape[-1] != self.linear.out_features:
            raise UserError(
                f"the linear head has {self.linear.out_features} classes, {cosines.shape[-1]} candidates given; "
                "give the classes it was trained on"
            )
        return self.alpha * cosines + self.linear(taken(features, self.linear)).float()


class LinearHeads(nn.ModuleDict):
    """The linear heads by the name of their logit scale."""

    def __init__(self, width: int, classes: dict[str, int]) -> None:
        """classes: {logit scale: number of its classes}."""
        super().__init__({name: LinearHead(width, k) for name, k in classes.items()})

    def forward(
        self, scale: str, features: Float[Tensor, "*M D"], cosines: Float[Tensor, "*M K"]
    ) -> Float[Tensor, "*M K"]:
        """The logits of a scale; the cosines unchanged where it has no linear head."""
        return self[scale](features, cosines) if scale in self else cosines


def prompts_of(tensors: dict[str, Tensor]) -> DeepPrompts | None:
    """The deep prompts among a part's tensors, whatever their number; None where there are none."""
    if "prompts.vectors" not in tensors:
        return None
    layers, count, width = tensors["prompts.vectors"].shape
    apart = tensors.get("prompts.candidate_vectors")
    candidates = None if apart is None else apart.shape[1]
    made = DeepPrompts(layers, width, (count, candidates))
    return _filled(made, tensors, "prompts.")


def heads_of(tensors: dict[str, Tensor]) -> LinearHeads:
    """The linear heads among a part's tensors."""
    sizes = {n.split(".")[1]: t.shape for n, t in tensors.items() if n.startswith("linear_heads.") and t.ndim == 2}
    widths = [width for _, width in sizes.values()]
    classes = {name: count for name, (count, _) in sizes.items()}
    made = LinearHeads(widths[0] if widths else 0, classes)
    return _filled(made, tensors, "linear_heads.")


def _filled(module: Filled, tensors: dict[str, Tensor], start: str) -> Filled:
    """The module with the tensors of these names for its own; nothing of it trains."""
    own = {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
    module.load_state_dict(own, assign=True)
    return module.requires_grad_(False).eval()


@dataclass(frozen=True)
class Trained:
    """Numbers of trained parameters by part."""

    counts: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.counts.values())


PART_OF = {
    "prompts": "deep prompts",
    "spe_bias": "summary bias",
    "linear_heads": "linear head",
    "norm": "layer norms",
    "norm1": "layer norms",
    "norm2": "layer norms",
    "embedding_norm": "layer norms",
}


def prompt_tuning(model: Any) -> Trained:
    """Freeze all but the prompts, the summary bias, every norm and the linear heads; counts what is left to train.

    Logit scales, layer scales and the output projection are frozen too (spec section 4). UserError without prompts.
    """
    if model.prompts is None:
        raise UserError("this model has no deep prompts to tune; set model.prompts=10")
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = next((PART_OF[p] for p in name.split(".") if p in PART_OF), None)
        parameter.requires_grad_(part is not None)
        if part is not None:
            counts[part] = counts.get(part, 0) + parameter.numel()
    return Trained(counts)
