"""A mixer under test in a small model of pictures, texts and points (`generalist.commands.check.mixer`)."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from generalist.commands.check.lines import Fault, LeftOut
from generalist.data.base.errors import UserError
from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.data.stream.source import Record, Records
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.nn.experts.experts import Experts
from generalist.nn.mixers.base import Mixer
from generalist.nn.mixers.maps import MapMixer
from generalist.nn.mixers.table import CHANNEL_MIXERS, TOKEN_MIXERS
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.geometry.points import Points
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.image import Image

WIDTH, HEADS, PATCH = 24, 3, 4
SIZES: dict[str, Any] = {"width": WIDTH, "layers": 2, "heads": HEADS, "hidden": 40}
FOUR = ((4, 4), (2, 4), (4, 2), (2, 2))  # rows and columns of the pictures that are looked at
CLASSES = ["a cat sat on a mat", "once upon a time"]


@dataclass
class Pictures:
    """A few records in hand."""

    info: dict[str, Any] = field(default_factory=lambda: {"classes": CLASSES})

    def open(self, split: str) -> Records:
        draw = torch.Generator().manual_seed(4)
        rows: list[Record] = [
            {"id": str(i), "image": torch.rand(1, 16, 16, generator=draw), "label": i % 2} for i in range(4)
        ]
        return Records(rows, dict(self.info))


def words() -> Text:
    text = Text(tokenizer="", learn=300, max_length=8, positions=8)
    text.learn_texts(CLASSES)
    return text


class Subject:
    """A mixer under test by its name and settings, in a model of pictures, texts and points."""

    def __init__(self, name: str, settings: dict[str, Any] | None = None) -> None:
        self.name, self.channel = name, name in CHANNEL_MIXERS
        self.given = {"kind": name, **(settings or {})}
        self.modalities: dict[str, Modality] = {
            "summary": Summary(),
            "text": words(),
            "image": Image(size=16, patch=PATCH, channels=1),
            "points": Points(),
        }
        torch.manual_seed(0)
        self.model = GeneralistModel(self.config()).eval()
        for parameter in self.model.encoder.parameters():  # no zeros or ones that hide a term
            parameter.data.add_(0.1 * torch.randn_like(parameter))
        layer = self.model.encoder.layers[0]
        self.mixer = cast(Mixer, layer.mlp if self.channel else layer.mixer)

    def placed(self, *more: str) -> dict[str, Any]:
        """The keys that put it into the first layer, and `more` names behind it."""
        key, other = ("channel_mixers", "mlp") if self.channel else ("mixers", "attention")
        return {key: [self.given, *(more or (other,))]}

    def config(self, **keys: Any) -> GeneralistConfig:
        own = {name: m.settings() for name, m in self.modalities.items()}
        given = {"modalities": own, "scales": ["default"], **self.placed(), **keys}
        return GeneralistConfig(**SIZES | given)

    def refused(self, says: str, **keys: Any) -> None:
        """Fault unless a configuration with these keys is refused in one line that says so."""
        try:
            self.config(**keys)
        except UserError as error:
            if "\n" in str(error).strip() or says not in str(error):
                raise Fault(f"{str(error)!r} is not one line that says {says!r}") from error
        else:
            raise Fault(f"{keys} is taken, though it must be refused with {says!r}")

    def spans(self) -> list[Span]:
        """Pictures of four sizes, a text and a set of points."""
        own, draw = self.modalities, torch.Generator().manual_seed(1)
        pictures = [own["image"].span(torch.rand(1, PATCH * h, PATCH * w, generator=draw)) for h, w in FOUR]
        return [*pictures, own["text"].span("a cat sat"), own["points"].span(torch.rand(40, 3, generator=draw))]

    def sequences(self) -> list[list[Span]]:
        """Each span asked at a summary, and one sequence of several."""
        spans = self.spans()
        several = [[span] for span in spans] + [[spans[4], spans[1], spans[3]]]
        return [[self.modalities["summary"].span(None).ask([0]), *own] for own in several]

    @torch.no_grad()
    def features(self, model: GeneralistModel | None = None) -> Tensor:
        return (model or self.model).features(pack(self.sequences()))

    def tokens(self) -> tuple[Tensor, At]:
        """Random tokens of the sequences, and where they stand."""
        packed = pack(self.sequences())
        width = self.model.config.width
        return torch.randn(packed.tokens, width, generator=torch.Generator().manual_seed(2)), self.model.at(packed)

    def module(self) -> tuple[nn.Module, tuple[Any, ...]]:
        """What compilers are given: the operator on maps itself, or the mixer with its place, and arguments."""
        if isinstance(self.mixer, MapMixer):
            return self.mixer.operator, (torch.randn(3, 4, 4, WIDTH), None)
        x, at = self.tokens()
        with torch.no_grad():
            self.mixer(x, at)  # what is made of the place alone, on the host, is there before anything is traced
        return Placed(self.mixer, at), (x,)

    def compilable(self) -> None:
        if isinstance(self.mixer, Experts):
            raise LeftOut("which tokens an expert gets depends on their values: no graph of one shape")


class Placed(nn.Module):
    """A mixer of tokens whose place is known."""

    def __init__(self, mixer: nn.Module, at: At) -> None:
        super().__init__()
        self.mixer, self.at = mixer, at

    def forward(self, x: Tensor) -> Tensor:
        return self.mixer(x, self.at)


def registered(own: type[nn.Module]) -> str:
    """The name under which a class of somebody's own stands in the table from now on."""
    name = own.__name__
    if name in TOKEN_MIXERS or name in CHANNEL_MIXERS:
        return name
    channel = "activation" in inspect.signature(own.__init__).parameters
    (CHANNEL_MIXERS if channel else TOKEN_MIXERS)[name] = own
    return name
