"""The one description of the encoder and of what is read off it: JSON values, and what can be said of them alone.

A recipe's `model.*` keys set its fields, config.json stores them, `Encoder` is built from them, converters fill them
in, `plan` counts them and `init=` takes over those that say how an encoder computes (`HOW`). What needs the tables of
mixers is checked by `generalist.nn.mixers.table.check`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from operator import attrgetter
from typing import Any, Self

from generalist.data.base.errors import UserError
from generalist.recipe.layers import LayerSpec, MoeSpec, at_least, check_name, divides, layer_of, named

NORMS = ("pre", "post", "branch")
RELATIVE_HIDDEN = 512  # width of the MLPs of relative positions where none is said (2111.09883's)
COMPUTES = {"how": True}  # marks a field that says how an encoder computes, and that no tensor shows


class Also:
    """Another name of a field, "a" or "a.b": what a key was called before, or is called by Hugging Face."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __get__(self, owner: Any, kind: type) -> Any:
        return self if owner is None else attrgetter(self.path)(owner)

    def __set__(self, owner: Any, value: Any) -> None:
        parent, _, name = self.path.rpartition(".")
        setattr(attrgetter(parent)(owner) if parent else owner, name, value)


@dataclass
class EncoderSpec:
    """The shared encoder; the defaults are a tiny one.

    layers: 0 is legal beside a readout that looks at a sequence's tokens: what tokenizers give is compared as it is.
    dropped_paths: residual branches that are no part of what the encoder delivers (`generalist.nn.paths`).
    head_dim: width of attention's heads, 0 = width / heads; wide attention (2210.00640) is one layer of many. local:
    side of a depthwise convolution of attention's values on their maps, 0 for none; local_shared: one for all heads.
    layer_scale: initial per-channel residual gain, 0 leaves it out. drop_path: one rate in all layers (Uni-Perceiver's
    "fixed"). embedding_norm: one LayerNorm shared by the tokens of all modalities. initial_scale: of the logits.
    mixers: token mixer of every layer, channel_mixers its channel mixer: a name, {"kind": name} with its settings, or a
    list of them, one a layer. steps: the whole stack instead, a `LayerSpec` a layer.
    norm: where the norms stand: "pre", in front of the mixers; "post", behind the residual sums, as in the first
    Transformer and BERT; "branch", behind the mixers inside the residual branch: x + norm(mixer(x)) (2111.09883,
    section 3.2). inner_norm: a LayerNorm in front of the last linear of both mixers ("sub-LN", 2210.06423, section 2).
    position: what queries, keys and scores are told of places: "rotary" or {"kind": "rotary", temperature, reference,
    offset} (`generalist.nn.attention.positions.rotary`), {"kind": "relative", hidden: width of its MLPs}
    (`generalist.nn.attention.positions.relative`), or a list of both.
    readout: what is read at an asked token: "asked", the token itself, "mean" of the others of its sequence, its "last"
    token, "mean_all", "max_all" or "weighted_all" of all of them, or "attention" over them, {"kind": "attention",
    heads, size, hidden, norm, own} (`generalist.nn.readout`).
    output_head: LayerNorm + linear on every feature that is compared (spec 1.8). output_size: width of the compared
    features, 0 = width; output_bias: bias of their projection; output_norm: the LayerNorm in front of it; output_act:
    an activation behind it, "" for none.
    prompts: deep prompt vectors a layer, 0 for none; separate_prompts: candidates have their own (spec 4), as many as
    inputs or candidate_prompts. moe: experts.
    """

    width: int = 128
    layers: int = 4
    heads: int = 4
    head_dim: int = field(metadata=COMPUTES, default=0, kw_only=True)
    dropped_paths: list[str] = field(metadata=COMPUTES, default_factory=list, kw_only=True)
    local: int = field(metadata=COMPUTES, default=0, kw_only=True)
    local_shared: bool = field(metadata=COMPUTES, default=False, kw_only=True)
    hidden: int = 512
    activation: str = field(metadata=COMPUTES, default="gelu")
    eps: float = field(metadata=COMPUTES, default=1e-5)
    layer_scale: float = 0.0
    drop_path: float = 0.0
    initial_scale: float = 10.0
    embedding_norm: bool = True
    final_norm: bool = False
    mixers: list[Any] | dict[str, Any] | str = field(metadata=COMPUTES, default="attention")
    channel_mixers: list[Any] | dict[str, Any] | str = field(metadata=COMPUTES, default="mlp")
    steps: list[Any] = field(metadata=COMPUTES, default_factory=list)
    norm: str = field(metadata=COMPUTES, default="pre")
    inner_norm: bool = field(metadata=COMPUTES, default=False)
    position: list[Any] | dict[str, Any] | str | None = field(metadata=COMPUTES, default=None)
    readout: dict[str, Any] | str = "asked"
    output_head: bool = True
    output_size: int = 0
    output_bias: bool = True
    output_norm: bool = True
    output_act: str = ""
    prompts: int = 0
    separate_prompts: bool = False
    candidate_prompts: int | None = None
    moe: MoeSpec = field(default_factory=MoeSpec)

    hidden_size = Also("width")
    num_hidden_layers = Also("layers")
    num_attention_heads = Also("heads")
    intermediate_size = Also("hidden")
    hidden_act = Also("activation")
    layer_norm_eps = Also("eps")
    moe_placement = Also("moe.placement")
    moe_parts = Also("moe.parts")
    moe_experts = Also("moe.experts")
    moe_top = Also("moe.top")
    moe_router = Also("moe.router")
    moe_noise = Also("moe.noise")
    moe_gelu = Also("moe.gelu")

    # --- earlier keys that said a part of one ---

    @property
    def post_norm(self) -> bool:
        return self.norm == "post"

    @post_norm.setter
    def post_norm(self, value: bool) -> None:
        self._rule("post", value)

    @property
    def branch_norm(self) -> bool:
        return self.norm == "branch"

    @branch_norm.setter
    def branch_norm(self, value: bool) -> None:
        self._rule("branch", value)

    def _rule(self, norm: str, value: bool) -> None:
        if value and self.norm not in ("pre", norm):
            raise UserError(f"model: {self.norm}_norm and {norm}_norm are two rules for one norm; choose one of them")
        if value or self.norm == norm:
            self.norm = norm if value else "pre"

    @property
    def rotary(self) -> dict[str, Any] | None:
        """Settings of rotary positions, {} for the defaults, None for none."""
        return self.positions().get("rotary")

    @rotary.setter
    def rotary(self, value: dict[str, Any] | None) -> None:
        self._place("rotary", value)

    @property
    def relative(self) -> int:
        """Hidden width of the MLPs of relative positions, 0 for none."""
        found = self.positions().get("relative")
        return 0 if found is None else int(found.get("hidden", RELATIVE_HIDDEN))

    @relative.setter
    def relative(self, value: int) -> None:
        self._place("relative", {"hidden": value} if value else None)

    def positions(self) -> dict[str, dict[str, Any]]:
        """{kind: settings} of all that `position` names."""
        given = [] if self.position is None else self.position if isinstance(self.position, list) else [self.position]
        return dict(named(one, "position") for one in given)

    def _place(self, kind: str, settings: dict[str, Any] | None) -> None:
        found = {k: v for k, v in self.positions().items() if k != kind} | (
            {} if settings is None else {kind: settings}
        )
        listed = [{"kind": k, **v} for k, v in found.items()]
        self.position = None if not listed else listed[0] if len(listed) == 1 else listed

    @property
    def pooling(self) -> str:
        return named(self.readout, "readout")[0]

    @pooling.setter
    def pooling(self, value: str) -> None:
        self._read(value, self.pooler)

    @property
    def pooler(self) -> dict[str, Any] | None:
        """Settings of the readout, None for its defaults."""
        return named(self.readout, "readout")[1] or None

    @pooler.setter
    def pooler(self, value: dict[str, Any] | None) -> None:
        self._read(self.pooling, value)

    def _read(self, kind: str, settings: dict[str, Any] | None) -> None:
        self.readout = {"kind": kind, **settings} if settings else kind

    # --- what is asked of a description ---

    @property
    def prompt_counts(self) -> tuple[int, int | None]:
        """Deep prompts a layer of inputs, and of candidates where they have their own, else None."""
        if not self.separate_prompts:
            return self.prompts, None
        return self.prompts, self.prompts if self.candidate_prompts is None else self.candidate_prompts

    @property
    def known(self) -> tuple[int, int]:
        """How many modalities and tasks routers tell apart."""
        return 1, 0

    def described(self) -> dict[str, Any]:
        """The fields of the description alone, as new values: `EncoderSpec(**described)` is an equal one."""
        own = {f.name: vars(self)[f.name] for f in fields(EncoderSpec)}
        return asdict(EncoderSpec(**own)) | {"moe": MoeSpec(**asdict(self.moe))}

    def stack(self) -> list[LayerSpec]:
        """Every layer, without the experts that `moe.placement` puts in. UserError for lists that do not fit."""
        if self.steps:
            found = [layer_of(one, i) for i, one in enumerate(self.steps)]
            if len(found) != self.layers:
                raise UserError(
                    f"model.steps lists {len(found)} layers; set model.layers={len(found)}, it is {self.layers}"
                )
            return found
        pairs = zip(self._each("mixers"), self._each("channel_mixers"), strict=True)
        return [LayerSpec(mixer, channel, self.norm) for mixer, channel in pairs]

    def _each(self, key: str) -> list[Any]:
        given = vars(self)[key]
        if not isinstance(given, list):
            return [given] * self.layers
        if len(given) != self.layers:
            raise UserError(
                f"model.{key} lists {len(given)} of model.layers={self.layers} layers; name one a layer, or one for all"
            )
        return given

    @property
    def out_width(self) -> int:
        """Width of the tokens behind the last layer."""
        return next((layer.width for layer in reversed(self.stack()) if layer.width), self.width)

    @property
    def widest(self) -> int:
        """Width of the widest layer."""
        return max(self.width, *(layer.width for layer in self.stack()))

    def with_stack(self, stack: list[LayerSpec]) -> Self:
        """The same with these layers, experts among them by name."""
        changed = self.described() | {"layers": len(stack), "steps": [asdict(layer) for layer in stack]}
        own = {f.name: vars(self)[f.name] for f in fields(self) if f.init} | changed
        return type(self)(**own | {"moe": MoeSpec(**asdict(self.moe) | {"placement": "none"})})

    def check_sizes(self) -> None:
        """UserError for sizes and names that no model can have, whatever the tables of mixers hold."""
        for name in ("width", "heads", "hidden"):
            at_least(1, f"model.{name}", vars(self)[name])
        for name in ("layers", "prompts", "output_size", "head_dim", "local"):
            at_least(0, f"model.{name}", vars(self)[name])
        at_least(0, "model.candidate_prompts", self.candidate_prompts or 0)
        if self.eps <= 0 or self.layer_scale < 0:
            raise UserError(
                f"model.eps={self.eps}, layer_scale={self.layer_scale}: eps > 0 and layer_scale >= 0 are needed"
            )
        if not 0 <= self.drop_path < 1:
            raise UserError(f"model.drop_path={self.drop_path}: it is a rate, 0 <= drop_path < 1")
        if not 0 < self.initial_scale <= 100:
            raise UserError(f"model.initial_scale={self.initial_scale}: it must lie in 0 < scale <= 100")
        width = self.width
        for layer in self.stack():
            check_name(layer.norm, NORMS, "norm")
            at_least(0, "model.steps: heads", layer.heads)
            at_least(0, "model.steps: hidden", layer.hidden)
            at_least(0, "model.steps: width", layer.width)
            at_least(0, "model.steps: head_dim", layer.head_dim)
            if layer.width not in (0, width) and not layer.stage:
                raise UserError(
                    f"model.steps: width {layer.width} behind {width}; give that layer a stage, such as merge"
                )
            width = layer.width or width
            if not (layer.head_dim or self.head_dim):
                divides(layer.heads or self.heads, width)


HOW = tuple(f.name for f in fields(EncoderSpec) if f.metadata.get("how"))
