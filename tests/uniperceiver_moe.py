"""The tiny models of the reference files as models of this framework, their tokens embedded by the spec's formulas."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from generalist.convert.uni_perceiver.expert_keys import moe_settings, moe_state_dict
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Packed, Role, Span
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.scripts.parity_files import WORDS, Tensors, entries
from generalist.scripts.parity_run import agreeing_heads

PLAIN = {
    "gamma_1": "gamma1",
    "gamma_2": "gamma2",
    "norm1": "norm1",
    "norm2": "norm2",
    "self_attn.qkv_proj": "mixer.qkv",
    "self_attn.dense": "mixer.out",
    "self_attn.in_proj_weight": "mixer.qkv.weight",
    "self_attn.in_proj_bias": "mixer.qkv.bias",
    "self_attn.out_proj": "mixer.out",
    "linear1": "mlp.up",
    "linear2": "mlp.down",
}


class Given(nn.Module):
    """A tokenizer whose spans hold tokens already."""

    def forward(self, data: dict[str, Tensor]) -> Tensor:
        return data["x"]


class Features(nn.Module):
    """For `functional_call`: features of several packed batches in one pass."""

    def __init__(self, model: GeneralistModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, parts: list[Packed]) -> list[Tensor]:
        return self.model.encode_together(parts)


class Reference:
    """weights: official name -> leaf tensor with gradient; x, y: inputs and outputs of the file."""

    def __init__(self, folder: Path, name: str = "v1_tiny_moe") -> None:
        entry = entries(folder)[name]
        tensors = Tensors.read(folder, entry)
        self.weights = {k: v.clone().requires_grad_() for k, v in tensors.w.items()}
        self.x, self.y, self.meta, self.spe = tensors.x, tensors.y, tensors.meta, tensors.specials[1]
        self.layers = 1 + max(int(k.split(".")[2]) for k in tensors.w if k.startswith("fused_encoder.layers."))
        up = next(v for k, v in tensors.w.items() if ".linear1." in k and v.ndim == 2 and ".gate." not in k)
        config = GeneralistConfig(
            hidden_size=tensors.w[WORDS].shape[1],
            num_hidden_layers=self.layers,
            num_attention_heads=agreeing_heads(folder, entry),
            intermediate_size=len(up),
            layer_scale=1.0,
            modalities={"image": {}},
            scales=["img_cls", "video_cls", "text_mlm", "caption", "retrieve"],
            **moe_settings(self.weights),
        )
        self.model = GeneralistModel(config).eval()  # no router noise: the file was made without
        self.model.kinds = {"image": "vision", "text": "text"}
        self.model.tokenizers = nn.ModuleDict({"image": Given(), "text": Given()})
        self.pass_ = Features(self.model)
        missing = {"model." + n for n, _ in self.model.named_parameters()} - set(self.parameters())
        assert not missing, missing

    def parameters(self) -> dict[str, Tensor]:
        """Our names -> tensors made of the official ones, with gradient."""
        out = {}
        for i in range(self.layers):
            head = f"fused_encoder.layers.{i}."
            layer = {k[len(head) :]: v for k, v in self.weights.items() if k.startswith(head)}
            ours, _ = moe_state_dict(layer)
            for theirs, name in PLAIN.items():
                ends = ("",) if theirs in layer else (".weight", ".bias")
                ours |= {name + end: layer[theirs + end] for end in ends if theirs + end in layer}
            out |= {f"model.encoder.layers.{i}.{k}": v for k, v in ours.items()}
        for theirs, name in (("ln_post", "head.norm"), ("proj", "head.projection")):
            out |= {f"model.{name}.{e}": self.weights[f"loss_prepare.{theirs}.{e}"] for e in ("weight", "bias")}
        norm = "token_embed.embeddings_norm."
        out |= {f"model.embedding_norm.{e}": self.weights[norm + e] for e in ("weight", "bias")}
        for name in self.model.log_scales:
            out[f"model.log_scales.{name}"] = self.weights[f"loss_prepare.logit_scale_{name}"].reshape(1)
        return out

    def load(self) -> GeneralistModel:
        """The model with the file's weights in place, for runs without gradient."""
        self.model.load_state_dict({k.removeprefix("model."): v.detach() for k, v in self.parameters().items()})
        return self.model.eval()

    def features(self, parts: list[Packed]) -> list[Tensor]:
        return torch.func.functional_call(self.pass_, self.parameters(), (parts,))

    # --- tokens before the shared norm (spec 1.4-1.6) ---

    def summary(self) -> Span:
        return Span("text", {"x": self.weights["token_embed.embeddings.weight"][self.spe : self.spe + 1]}, 1).ask([0])

    def words(self, ids: Tensor, position: Tensor | None = None, **flags: Tensor) -> Span:
        w, n = self.weights, len(ids)
        place = w["token_embed.embeddings_pos.position_embeddings.weight"]
        at = torch.arange(n) if position is None else position
        x = w["token_embed.embeddings.weight"][ids] + place[at] + w["token_embed.embeddings_token_type.weight"][0]
        return Span("text", {"x": x}, n, **flags)

    def frames(self, frames: Tensor) -> Span:
        """[T 3 H W] -> T * rows * columns tokens, frame by frame."""
        w = self.weights
        kernel, bias = w["video_embed.embeddings.weight"], w["video_embed.embeddings.bias"]
        x = conv2d(frames, kernel, bias, stride=kernel.shape[-1])
        x = x.flatten(2).transpose(1, 2) + w["video_embed.embeddings_st_pos.spatial_pos_embed.weight"]
        x = x + w["video_embed.embeddings_st_pos.temporal_pos_embed.weight"][: len(frames), None]
        return Span("image", {"x": x.flatten(0, 1)}, x.shape[0] * x.shape[1])

    # --- the cases: packed inputs and candidates ---

    def pictures(self, images: Tensor) -> Packed:
        return pack([[self.summary(), self.frames(i if i.ndim == 4 else i[None])] for i in images])

    def texts(self, ids: Tensor, invalid: Tensor | None = None, other: tuple[str, ...] = ("vision",)) -> Packed:
        real = [None] * len(ids) if invalid is None else [i == 0 for i in invalid]
        packed = pack([[self.summary(), self.words(t, mask=m)] for t, m in zip(ids, real, strict=True)])
        packed.role = Role(target=True, other=other)
        return packed

    def names(self) -> Packed:
        return self.texts(self.x["names_ids"], self.x["names_invalid"])

    def vocabulary(self, count: int | None = None) -> Packed:
        return self.texts(self.x["vocab_ids"][:count], other=("vision", "text"))

    def masked(self, rows: slice = slice(None)) -> Packed:
        sequences = []
        for ids, target in zip(self.x["mlm_ids"][rows], self.x["mlm_target"][rows], strict=True):
            asked = (target != -1).nonzero().squeeze(1)
            summary = Span("text", self.summary().data, 1)
            sequences.append([summary, self.words(ids).ask(asked, target[asked])])
        return pack(sequences)

    def captions(self) -> Packed:
        """Word i behind the SPE that asks for it: SPE_0 w_0 SPE_1 w_1 ... (the file holds the words, then the SPEs)."""
        sequences = []
        slots = torch.arange(self.x["caption_ids"].shape[1])
        for image, ids, invalid, target in zip(
            *(self.x[k] for k in ("image", "caption_ids", "caption_invalid", "caption_target")), strict=True
        ):
            order = interleaved(len(slots) // 2)
            asked = 2 * (target != -1).nonzero().squeeze(1)
            span = self.words(
                ids[order], slots // 2, mask=invalid[order] == 0, causal=slots % 2 == 1, hidden=slots % 2 == 0
            )
            summary = Span("text", self.summary().data, 1)
            sequences.append([summary, self.frames(image[None]), span.ask(asked, target[target != -1])])
        return pack(sequences)


def interleaved(count: int = 6) -> Tensor:
    """Places of SPE_0 w_0 SPE_1 w_1 ... among the file's words and as many SPEs."""
    return torch.stack([torch.arange(count, 2 * count), torch.arange(count)], 1).flatten()
