"""Pictures named with nothing trained: ImageNet's probabilities times MiniLM's vectors of ImageNet's names.

    pip install generalist-encoder[zoo]
    python -m scripts.names_zero_shot DATA --count 500       # DATA holds cifar10_subset/test.parquet

A picture's vector is the sum of p(class) e(name of the class) over ImageNet's 1,000 classes, p of EfficientNet-Lite0
and e of MiniLM; an answer is the candidate whose vector is most like it (ConSE, 1312.5650). The names are timm's.
Measured accuracy with its 95 % interval goes to scripts/bench_results/names_zero_shot.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import cast

import torch
from timm.data import ImageNetInfo
from torch import Tensor, nn

from generalist.data.sources.local import Arrays
from generalist.tokenizers_mod.libraries import weights, zoo
from generalist.tokenizers_mod.libraries.timm_tower import create
from generalist.tokenizers_mod.pretrained.backbone import Backbone
from generalist.tokenizers_mod.pretrained.base import PretrainedTokens
from generalist.tokenizers_mod.pretrained.text import PretrainedText

RESULTS = Path(__file__).parent / "bench_results" / "names_zero_shot.json"
NET = "zoo:efficientnet_lite0"


def classifier() -> nn.Module:
    """The packaged network with its head of 1,000 classes."""
    found = zoo.entry(NET)
    net = create(found.backbone, {})
    net.load_state_dict(found.renamed(weights.read(found.path(), NET), net.state_dict()))
    return net.eval()


class Words:
    """MiniLM's vector of a text, at unit length."""

    def __init__(self) -> None:
        self.modality = PretrainedText(encoder="zoo:minilm", pooling="auto", frozen=True, max_length=64)
        self.module = self.modality.build(384).eval()

    def __call__(self, texts: list[str]) -> Tensor:
        """Float[n 384]."""
        spans = [self.modality.span(self.modality.read(text)) for text in texts]
        return torch.cat([cast(PretrainedTokens, self.module).made(span.data) for span in spans])


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--template", default="a photo of a {}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    fields = {"image": "picture:image_jpg", "label": "label_name"}
    records = Arrays(f"{args.data}/cifar10_subset/{{split}}.parquet", fields, limit=args.count).open("test")
    rows = [records[i] for i in range(len(records))]
    answers = sorted({row["label"] for row in rows})
    info, words, net = ImageNetInfo(), Words(), classifier()
    names = [info.index_to_description(i).split(",")[0] for i in range(1000)]
    known, asked = (words([args.template.format(name) for name in these]) for these in (names, answers))
    picture, right = Backbone(backbone=NET), 0
    for row in rows:
        p = net(picture.prepared(picture.pixels_of(picture.read(row["image"])))[None]).softmax(-1)
        right += answers[int((p @ known @ asked.T).argmax())] == row["label"]
    accuracy = right / len(rows)
    spread = 1.96 * (accuracy * (1 - accuracy) / len(rows)) ** 0.5
    found = {"accuracy": accuracy, "95 %": spread, "pictures": len(rows), "chance": 1 / len(answers)}
    print(json.dumps(found))
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
