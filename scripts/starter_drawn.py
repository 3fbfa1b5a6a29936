"""Sets of a modality that the starter has not, drawn as pictures: satellite bands and signals of several channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from generalist.data.stream.source import Record, Records
from generalist.tasks.kinds.classify import Classify

SPREAD = 3.0  # standard deviations of training that black and white are away from the mean
LOOKED_AT = 200  # training records that mean and spread are taken from
WINDOW = 128  # steps of a signal whose spectrum is a column's


def bands(cube: np.ndarray) -> np.ndarray:
    """[h, w, 4] of Landsat (green, red, two of near infrared) -> [3, h, w], near infrared as red."""
    return cube[..., [2, 1, 0]].transpose(2, 0, 1).astype(np.float32)


def lines(signal: np.ndarray) -> np.ndarray:
    """[T, channels] -> [channels, T], a row a channel; what a shorter signal was filled up with is left out."""
    return signal[~np.isnan(signal).any(1)].T.astype(np.float32)


def spectrum(signal: np.ndarray) -> np.ndarray:
    """[T, channels] of a long signal -> [channels, WINDOW / 2]: the log of the mean power of its windows."""
    whole = signal[: max(1, len(signal) // WINDOW) * WINDOW]
    padded = np.pad(whole, ((0, -len(whole) % WINDOW), (0, 0)))
    parts = padded.reshape(-1, WINDOW, signal.shape[1])
    parts = parts - parts.mean(1, keepdims=True)
    power = (np.abs(np.fft.rfft(parts * np.hanning(WINDOW)[:, None], axis=1)) ** 2).mean(0)[1:]
    return np.log(power + 1e-3).T.astype(np.float32)


@dataclass
class Grey:
    """[channels ...] -> uint8: a channel's mean in training is the middle, SPREAD of its deviations black and white.

    mean, spread: Float[channels].
    """

    mean: np.ndarray
    spread: np.ndarray

    def __call__(self, values: np.ndarray) -> np.ndarray:
        flat = (values.reshape(len(values), -1) - self.mean[:, None]) / (2 * SPREAD * self.spread[:, None])
        return np.clip(flat * 255 + 127.5, 0, 255).astype(np.uint8).reshape(values.shape)


@dataclass
class Drawn:
    """A source whose records get a picture of one of their fields, as field "image"."""

    source: Any
    name: str
    draw: Callable[[np.ndarray], np.ndarray]
    grey: Grey | None = field(default=None, repr=False)

    def open(self, split: str) -> Records:
        records = self.source.open(split)
        if self.grey is None:
            training = (records if split == "train" else self.source.open("train")).spread(LOOKED_AT)
            shown = [self.draw(training[i][self.name]) for i in range(len(training))]
            values = np.concatenate([one.reshape(len(one), -1) for one in shown], axis=1)
            self.grey = Grey(values.mean(1), values.std(1) + 1e-6)
        return replace(records, rows=Pictures(records.rows, self))


@dataclass
class Pictures(Sequence[Record]):
    """Records with their picture, drawn when they are asked for."""

    rows: Sequence[Record]
    drawn: Drawn

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: Any) -> Any:
        record, grey = self.rows[number], self.drawn.grey
        assert grey is not None
        return {**record, "image": grey(self.drawn.draw(record[self.drawn.name]))}


DRAWN: dict[str, Callable[[np.ndarray], np.ndarray]] = {"landsat": bands, "watch": spectrum, "japanese_vowels": lines}


def drawn(task: Classify) -> Classify:
    """The task of a set of DRAWN, its one input as a picture."""
    (name,) = task.inputs.values()
    return replace(task, source=Drawn(task.source, name, DRAWN[task.name]), inputs={"image": "image"})
