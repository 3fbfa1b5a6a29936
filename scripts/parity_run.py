"""The official Uni-Perceiver's tensors made anew by this framework: one folder of reference tensors, case by case."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from generalist.convert.uni_perceiver.checkpoint import build, official_names
from generalist.convert.uni_perceiver.keys import CONV, SPATIAL
from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Packed, Role, Span
from generalist.hf.model import GeneralistModel
from generalist.model.decode import decode, vocabulary_features
from generalist.nn.experts.usage import ExpertUsage
from generalist.nn.taps import Kept
from generalist.scripts.parity_compare import FORWARD, GRADIENT, Row, compare
from generalist.scripts.parity_files import CASES, WORDS, Entry, Tensors
from generalist.tasks.candidates.likelihood import negative_log_likelihood
from generalist.tokenizers_mod.text.text import text_span
from generalist.tokenizers_mod.text.text_tokens import NO_POSITION
from generalist.tokenizers_mod.vision.video import Video

# case -> attribute rows of inputs and candidates in the mixture's file
ROUTED = {
    "img_cls": ("image_input", "class_names"),
    "vid_cls": ("image_input", "class_names"),
    "mlm": ("mlm_input", "vocab"),
    "caption": ("caption_input", "vocab"),
    "retrieve": ("image_input", "retrieval_target"),
}
GATES = {"mixer": "self_attn.qkv_proj", "mlp": "linear1"}


class Reference:
    """One entry of a folder as a model, and its inputs as sequences of spans.

    heads: attention heads, which no file tells; 0 = the number that the file's own outputs agree with best.
    """

    def __init__(self, folder: Path, entry: Entry, heads: int = 0) -> None:
        found = Tensors.read(folder, entry)
        self.x, self.y, self.meta = found.x, found.y, found.meta
        self.end, self.spe = found.specials
        self.words = self.x["caption_ids"].shape[1] // 2 if "caption_ids" in self.x else 0
        self.model: GeneralistModel
        picture = self.x["image"].shape[-2:] if "image" in self.x else (0, 0)
        self.size = list(picture) if _cells(found.w, picture) else 0
        self.weights = found.w
        self.load(heads or agreeing_heads(folder, entry))

    def load(self, heads: int) -> None:
        """The model with so many heads, fresh from the file."""
        made = build(dict(self.weights), heads=heads, size=self.size, end_id=self.end, spe_id=self.spe)
        self.model, self.unused = made[0], made[3]
        vision = self.model.modalities["image"]
        assert isinstance(vision, Video)
        self.vision = vision

    # --- sequences ---

    def summary(self) -> Span:
        return text_span(torch.tensor([self.spe]), torch.tensor([NO_POSITION]))

    def question(self, label: Tensor | None = None) -> Span:
        return self.summary().ask([0], None if label is None else label.reshape(1, *label.shape))

    def text(self, ids: Tensor, invalid: Tensor) -> Span:
        return text_span(ids[invalid == 0])

    def picture(self, clip: Tensor) -> Span:
        return self.vision.patches(clip if clip.ndim == 4 else clip[None])

    def names(self) -> Packed:
        rows = zip(self.x["names_ids"], self.x["names_invalid"], strict=True)
        return pack([[self.question(), self.text(i, v)] for i, v in rows])

    def vocabulary(self) -> Packed:
        return pack([[self.question(), text_span(ids)] for ids in self.x["vocab_ids"]])

    def caption(self, i: int) -> Span:
        """Word i asked at its own SPE; see `Text.caption_span`."""
        n = self.words
        ids = self.x["caption_ids"][i, :n][self.x["caption_invalid"][i, :n] == 0]
        slots = torch.arange(2 * len(ids))
        shown = torch.stack([torch.full_like(ids, self.spe), ids], 1).flatten()
        span = text_span(shown, slots // 2)
        span = Span("text", span.data, len(shown), causal=slots % 2 == 1, hidden=slots % 2 == 0)
        return span.ask(slots[::2], ids)

    def inputs(self, case: str) -> Packed:
        x = self.x
        if case in ("img_cls", "img_cls_soft"):
            target = x["soft_target" if case.endswith("soft") else "cls_target"]
            return pack([[self.question(t), self.picture(p)] for t, p in zip(target, x["image"], strict=True)])
        if case == "vid_cls":
            return pack([[self.question(t), self.picture(p)] for t, p in zip(x["vid_target"], x["video"], strict=True)])
        if case == "mlm":
            sequences = []
            for ids, target in zip(x["mlm_ids"], x["mlm_target"], strict=True):
                at = (target >= 0).nonzero().squeeze(1)
                sequences.append([self.summary(), text_span(ids).ask(at, target[at])])
            return pack(sequences)
        if case == "caption":
            return pack([[self.summary(), self.picture(p), self.caption(i)] for i, p in enumerate(x["image"])])
        if case == "retrieve":
            return pack([[self.question(), self.picture(p)] for p in x["image"]])
        rows = zip(x["image"], x["vqa_ids"], x["vqa_invalid"], x["vqa_spe_index"], x["vqa_target"], strict=True)
        return pack(
            [
                [self.summary(), self.picture(p), self.text(i, v).ask([int(at)], target.reshape(1))]
                for p, i, v, at, target in rows
            ]
        )

    def candidates(self, case: str) -> Packed:
        """The target set, with the side of the law that its mixture of experts routes by (spec 3.2)."""
        words = case in ("mlm", "caption")
        if case == "retrieve":
            rows = zip(self.x["retr_ids"], self.x["retr_invalid"], strict=True)
            packed = pack([[self.question(), self.text(i, v)] for i, v in rows])
        else:
            packed = self.vocabulary() if words else self.names()
        return replace(packed, role=Role(target=True, other=("vision", "text") if words else ("vision",)))

    # --- comparisons ---

    def beams(self) -> Iterator[Row]:
        """Beam search: the chosen ids (an error is the share of differing ids) and their log-likelihoods."""
        text, summary = self.model.modalities["text"], self.model.modalities["summary"]
        members = vocabulary_features(self.model, text, summary)
        inputs = [[self.summary(), self.picture(p)] for p in self.x["image"]]
        for key in sorted(k for k in self.y if k.startswith("caption.beam") and k.endswith(".ids")):
            case = key.removesuffix(".ids")
            end = int(self.y["caption.beam2_eos.eos_id"]) if "_eos" in case else self.end
            penalty = re.search(r"lenpen([\d.]+)", case)
            beam = re.search(r"beam(\d+)", case)
            ids = self.y[key]
            found = decode(
                self.model, inputs, text, members, "caption",
                int(beam[1]) if beam else 2, ids.shape[1],
                end=end, length_penalty=float(penalty[1]) if penalty else 0.0,
            )  # fmt: skip
            wrong = float((found.ids[:, 0] != ids).float().mean())
            yield Row(case, "ids", wrong, 0.0)
            yield compare(case, "word_logprobs", found.log_p[:, 0], self.y[f"{case}.word_logprobs"])

    def run(self, case: str) -> Iterator[Row]:
        """Forward, losses and gradients of one case against every tensor that the file holds of it."""
        scale, weight, smoothing, entry = CASES[case]
        y = {k[len(case) + 1 :]: v for k, v in self.y.items() if k.startswith(case + ".")}
        model = self.model
        model.zero_grad()
        inputs, candidates = self.inputs(case), self.candidates(case)
        with ExpertUsage(model) as usage:
            queries, members = model.encode_together([inputs, candidates])
        yield from self._routing(case, usage.rows)
        logits = model.logits(queries, members, scale)
        directions = [("", "logits", logits, inputs.labels)]
        if case == "retrieve":
            own = torch.arange(inputs.sequences)
            backward = model.logits(members, queries, scale)
            directions = [("_i2t", "logits_i2t", logits, own), ("_t2i", "logits_t2i", backward, own)]
        total, shown = torch.zeros(1), torch.zeros(1)
        for end, name, values, target in directions:
            assert target is not None
            yield compare(case, name, values, y[name])
            summed, count = negative_log_likelihood(values.log_softmax(-1), target, smoothing)
            loss = weight * summed / count
            total = total + loss
            yield compare(case, f"loss.{entry}{end}", loss.reshape(()), y[f"loss.{entry}{end}"])
            if f"loss.Accuracy{end}" in y:
                accuracy = (values.argmax(-1) == target).float().mean()
                shown = shown + accuracy
                yield compare(case, f"loss.Accuracy{end}", accuracy, y[f"loss.Accuracy{end}"])
        # the official trainer's filler for tasks without a loss of their own
        yield compare(case, "loss.null_loss", torch.zeros(()), y["loss.null_loss"])
        # the official total adds the accuracies, which carry no gradient
        yield compare(case, "loss.total", (total + shown).reshape(()), y["loss.total"])
        total.sum().backward()
        yield from self._gradients(case, y)
        yield from self._evaluation(case, y, queries, members, logits)
        if "layer0_out" in y or "patch_embed" in y:
            yield from self._states(case, y, inputs, candidates)

    def _routing(self, case: str, rows: dict[str, dict[tuple[int, ...], Tensor]]) -> Iterator[Row]:
        """The attribute rows of inputs and candidates, and the experts that every router chose for them."""
        for name, known in rows.items():
            _, _, layer, part = name.split(".")
            for call, attributes in enumerate(ROUTED.get(case, ())):
                bits = [tuple(row) for row in self.y[f"attr.{attributes}"].long().tolist()]
                lost = [row for row in bits if row not in known]
                yield Row("attr", attributes, len(lost) / len(bits), 0.0)
                gates = torch.stack([known[row] for row in bits if row in known])
                head = f"gate.fused_encoder.layers.{layer}.{GATES[part]}.gate.call{call}."
                experts, weights = self.y[f"{case}.{head}experts"], self.y[f"{case}.{head}weights"]
                found = gates.topk(weights.shape[1])
                yield compare(case, f"{head}experts", found.indices, experts, 0.0)
                yield compare(case, f"{head}weights", found.values, weights, FORWARD)

    def _gradients(self, case: str, y: dict[str, Tensor]) -> Iterator[Row]:
        model = self.model
        state = {k: torch.zeros_like(v) for k, v in model.state_dict().items()}
        state |= {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
        found = official_names(state, model.config, {k: torch.zeros_like(v) for k, v in self.unused.items()})
        for name, value in y.items():
            if name == "grad.spe_row":
                row = state["tokenizers.text.token.weight"][self.spe]
                yield compare(case, name, row, value, GRADIENT)
            elif name.startswith("grad."):
                yield compare(case, name, found[name[len("grad.") :]], value, GRADIENT)
        if "grad_norms" in y:
            norms = torch.stack([found[name].norm() for name in self.order(len(y["grad_norms"]))])
            yield compare(case, "grad_norms", norms, y["grad_norms"], GRADIENT)

    def order(self, count: int) -> list[str]:
        """The parameter order of the meta file with this many entries."""
        orders = [v for k, v in self.meta.items() if k.endswith("param_order") and len(v) == count]
        if not orders:
            raise UserError(f"no *param_order of {count} parameters in the folder's meta.json, which grad_norms needs")
        return next((order for order in orders if set(order) <= set(self.weights)), orders[0])

    def _evaluation(
        self, case: str, y: dict[str, Tensor], queries: Tensor, members: Tensor, logits: Tensor
    ) -> Iterator[Row]:
        for name, value in (
            ("eval.output", logits),
            ("eval.input_feats", normalize(queries, dim=-1)),
            ("eval.tgt_feats", normalize(members, dim=-1)),
        ):
            if name in y:
                yield compare(case, name, value, y[name])

    @torch.no_grad()
    def _states(self, case: str, y: dict[str, Tensor], inputs: Packed, candidates: Packed) -> Iterator[Row]:
        """Hidden states of every layer, at real tokens, in the reference's order."""
        model = self.model
        states = Kept(*(f"layers.{i}" for i in range(len(model.encoder.layers))))
        with model.tapped(states):
            model(inputs)
        steps = {"input_sequence": model.embed(inputs)}
        outs = {f"layer{name.removeprefix('layers.')}_out": found[0] for name, found in states.items()}
        steps |= {name: state for name, state in outs.items() if name in y}
        where = self._places(inputs)
        for name, ours in steps.items():
            yield compare(case, name, ours, y[name][where])
        vision = y["patch_embed"].shape[1]
        ours = torch.stack([steps["input_sequence"][f + 1 : f + 1 + vision] for f in inputs.first.tolist()])
        yield compare(case, "patch_embed", ours, y["patch_embed"])
        yield compare(case, "target_spe_hidden", model(candidates, True)[candidates.asked], y["target_spe_hidden"])

    def _places(self, inputs: Packed) -> tuple[Tensor, Tensor]:
        """For every packed token its (sequence, position) in the padded reference; words come before their SPEs."""
        within = torch.arange(inputs.tokens) - inputs.first[inputs.owner]
        causal = inputs.layout.hidden.any()
        if causal:
            start = 1 + self.picture(self.x["image"][0]).length
            slot = within - start
            words = start + slot // 2
            within = torch.where(within < start, within, torch.where(slot % 2 == 1, words, words + self.words))
        return inputs.owner, within


def _cells(weights: dict[str, Tensor], sides: Sequence[int]) -> bool:
    """Whether the spatial table has a row for every patch of pictures of these sides and no more."""
    patch = weights[CONV].shape[-1]
    return (sides[0] // patch) * (sides[1] // patch) == len(weights[SPATIAL]) and sides[0] != sides[1]


@lru_cache(maxsize=32)
def agreeing_heads(folder: Path, entry: Entry) -> int:
    """The number of attention heads with which the first case's logits are nearest to the file's."""
    width = Tensors.read(folder, entry).w[WORDS].shape[1]
    divisors = [h for h in (4, *range(1, width + 1)) if width % h == 0]
    errors: dict[int, float] = {}
    reference = Reference(folder, entry, divisors[0])
    for heads in dict.fromkeys(divisors):
        reference.load(heads)
        errors[heads] = next(r.error for r in reference.run(entry.cases[0]) if r.tensor.startswith("logits"))
        if errors[heads] <= FORWARD:
            break
    return min(errors, key=errors.__getitem__)
