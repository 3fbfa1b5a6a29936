"""`GeneralistConfig`: the shared encoder, the modalities and the logit scales of one model."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PreTrainedConfig

from generalist.data.base.errors import UserError, nearest


class GeneralistConfig(PreTrainedConfig):
    """Configuration of a `GeneralistModel`; the defaults are a tiny model.

    modalities: {name: settings of its tokenizer}; modality_order: their names in order, by which a modality router
    knows them (a saved configuration has its keys sorted). scales: names of the learnable logit scales.
    layer_scale: initial per-channel residual gain, 0 leaves it out. drop_path: one rate in all layers
    (Uni-Perceiver's "fixed"). embedding_norm: one LayerNorm shared by the tokens of all modalities.
    output_head: LayerNorm + linear on every feature that is compared (spec 1.8).
    mixers: token mixer of every layer, a name or a list; channel_mixers likewise.
    prompts: deep prompt vectors a layer, 0 for none; separate_prompts: candidates have their own (spec 4), as many as
    inputs or candidate_prompts.
    linear_heads: {logit scale: classes} that get a linear head beside the cosine (spec 4).
    output_size: width of the compared features, 0 = hidden_size; output_bias: bias of their projection;
    output_norm: the LayerNorm in front of it; output_act: an activation behind it, "" for none.
    zero_shot_scale: the logit scale of two modalities compared by `forward`, the first by default; of a question that
    tasks of one other scale were trained on, that one.
    writing_scale: the logit scale of the words of a caption (`generate`), zero_shot_scale by default.
    pooling: what is read at an asked token: "asked", the token itself, "mean" of the others of its sequence, its
    "last" token, "mean_all", "max_all" or "weighted_all" of all of them, or "attention" over them, whose sizes `pooler`
    says (`generalist.nn.readout`).
    post_norm: norms behind the residual sums, as in the first Transformer and BERT, instead of before the mixers.
    branch_norm: norms behind the mixers, inside the residual branch: x + norm(mixer(x)) (2111.09883, section 3.2).
    inner_norm: a LayerNorm in front of the last linear of both mixers ("sub-LN", 2210.06423, section 2).
    rotary: rotary positions of tokens in a grid, {temperature, reference, offset} (`generalist.nn.attention.rotary`),
    {} for the defaults, None for none. relative: hidden width of the MLPs of relative positions
    (`generalist.nn.attention.relative`), 0 for none.
    moe_*: conditional mixture of experts (`generalist.nn.experts.experts`). moe_placement: "none", "odd" (layers 0,
    2, 4 ...), "four"
    (0, 4, 8 ...; where it begins is a guess, no released file uses it) or "all" layers; moe_parts: "both", "attention"
    or "mlp"; moe_router: attribute, token, context, modality or task; moe_noise: of the router in training, in units
    of 1 / experts; moe_gelu: GELU in the attribute router. tasks: names that a task router knows.
    task_sides: {task: what its inputs and candidates are told of each other} (`Task.sides`); zero_shot_task: the task
    that a question without a name is answered as by such a router, by default the one that asks such questions.
    """

    model_type = "generalist"
    attribute_map: ClassVar[dict[str, str]] = {
        "width": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
    }

    hidden_size: int = 128
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    intermediate_size: int = 512
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    layer_scale: float = 0.0
    drop_path: float = 0.0
    embedding_norm: bool = True
    final_norm: bool = False
    output_head: bool = True
    initializer_range: float = 0.02
    initial_scale: float = 10.0
    mixers: str | list[str] = "attention"
    channel_mixers: str | list[str] = "mlp"
    prompts: int = 0
    separate_prompts: bool = False
    candidate_prompts: int | None = None
    linear_heads: dict[str, int] | None = None
    output_size: int = 0
    output_bias: bool = True
    output_act: str = ""
    output_norm: bool = True
    post_norm: bool = False
    branch_norm: bool = False
    inner_norm: bool = False
    rotary: dict[str, Any] | None = None
    relative: int = 0
    pooling: str = "asked"
    pooler: dict[str, Any] | None = None
    moe_placement: str = "none"
    moe_parts: str = "both"
    moe_experts: int = 8
    moe_top: int = 2
    moe_router: str = "attribute"
    moe_noise: float = 1.0
    moe_gelu: bool = False
    tasks: list[str] | None = None
    task_sides: dict[str, Any] | None = None
    zero_shot_task: str = ""
    zero_shot_scale: str = ""
    writing_scale: str = ""
    modalities: dict[str, Any] | None = None
    modality_order: list[str] | None = None
    scales: list[str] | None = None
    candidate_sets: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        settings = self.modalities or {}
        self.modality_order = list(dict.fromkeys([*(n for n in self.modality_order or [] if n in settings), *settings]))
        self.modalities = {name: settings[name] for name in self.modality_order}
        self.scales = list(self.scales or ["default"])
        self.separate_prompts = self.separate_prompts or self.candidate_prompts is not None
        self.zero_shot_scale = self.zero_shot_scale or self.scales[0]
        self.linear_heads = dict(self.linear_heads or {})
        self.candidate_sets = dict(self.candidate_sets or {})
        self.tasks = list(self.tasks or [])
        self.task_sides = dict(self.task_sides or {})
        super().__post_init__(**kwargs)
        check(self)

    @property
    def prompt_counts(self) -> tuple[int, int | None]:
        """Deep prompts a layer of inputs, and of candidates where they have their own, else None."""
        if not self.separate_prompts:
            return self.prompts, None
        return self.prompts, self.prompts if self.candidate_prompts is None else self.candidate_prompts


def check(config: GeneralistConfig) -> None:
    """A configuration that cannot work is refused when it is read."""
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        if getattr(config, name) < 1:
            raise UserError(f"model: {name} must be at least 1, got {getattr(config, name)}")
    for name in ("prompts", "candidate_prompts"):
        if (getattr(config, name) or 0) < 0:
            raise UserError(f"model: {name} must be at least 0, got {getattr(config, name)}")
    if config.hidden_size % config.num_attention_heads:
        heads = [h for h in range(1, config.hidden_size + 1) if config.hidden_size % h == 0]
        best = min(heads, key=lambda h: abs(h - config.num_attention_heads))
        raise UserError(
            f"model: {config.num_attention_heads} heads do not divide width {config.hidden_size}; use {best} heads"
        )
    from generalist.tokenizers_mod.base.modalities import MODALITIES

    for name, settings in (config.modalities or {}).items():
        if name not in MODALITIES and "class" not in settings:
            raise UserError(f"unknown modality {name!r}; {nearest(name, MODALITIES)}")
    if config.post_norm and config.branch_norm:
        raise UserError("model: post_norm and branch_norm are two rules for one norm; choose one of them")
    from generalist.nn.attention.rotary import build_rotary
    from generalist.nn.experts.placement import check_experts

    build_rotary(config)
    check_experts(config)
