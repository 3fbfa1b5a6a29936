"""The model in CLIP_benchmark, whose own code makes the classifier from names and templates, reads shards and scores.

    python -m generalist.clients.clip_benchmark eval --model_type generalist --model FOLDER --pretrained none \\
        --dataset wds/NAME --dataset_root SHARDS --task zeroshot_classification

Pictures keep their shape here as everywhere else in this project; the tensors of a batch are squares whose last channel
says which pixels are real.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from generalist.data.base.errors import UserError

PADDING = -1  # of token ids; no vocabulary has it


def taking(processor: Any, tensor: str) -> str:
    """The first modality whose padded tensor has this name. UserError where there is none."""
    for name, modality in processor.built.items():
        if modality.tensor_names[:1] == (tensor,):
            return name
    raise UserError(f"this model has no modality that takes {tensor}; CLIP_benchmark needs pictures and texts")


class AsClip(nn.Module):
    """encode_image and encode_text of a model, with the transform and the tokenizer that go with them."""

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__()
        self.model = model
        self.picture, self.text = taking(processor, "pixel_values"), taking(processor, "input_ids")
        self.modalities = processor.built
        self.roles = model.sides.roles({self.picture}, {self.text})

    def transform(self, picture: Any) -> Tensor:
        """A picture -> Float[C + 1, S, S]: its normalised pixels in the upper left corner, and where they are."""
        modality: Any = self.modalities[self.picture]
        pixels = modality.tensors([modality.read(picture)])["pixel_values"][0]
        real = torch.cat([pixels, torch.ones_like(pixels[:1])])
        return pad(real, (0, modality.size - real.shape[2], 0, modality.size - real.shape[1]))

    def tokenize(self, texts: str | list[str]) -> Tensor:
        """Texts -> ids Int[B n], padded with -1."""
        modality: Any = self.modalities[self.text]
        ids = [modality.ids(modality.read(text)) for text in ([texts] if isinstance(texts, str) else texts)]
        return pad_sequence(ids, batch_first=True, padding_value=PADDING)

    def encode_image(self, images: Tensor) -> Tensor:
        """What `transform` gives, stacked: Float[B C+1 S S] -> features Float[B D]."""
        tensors = {"pixel_values": images[:, :-1], "pixel_mask": images[:, -1]}
        return self.model.encode_padded(self.picture, tensors, role=self.roles[0]).pooler_output

    def encode_text(self, ids: Tensor) -> Tensor:
        """What `tokenize` gives -> features Float[B D], as candidates."""
        tensors = {"input_ids": ids.clamp(min=0), "attention_mask": (ids != PADDING).long()}
        return self.model.encode_padded(self.text, tensors, candidate=True, role=self.roles[1]).pooler_output


def load(model_name: str, pretrained: str = "", cache_dir: str | None = None, device: Any = "cpu") -> tuple[Any, ...]:
    """CLIP_benchmark's loader: a run's or a model's folder -> (model, transform, tokenizer)."""
    from generalist.hf.predict import load_model

    clip = AsClip(*load_model(Path(model_name))).to(device).eval()
    return clip, clip.transform, clip.tokenize


def accuracy(output: Tensor, target: Tensor, topk: tuple[int, ...] = (1,)) -> list[float]:
    """Share of the rows whose target, Int[N], is among the k highest of Float[N C], for every k."""
    best = output.topk(max(topk), dim=1).indices == target.unsqueeze(1)
    return [float(best[:, :k].any(1).float().mean()) for k in topk]


def register() -> None:
    """Make `--model_type generalist` known to CLIP_benchmark. UserError where it is not installed."""
    try:
        from clip_benchmark import models
        from clip_benchmark.metrics import zeroshot_classification
    except ImportError as error:
        raise UserError(f"{error}: pip install 'generalist-encoder[benchmarks]' brings CLIP_benchmark") from error
    models.TYPE2FUNC["generalist"] = load
    zeroshot_classification.accuracy = accuracy  # theirs makes a number of a one-element array, which numpy 2.4 refuses
    if "generalist" not in models.MODEL_TYPES:
        models.MODEL_TYPES.append("generalist")


def main(argv: list[str] | None = None) -> None:
    """CLIP_benchmark's command with this model known to it."""
    register()
    from clip_benchmark import cli

    if argv is not None:
        sys.argv[1:] = argv
    cli.main()


if __name__ == "__main__":
    main()
