"""The settings of a modality by what a few dozen of its samples are: sizes of pictures, lengths of sounds and texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError
from generalist.data.media.sounds import read_sound
from generalist.fitting.defaults import LARGEST, LONGEST, SECONDS
from generalist.fitting.inputs.encoders import backbone, sentence
from generalist.fitting.parts import House
from generalist.tokenizers_mod.audio.audio import Audio
from generalist.tokenizers_mod.geometry.graph import Graph
from generalist.tokenizers_mod.numbers.imu import Imu
from generalist.tokenizers_mod.pretrained.backbone import Backbone
from generalist.tokenizers_mod.pretrained.heard import Heard
from generalist.tokenizers_mod.vision.image import ENOUGH, Image, read_image
from generalist.tokenizers_mod.vision.video import Video

PICTURED: dict[str, type[Backbone]] = {"picture": Backbone, "sound": Heard}
SAMPLES = 48


def add_inputs(house: House, kind: str, values: Sequence[Any], count: int = 0) -> list[str]:
    """The names of the modalities that read a column of this kind ("picture", "text" ...). count: of samples in all.

    A sound is read both by a pretrained encoder and from scratch: what a network of pictures makes of a spectrogram
    knows noises well and words badly, and the spectrogram itself costs little.
    """
    names = [add_input(house, kind, values, count)]
    if kind == "sound" and isinstance(house.modalities[names[0]], Backbone):
        names.append(house.add("wave", _audio(spread(values))))
    return names


def add_input(house: House, kind: str, values: Sequence[Any], count: int = 0) -> str:
    """The name of a modality that reads a column of this kind. count: of samples in all."""
    some = spread(values)
    if kind == "text":
        if house.encoders:
            offer = sentence([str(v) for v in values], house.seconds)
            house.hear(offer.told, offer.seconds)
            if offer.modality is not None:
                return house.sentence(offer.modality)
        return house.text(_vocabulary(values), _pieces(some), inputs=True)
    if house.encoders and kind in PICTURED:
        readable = [v for v in some if _readable(kind, v)]
        offer = backbone(PICTURED[kind], readable, count or len(values), house.seconds)
        house.hear(offer.told, offer.seconds)
        if offer.modality is not None and readable:
            return house.add(PICTURED[kind].name, offer.modality)
    name, make = {
        "picture": ("image", _image),
        "sound": ("audio", _audio),
        "clip": ("video", lambda some: Video(size=64, patch=64, frames=8, stem=12)),
        "smiles": ("graph", lambda some: Graph()),
        "graph": ("graph", lambda some: Graph()),
        "series": ("signal", _signal),
    }[kind]
    return house.add(name, make(some))


def _readable(kind: str, raw: Any) -> bool:
    """Whether a picture or sound can be read at all: what cannot is told of where it is met."""
    if kind == "picture":
        return _opened(raw) is not None
    return _heard(raw) is not None


def spread(values: Sequence[Any]) -> list[Any]:
    """A few, evenly from all."""
    count = min(SAMPLES, len(values))
    return [values[i * len(values) // count] for i in range(count)]


def _pieces(texts: list[Any]) -> int:
    """Most texts whole, three characters a piece."""
    usual = float(np.quantile([len(str(t)) for t in texts], 0.95)) / 3 if texts else 0
    return int(min(LONGEST, max(16, usual + 8)))


def _vocabulary(texts: Sequence[Any]) -> int:
    letters = sum(len(str(t)) for t in texts)
    return int(min(4000, max(400, letters / 50)))


def words_for(house: House, names: list[str]) -> str:
    """The text modality for names of classes."""
    return house.text(300, int(min(LONGEST, max(16, 2 + max(len(n.encode()) for n in names)))))


def _image(some: list[Any]) -> Image:
    pictures = [p for raw in some if (p := _opened(raw)) is not None]
    if not pictures:
        raise UserError("none of the pictures can be read; check the paths (they are relative to the table's file)")
    longest = float(np.median([max(p.shape[1:]) for p in pictures]))
    size = int(min(LARGEST, max(16, -(-longest // 16) * 16)))
    grey = all(float((p - p.mean(0, keepdims=True)).std()) < 1e-3 for p in pictures)
    mean = float(np.mean([p.mean() for p in pictures]))
    std = float(np.mean([p.std() for p in pictures])) or 0.5
    patch = size // (4 if size >= 32 else 2)
    stem = 16 if patch % 8 == 0 else 0
    channels = 1 if grey else 3
    return Image(
        size=size,
        patch=patch,
        channels=channels,
        mean=round(mean, 3),
        std=round(std, 3),
        shift=size // 16,
        stem=stem,
        quick=size == LARGEST,
    )


def _opened(raw: Any) -> np.ndarray | None:
    try:
        return np.asarray(read_image(raw, 3, whole=False, enough=ENOUGH * LARGEST))
    except UserError:
        return None


def _heard(raw: Any) -> tuple[Any, int] | None:
    """A sound and its rate; None of what cannot be read or holds no sample."""
    try:
        wave, rate = read_sound(raw)
    except UserError:
        return None
    return (wave, rate) if np.size(wave) else None


def _audio(some: list[Any]) -> Audio:
    heard = [sound for raw in some if (sound := _heard(raw)) is not None]
    if not heard:
        raise UserError("none of the sounds can be read; check the paths (they are relative to the table's file)")
    rate = int(min(16000, np.median([rate for _, rate in heard])))
    seconds = float(np.quantile([np.shape(wave)[-1] / r for wave, r in heard], 0.9))
    cut = SECONDS if seconds > SECONDS else 0.0
    return Audio(rate=rate, mels=40, patch=[40, 8], stride=[40, 8], mean=-6.0, std=2.0, max_seconds=cut)


def _signal(some: list[Any]) -> Imu:
    length = float(np.median([len(v) for v in some]))
    channels = max(np.asarray(v, dtype=object).reshape(len(v), -1).shape[1] for v in some)
    return Imu(channels=channels, patch=int(max(1, min(8, length // 16))))
