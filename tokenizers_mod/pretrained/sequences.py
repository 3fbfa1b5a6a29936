"""Sounds, films and series through pretrained encoders of transformers; films through any picture network as well.

`PretrainedAudio`: AST, CLAP, wav2vec 2.0, HuBERT, WavLM, Whisper's encoder, each behind its own feature extractor.
`PretrainedVideo`: VideoMAE, TimeSformer and ViViT, or any `Backbone`, a frame at a time, with positions in time.
`PretrainedSeries`: PatchTST, PatchTSMixer, TimesFM.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from generalist.data.base.errors import UserError, nearest
from generalist.tokenizers_mod.audio.audio import Audio
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.base.views import spread
from generalist.tokenizers_mod.libraries import names, weights, zoo
from generalist.tokenizers_mod.libraries.pixels import as_picture, processor_settings, transform
from generalist.tokenizers_mod.libraries.sequence_tower import describe
from generalist.tokenizers_mod.libraries.voices.sound import EXTRACTOR
from generalist.tokenizers_mod.libraries.voices.tower import FRAMES, MELS
from generalist.tokenizers_mod.numbers.series import Series
from generalist.tokenizers_mod.pretrained.backbone import Backbone, Found
from generalist.tokenizers_mod.pretrained.extractors import EXTRACTORS, WAVES, asked_of, extracted_of, extractor_of
from generalist.tokenizers_mod.vision.video import Video

FILMS = ("videomae", "timesformer", "vivit")


@dataclass
class Sequences(Backbone):
    """backbone: a folder, "hub:NAME" or {"model_type": ..., settings}; maps: "last", a token a hidden state, or
    "embedding", one. size: the shape of what goes in, found. Else as of `Backbone`."""

    count: ClassVar[str] = "sum(h * w for h, w, _ in shapes); of the hidden states, of waves at their own length"

    size: list[int] = field(default_factory=list)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.check_learning(self.name)
        if self.maps not in ("last", "embedding"):
            raise UserError(f"{self.name}: maps {self.maps!r}; {nearest(self.maps, ('last', 'embedding'))}")
        if self.augment != "none" or self.aspect:
            raise UserError(f"{self.name}: augment and aspect are for pictures; leave them out")
        if not self.network and not self.backbone:
            raise UserError(f"{self.name}: give backbone=, a folder, hub:NAME or {{'model_type': ...}}")

    def find(self) -> Found:
        network, folder, source = self.described()
        return network, self.preparation(network, folder), source

    def described(self) -> tuple[dict[str, Any], str, str]:
        """(the network, the folder that it comes from or "", where its weights come from)."""
        if isinstance(self.backbone, dict):
            settings = dict(self.backbone)
            return describe(settings.pop("model_type", ""), settings), "", self.weights
        if self.backbone.startswith(weights.ZOO):
            return zoo.encoder(self.backbone, type(self).name), "", self.weights or self.backbone
        folder = weights.resolve(self.backbone, self.name)
        config = weights.config_of(folder) if folder.is_dir() else {}
        if "model_type" not in config:
            raise UserError(f"{self.name}: {self.backbone} has no config.json of transformers; give such a folder")
        return describe(config.pop("model_type"), config), str(folder), self.weights or self.backbone

    def preparation(self, network: dict[str, Any], folder: str) -> dict[str, Any]:
        """Settings of what makes the network's input of a sample, "size" among them where it has one size."""
        raise NotImplementedError

    @property
    def sides(self) -> tuple[int, ...]:  # type: ignore[override]
        if not self.size:
            self.adopt()
        return tuple(self.size)

    def size_of(self, pixels: Tensor) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(pixels.shape)

    def input_shape(self, size: tuple[int, ...]) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(size)

    def tensors(self, values: list[Any]) -> dict[str, Tensor]:
        if self.ragged:
            raise UserError(f"{self.name} has no padded form (waves of any length); use model.encode(processor(...))")
        return {self.tensor_names[0]: torch.stack([self.prepared(self.pixels_of(v)) for v in values])}

    def padded(self, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None]:
        pixels = tensors[self.tensor_names[0]]
        if tuple(pixels.shape[1:]) != self.sides:
            raise UserError(f"{self.name}: {tuple(pixels.shape)} went in; expected [batch, {self.sides}]")
        return {"pixels": pixels}, None

    def padded_place(self, tensors: dict[str, Tensor], real: Tensor | None) -> Tensor | None:
        return None


@dataclass
class PretrainedAudio(Sequences):
    """Sounds, brought to the extractor's rate; of more than `seconds` the first are heard (0 = all).

    >>> tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    >>> sound = PretrainedAudio(backbone={"model_type": "wav2vec2", "num_conv_pos_embedding_groups": 2, **tiny})
    >>> sound.span(sound.read((np.ones(16000), 16000))).length  # a hidden state every 20 ms
    49
    """

    name: ClassVar[str] = "audio"
    raw: ClassVar[str] = Audio.raw
    kind: ClassVar[str] = "other"
    tensor_names: ClassVar[tuple[str, ...]] = ("input_features",)

    seconds: float = 0.0

    def preparation(self, network: dict[str, Any], folder: str) -> dict[str, Any]:
        from transformers import AutoFeatureExtractor

        if network["library"] == "voice":
            return {"extractor": EXTRACTOR, "settings": {}, "size": [1, FRAMES, MELS], "any": True}
        if folder and (Path(folder) / "preprocessor_config.json").is_file():
            made = AutoFeatureExtractor.from_pretrained(folder)
        else:
            made = extractor_of(EXTRACTORS.get(network["name"], WAVES), asked_of(network))
        settings = {k: v for k, v in json.loads(made.to_json_string()).items() if v is not None}
        for key in ("feature_extractor_type", "processor_class", "mel_filters", "mel_filters_slaney"):
            settings.pop(key, None)
        found = {"extractor": type(made).__name__, "settings": settings}
        shape = list(extracted_of(made, torch.zeros(made.sampling_rate)).shape)
        return found | {"size": shape, "any": len(shape) == 1}

    @property
    def ragged(self) -> bool:
        self.adopt()
        return bool(self.pixels["any"])

    @property
    def extractor(self) -> Any:
        if "_transform" not in self.__dict__:
            self.adopt()
            self.__dict__["_transform"] = extractor_of(self.pixels["extractor"], self.pixels["settings"])
        return self.__dict__["_transform"]

    def _decoded(self, raw: Any) -> Tensor:
        wave = Audio(rate=self.extractor.sampling_rate).read(raw)
        wave = wave[: int(self.seconds * self.extractor.sampling_rate)] if self.seconds else wave
        # a tenth of a second at least: shorter ones give no hidden state
        return torch.nn.functional.pad(wave, (0, max(0, self.extractor.sampling_rate // 10 - len(wave))))

    def prepared(self, value: Tensor, rng: torch.Generator | None = None) -> Tensor:
        return extracted_of(self.extractor, value)

    def about(self) -> list[Any]:
        return [*super().about(), self.seconds]

    def plain(self, raw: Any) -> Any:
        return Audio(rate=self.extractor.sampling_rate).plain(raw)

    def show(self, raw: Any) -> dict[str, Any]:
        return Audio().show(raw)

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.pretrained.examples import sound

        return sound()


@dataclass
class PretrainedVideo(Sequences):
    """Films of `frames` frames, evenly spread, the last one standing still where there are fewer.

    backbone: VideoMAE, TimeSformer or ViViT as of `Sequences` (frames is then their own), or any network of `Backbone`.
    side: height and width of a frame, 0 = the network's own.

    >>> film = PretrainedVideo(backbone="test_convnext", frames=4, side=64)
    >>> film.span(film.read(np.zeros((6, 40, 50, 3)))).length  # 2 x 2 cells a frame
    16
    """

    name: ClassVar[str] = "video"
    raw: ClassVar[str] = Video.raw
    kind: ClassVar[str] = "vision"
    tensor_names: ClassVar[tuple[str, ...]] = ("pixel_values_videos",)

    frames: int = 8
    side: int = 0

    def find(self) -> Found:
        if self.frames < 1:
            raise UserError(f"{self.name}: frames is {self.frames}; it is at least 1")
        named = self.backbone["model_type"] if isinstance(self.backbone, dict) else ""
        if not named and (Path(str(self.backbone)) / "config.json").is_file():
            named = weights.config_of(Path(str(self.backbone))).get("model_type", "")
        if named in FILMS:
            return super().find()
        network, pixels, source = names.find(self.backbone, self.weights)
        size = [self.side] * 2 if self.side else pixels["size"]
        films = {"library": "frames", "name": network["name"], "settings": {"of": network}}
        return films, {**pixels, "size": [self.frames, 3, *size]}, source

    def preparation(self, network: dict[str, Any], folder: str) -> dict[str, Any]:
        from transformers import CONFIG_MAPPING

        config = CONFIG_MAPPING[network["name"]](**network["settings"])
        side, self.frames = self.side or config.image_size, config.num_frames
        pixels = processor_settings(folder) if folder else None
        plain = {"library": "timm", "interpolation": "bilinear", "crop_pct": 1.0}
        plain |= {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
        return {**(pixels or plain), "size": [self.frames, 3, side, side]}

    def _decoded(self, raw: Any) -> Tensor:
        film = Video(frames=self.frames).read(raw)
        film = film[spread(len(film), self.frames)]
        return torch.cat([film, film[-1:].expand(self.frames - len(film), -1, -1, -1)])

    def prepared(self, value: Tensor, rng: torch.Generator | None = None) -> Tensor:
        if "_transform" not in self.__dict__:
            height, width = self.sides[-2:]
            self.__dict__["_transform"] = transform(self.pixels, (height, width))
        return torch.stack([self.__dict__["_transform"](as_picture(frame)) for frame in value])

    def plain(self, raw: Any) -> Any:
        return Video(frames=self.frames).plain(raw)

    def show(self, raw: Any) -> dict[str, Any]:
        return Video(frames=self.frames).show(raw)

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.pretrained.examples import film

        return film()


@dataclass
class PretrainedSeries(Sequences):
    """Series [t] or [t, channels]: their last `context_length` steps; what lies before a short one is missing.

    channels: how many, where the network takes any (TimesFM).

    >>> tiny = {"d_model": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 16}
    >>> steps = {"context_length": 16, "patch_length": 8, "patch_stride": 8}
    >>> series = PretrainedSeries(backbone={"model_type": "patchtst", "num_input_channels": 1, **steps, **tiny})
    >>> series.span(series.read(np.arange(9.0))).length
    2
    """

    name: ClassVar[str] = "series"
    raw: ClassVar[str] = Series.raw
    kind: ClassVar[str] = "other"
    tensor_names: ClassVar[tuple[str, ...]] = ("past_values",)

    channels: int = 1

    def preparation(self, network: dict[str, Any], folder: str) -> dict[str, Any]:
        from transformers import CONFIG_MAPPING

        config = CONFIG_MAPPING[network["name"]](**network["settings"])
        if not hasattr(config, "context_length"):
            raise UserError(f"{self.name}: {network['name']!r} is no network of series; known: patchtst, timesfm ...")
        self.channels = getattr(config, "num_input_channels", self.channels)
        return {"size": [2, config.context_length, self.channels]}

    def _decoded(self, raw: Any) -> Tensor:
        """Float[t channels], missing values as NaN."""
        value = Series().read(raw)
        value = value[:, None] if value.ndim == 1 else value
        if value.shape[1] != self.sides[2]:
            raise UserError(f"{self.name}: {value.shape[1]} channels given, the network takes {self.sides[2]}")
        return value.float()

    def prepared(self, value: Tensor, rng: torch.Generator | None = None) -> Tensor:
        _, steps, channels = self.sides
        value = value[-steps:]
        known = value.isfinite()
        out = torch.zeros(2, steps, channels)
        out[0, steps - len(value) :] = torch.where(known, value, 0.0)
        out[1, steps - len(value) :] = known.float()
        return out

    def plain(self, raw: Any) -> Any:
        return Series().plain(raw)

    def show(self, raw: Any) -> dict[str, Any]:
        return Series().show(raw)

    @classmethod
    def examples(cls) -> Examples:
        from generalist.tokenizers_mod.pretrained.examples import series

        return series()
