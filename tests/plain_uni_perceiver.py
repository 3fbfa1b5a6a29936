"""A second Uni-Perceiver v1, padded and written out by the spec's formulas: reference folders of any other sizes."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import conv2d, cross_entropy, gelu, layer_norm, linear, normalize

from generalist.convert.uni_perceiver.keys import SCALES
from generalist.scripts.parity_files import CASES
from generalist.tokenizers_mod.vision.films.frames import spatial_table


@dataclass
class Sizes:
    """Of a model and its inputs; end, spe: ids of the two tokens."""

    width: int = 24
    heads: int = 3
    hidden: int = 40
    layers: int = 3
    words: int = 70
    end: int = 66
    spe: int = 69
    patch: int = 8
    sides: tuple[int, int] = (24, 40)
    frames: int = 2
    positions: int = 12
    caption: int = 4


class Plain:
    """weights: official name -> leaf tensor with gradient."""

    def __init__(self, s: Sizes) -> None:
        self.s, d, grid = s, s.width, (s.sides[0] // s.patch, s.sides[1] // s.patch)
        shapes = {"token_embed.embeddings.weight": (s.words, d)}
        shapes |= {f"token_embed.embeddings_norm.{e}": (d,) for e in ("weight", "bias")}
        shapes["token_embed.embeddings_pos.position_embeddings.weight"] = (s.positions, d)
        shapes["token_embed.embeddings_token_type.weight"] = (2, d)
        shapes |= {"video_embed.embeddings.weight": (d, 3, s.patch, s.patch), "video_embed.embeddings.bias": (d,)}
        shapes["video_embed.embeddings_st_pos.temporal_pos_embed.weight"] = (s.frames, d)
        for i in range(s.layers):
            block = {"gamma_1": (d,), "gamma_2": (d,), "self_attn.in_proj_weight": (3 * d, d)}
            block |= {"self_attn.in_proj_bias": (3 * d,), "self_attn.out_proj.weight": (d, d)}
            block |= {"self_attn.out_proj.bias": (d,), "linear1.weight": (s.hidden, d), "linear1.bias": (s.hidden,)}
            block |= {"linear2.weight": (d, s.hidden), "linear2.bias": (d,)}
            block |= {f"norm{n}.{e}": (d,) for n in (1, 2) for e in ("weight", "bias")}
            shapes |= {f"fused_encoder.layers.{i}.{name}": shape for name, shape in block.items()}
        shapes |= {"loss_prepare.ln_post.weight": (d,), "loss_prepare.ln_post.bias": (d,)}
        shapes |= {"loss_prepare.proj.weight": (d, d), "loss_prepare.proj.bias": (d,)}
        self.w = {k: torch.randn(v) * (0.2 if len(v) > 1 else 0.1) for k, v in shapes.items()}
        for name, value in self.w.items():  # norms' gains and layer scales near one
            if ("norm" in name and name.endswith("weight")) or "gamma" in name or name.endswith("ln_post.weight"):
                value.add_(1)
        self.w |= {f"loss_prepare.logit_scale_{n}": 2.6 + 0.1 * torch.randn(()) for n in SCALES}
        for value in self.w.values():
            value.requires_grad_()
        self.table = spatial_table(grid, d, 160 / 224)

    def norm(self, x: Tensor, name: str) -> Tensor:
        return layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def spe(self, count: int) -> Tensor:
        row = self.w["token_embed.embeddings.weight"][self.s.spe]
        return self.norm(row, "token_embed.embeddings_norm").expand(count, 1, -1)

    def text(self, ids: Tensor, place: Tensor | None = None) -> Tensor:
        w, at = self.w, torch.arange(ids.shape[1]) if place is None else place
        x = w["token_embed.embeddings.weight"][ids] + w["token_embed.embeddings_pos.position_embeddings.weight"][at]
        return self.norm(x + w["token_embed.embeddings_token_type.weight"][0], "token_embed.embeddings_norm")

    def vision(self, clips: Tensor) -> Tensor:
        """[B, T, 3, H, W] -> [B, T rows columns, D]."""
        b, t = clips.shape[:2]
        kernel, bias = self.w["video_embed.embeddings.weight"], self.w["video_embed.embeddings.bias"]
        x = conv2d(clips.flatten(0, 1), kernel, bias, stride=self.s.patch).flatten(2).transpose(1, 2)
        time = self.w["video_embed.embeddings_st_pos.temporal_pos_embed.weight"][:t, None]
        x = x.unflatten(0, (b, t)) + time + self.table
        return self.norm(x.flatten(1, 2), "token_embed.embeddings_norm")

    def encode(self, x: Tensor, seen: Tensor) -> list[Tensor]:
        """Every layer's output; seen: Bool[B, N, N] or [B, 1, N], who (row) sees whom."""
        states = []
        for i in range(self.s.layers):
            w = {k.removeprefix(f"fused_encoder.layers.{i}."): v for k, v in self.w.items()}
            h = layer_norm(x, x.shape[-1:], w["norm1.weight"], w["norm1.bias"])
            q, k, v = linear(h, w["self_attn.in_proj_weight"], w["self_attn.in_proj_bias"]).chunk(3, -1)
            q, k, v = (part.unflatten(-1, (self.s.heads, -1)).transpose(1, 2) for part in (q, k, v))
            scores = q @ k.mT / q.shape[-1] ** 0.5
            h = (scores.masked_fill(~seen.unsqueeze(1), -torch.inf).softmax(-1) @ v).transpose(1, 2).flatten(2)
            x = x + w["gamma_1"] * linear(h, w["self_attn.out_proj.weight"], w["self_attn.out_proj.bias"])
            h = gelu(linear(layer_norm(x, x.shape[-1:], w["norm2.weight"], w["norm2.bias"]), *_pair(w, "linear1")))
            x = x + w["gamma_2"] * linear(h, *_pair(w, "linear2"))
            states.append(x)
        return states

    def read(self, hidden: Tensor) -> Tensor:
        return linear(self.norm(hidden, "loss_prepare.ln_post"), *_pair(self.w, "loss_prepare.proj"))

    def logits(self, a: Tensor, b: Tensor, scale: str) -> Tensor:
        s = self.w[f"loss_prepare.logit_scale_{scale}"].exp().clamp(max=100)
        return normalize(a, dim=-1) @ normalize(b, dim=-1).mT * s

    def target(self, ids: Tensor, invalid: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden and compared feature of a target set's SPE."""
        x = torch.cat([self.spe(len(ids)), self.text(ids)], 1)
        hidden = self.encode(x, _all(invalid, 1)[:, None])[-1][:, 0]
        return hidden, self.read(hidden)


def _pair(w: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    return w[f"{name}.weight"], w[f"{name}.bias"]


def _all(invalid: Tensor, before: int) -> Tensor:
    """Bool[B, before + n]: real tokens, `before` of them in front."""
    return torch.cat([torch.ones(len(invalid), before, dtype=torch.bool), invalid == 0], 1)


def inputs(s: Sizes) -> dict[str, Tensor]:
    """x.* of a reference file."""
    low = 1 + min(s.words - 6, 40)

    def texts(rows: int, length: int, last: int) -> tuple[Tensor, Tensor]:
        ids, invalid = torch.randint(1, low, (rows, length)), torch.zeros(rows, length, dtype=torch.uint8)
        for row in range(rows):
            n = length - row % 3
            ids[row, n - 1], ids[row, n:], invalid[row, n:] = last, 0, 1
        return ids, invalid

    x = {"image": torch.randn(3, 3, *s.sides), "video": torch.randn(2, s.frames, 3, *s.sides)}
    x["names_ids"], x["names_invalid"] = texts(5, 4, s.end)
    x["retr_ids"], x["retr_invalid"] = texts(3, 5, s.end)
    x["vqa_ids"], x["vqa_invalid"] = texts(3, 6, s.end)
    x["vqa_spe_index"] = torch.tensor([2, 1, 1])
    x["vqa_ids"][torch.arange(3), x["vqa_spe_index"]] = s.spe
    words, invalid = texts(3, s.caption, s.end)
    x["caption_ids"] = torch.cat([words, torch.where(invalid == 1, 0, s.spe)], 1)
    x["caption_invalid"] = torch.cat([invalid, invalid], 1)
    x["caption_target"] = torch.where(invalid == 1, -1, words)
    x["vocab_ids"] = torch.stack([torch.arange(s.words), torch.full((s.words,), s.end)], 1)
    x["mlm_ids"], x["mlm_target"] = torch.randint(1, low, (2, 7)), torch.full((2, 7), -1)
    x["mlm_target"][0, 2], x["mlm_target"][1, [0, 5]] = 7, torch.tensor([3, 9])
    x |= {"cls_target": torch.tensor([4, 0, 2]), "vid_target": torch.tensor([1, 3])}
    x |= {"vqa_target": torch.tensor([0, 4, 1]), "soft_target": torch.rand(3, 5).softmax(-1)}
    return x


def case(model: Plain, x: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """y.NAME.* without gradients: logits, losses, hidden states."""
    scale, weight, smoothing, entry = CASES[name]
    y: dict[str, Tensor] = {}
    clips = x["video"] if name == "vid_cls" else x["image"][:, None]
    vision = None if name == "mlm" else model.vision(clips)
    front = [] if vision is None else [vision]
    text, invalid, place = None, torch.zeros(len(clips), 0), None
    if name == "mlm":
        text, invalid = x["mlm_ids"], torch.zeros(x["mlm_ids"].shape)
    elif name == "vqa":
        text, invalid = x["vqa_ids"], x["vqa_invalid"]
    elif name == "caption":
        text, invalid = x["caption_ids"], x["caption_invalid"]
        place = torch.arange(text.shape[1] // 2).repeat(2)
    body = front if text is None else [*front, model.text(text, place)]
    sequence = torch.cat([model.spe(len(body[0])), *body], 1)
    before = sequence.shape[1] - invalid.shape[1]
    seen = _all(invalid, before)[:, None].expand(-1, sequence.shape[1], -1)
    if name == "caption":
        seen = seen & caption_mask(before, text.shape[1] // 2)
    states = model.encode(sequence, seen)
    if name == "caption":
        asked, target = states[-1][:, -x["caption_target"].shape[1] :], x["caption_target"]
    elif name == "mlm":
        asked, target = states[-1][:, 1:], x["mlm_target"]
    elif name == "vqa":
        asked, target = states[-1][torch.arange(3), before + x["vqa_spe_index"]], x["vqa_target"]
    else:
        target = {"vid_cls": x["vid_target"], "img_cls_soft": x["soft_target"]}.get(name, x["cls_target"])
        asked = states[-1][:, 0]
    if name in ("caption", "mlm"):
        asked, target = asked[target >= 0], target[target >= 0]
    queries = model.read(asked)
    if name == "retrieve":
        hidden, members = model.target(x["retr_ids"], x["retr_invalid"])
    elif name in ("caption", "mlm"):
        hidden, members = model.target(x["vocab_ids"], torch.zeros(x["vocab_ids"].shape))
    else:
        hidden, members = model.target(x["names_ids"], x["names_invalid"])
    if name == "retrieve":
        both = (("i2t", queries, members), ("t2i", members, queries))
        for end, a, b in both:
            y[f"logits_{end}"] = model.logits(a, b, scale)
            own = torch.arange(len(a))
            y[f"loss.{entry}_{end}"] = weight * cross_entropy(y[f"logits_{end}"], own, label_smoothing=smoothing)
        y["loss.total"] = y[f"loss.{entry}_i2t"] + y[f"loss.{entry}_t2i"]
    else:
        y["logits"] = model.logits(queries, members, scale)
        y[f"loss.{entry}"] = weight * cross_entropy(y["logits"], target, label_smoothing=smoothing)
        y["loss.total"] = y[f"loss.{entry}"].clone()
    if vision is not None:
        y |= {"patch_embed": vision, "input_sequence": sequence, "target_spe_hidden": hidden}
        y |= {f"layer{i}_out": state for i, state in enumerate(states)}
    return y | {"loss.null_loss": torch.zeros(())}


def caption_mask(before: int, words: int) -> Tensor:
    """Word i sees the words up to itself; SPE i the words before it and itself; the front sees itself (spec 1.9)."""
    n = before + 2 * words
    seen = torch.zeros(n, n, dtype=torch.bool)
    seen[:, :before] = True
    for i in range(words):
        seen[before + i, before : before + i + 1] = True
        seen[before + words + i, before : before + i] = True
        seen[before + words + i, before + words + i] = True
    return seen


def write(folder: Path, s: Sizes, stem: str = "other") -> Plain:
    """A reference folder of these sizes; the model that made it."""
    model, x = Plain(s), inputs(s)
    tensors = {f"w.{k}": v.detach() for k, v in model.w.items()}
    tensors["w.video_embed.embeddings_st_pos.spatial_pos_embed.weight"] = model.table
    tensors["w.video_embed.embeddings_type.weight"] = torch.randn(1, s.width)
    tensors |= {f"x.{k}": v for k, v in x.items()}
    for name in CASES:
        for value in model.w.values():
            value.grad = None
        y = case(model, x, name)
        y["loss.total"].backward()
        grads = {k: torch.zeros_like(v) if v.grad is None else v.grad for k, v in model.w.items()}
        y |= {f"grad.{k}": grads[k] for k in ("fused_encoder.layers.1.gamma_1", "loss_prepare.ln_post.weight")}
        y["grad.spe_row"] = grads["token_embed.embeddings.weight"][s.spe]
        y["grad_norms"] = torch.stack([g.norm() for g in grads.values()])
        tensors |= {f"y.{name}.{k}": v.detach() for k, v in y.items()}
    save_file({k: v.clone().contiguous() for k, v in tensors.items()}, folder / f"{stem}.safetensors")
    (folder / f"{stem}_meta.json").write_text(json.dumps({"dense_param_order": list(model.w)}))
    return model
