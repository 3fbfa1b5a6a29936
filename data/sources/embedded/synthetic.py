"""Generated sets, SYNTHETIC: sounds and point clouds, each sample a pure function of seed, split and index."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from generalist.data.sources.embedded.split import SPLITS
from generalist.data.stream.source import Record, Records

RATE = 8000  # samples a second
SECONDS = 0.5
TONES = [
    "sine wave",
    "square wave",
    "sawtooth wave",
    "noise",
    "rising chirp",
    "falling chirp",
    "tremolo",
    "clicks",
]
SOLIDS = ["sphere", "cube", "cylinder", "cone", "torus", "pyramid", "prism", "octahedron"]


@dataclass(frozen=True)
class Generated(Sequence[Record]):
    """`total` samples made when asked for: sample i is make(rng of (name, seed, split, i)), always the same."""

    name: str
    split: str
    seed: int
    total: int
    make: Callable[[np.random.Generator], Record]

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.total))]
        if not -self.total <= index < self.total:
            raise IndexError(f"sample {index} of {self.total}")
        index = int(index) % self.total
        rng = np.random.default_rng([zlib.crc32(self.name.encode()), self.seed, SPLITS.index(self.split), index])
        return {"id": f"{self.name}/{self.seed}/{self.split}/{index}", **self.make(rng)}


def _generated(name: str, seed: int, counts: tuple[int, int, int], make: Callable, **info: Any) -> dict[str, Records]:
    rows = {split: Generated(name, split, seed, count, make) for split, count in zip(SPLITS, counts, strict=True)}
    return {split: Records(part, {"synthetic": True, **info}) for split, part in rows.items()}


def tones(seed: int = 0, train: int = 4000, val: int = 400, test: int = 800) -> dict[str, Records]:
    """Sounds of eight kinds in noise: {"id", "audio", "label"}.

    audio: {"array": float32 [4000] within -1..1, "sampling_rate": 8000}.
    """
    about = "SYNTHETIC sounds of 0.5 s in noise, generated with numpy"
    return _generated("tones", seed, (train, val, test), tone, classes=TONES, about=about)


def solids(seed: int = 0, train: int = 4000, val: int = 400, test: int = 800) -> dict[str, Records]:
    """Surface points of eight solids: {"id", "points": float32 [256, 3], "label"}.

    Upright: turned about the vertical axis only; stretched, scaled and cut off at one side, with noise, centred.
    """
    about = "SYNTHETIC point clouds of 256 surface points, generated with numpy"
    return _generated("solids", seed, (train, val, test), solid, classes=SOLIDS, about=about)


def tone(rng: np.random.Generator) -> Record:
    """One sound: kind, pitch (150 to 900 Hz), level, phase, length and noise (6 to 26 dB below) at random."""
    label = int(rng.integers(len(TONES)))
    t = _times()
    pitch = 150 * 6 ** rng.random()
    turns = pitch * t + rng.random()  # the phase in periods
    kind = TONES[label]
    if kind == "square wave":
        wave = np.sign(np.sin(2 * np.pi * turns))
    elif kind == "sawtooth wave":
        wave = 2 * (turns % 1) - 1
    elif kind == "noise":
        # Band-limited around the pitch, so that it is not told by its flat spectrum alone.
        spectrum = np.fft.rfft(rng.standard_normal(len(t)))
        octaves = np.log2(np.maximum(np.fft.rfftfreq(len(t), 1 / RATE), 1) / pitch)
        wave = np.fft.irfft(spectrum * np.exp(-((octaves / rng.uniform(0.2, 1.5)) ** 2)), len(t))
    elif kind in ("rising chirp", "falling chirp"):
        # Exponential sweep by up to an octave and a half; falling is rising backwards.
        rate = rng.uniform(0.4, 1.5) * np.log(2) / SECONDS
        wave = np.sin(2 * np.pi * (pitch * (np.exp(rate * t) - 1) / rate + rng.random()))
        wave = wave[::-1] if kind == "falling chirp" else wave
    elif kind == "tremolo":
        depth, beat = rng.uniform(0.5, 1), rng.uniform(6, 20)
        wave = np.sin(2 * np.pi * turns) * (1 - depth * (0.5 + 0.5 * np.sin(2 * np.pi * (beat * t + rng.random()))))
    elif kind == "clicks":
        wave = np.exp(-(turns % 1) / pitch * rng.uniform(1000, 4000))
    else:
        wave = np.sin(2 * np.pi * turns)
    wave = wave - wave.mean()
    wave /= np.sqrt((wave * wave).mean()) + 1e-9
    first, last = t.searchsorted(rng.uniform(0, 0.1)), t.searchsorted(rng.uniform(0.4, 0.5), side="right")
    mixed = rng.standard_normal(len(t))
    mixed *= 10 ** (-rng.uniform(6, 26) / 20)
    mixed[first:last] += wave[first:last]
    level = 10 ** (-rng.uniform(0, 20) / 20)
    wave = (mixed / max(mixed.max(), -mixed.min()) * level).astype(np.float32)
    return {"audio": {"array": wave, "sampling_rate": RATE}, "label": label}


@lru_cache(maxsize=1)
def _times() -> np.ndarray:
    """The seconds at which a sound is sampled; nobody may write into them."""
    return np.arange(int(RATE * SECONDS)) / RATE


def solid(rng: np.random.Generator, n: int = 256) -> Record:
    """One cloud of n points."""
    label = int(rng.integers(len(SOLIDS)))
    points = surface(SOLIDS[label], rng, 2 * n)
    points = points * rng.uniform(0.75, 1.25, 3)  # stretched along the solid's own axes
    points = points @ _turn(rng).T
    # Seen from one side only in part: the farthest quarter, or less, along x is cut off.
    points = points[np.argsort(points[:, 0])[: 2 * n - int(rng.integers(n // 2))]]
    points = points[rng.permutation(len(points))[:n]]
    points = points - points.mean(0)
    points = points / np.sqrt((points**2).sum(1).mean()) * rng.uniform(0.7, 1.3)
    points = points + rng.normal(0, rng.uniform(0.01, 0.05), points.shape)
    return {"points": points.astype(np.float32), "label": label}


def surface(name: str, rng: np.random.Generator, n: int) -> np.ndarray:
    """n points spread evenly over a solid's surface, [n, 3], the solid about 2 wide and centred at 0."""
    if name == "sphere":
        points = rng.standard_normal((n, 3))
        return points / np.linalg.norm(points, axis=1, keepdims=True)
    if name == "torus":
        ring, tube = 0.7, rng.uniform(0.2, 0.35)
        around, about = rng.uniform(0, 2 * np.pi, (2, 4 * n))
        # The outside of the ring has more surface than the inside: accept in proportion.
        kept = rng.random(4 * n) < (ring + tube * np.cos(about)) / (ring + tube)
        around, about = around[kept][:n], about[kept][:n]
        far = ring + tube * np.cos(about)
        return np.stack([far * np.cos(around), far * np.sin(around), tube * np.sin(about)], 1)
    if name in ("cylinder", "cone"):
        angle = rng.uniform(0, 2 * np.pi, n)
        radius = np.sqrt(rng.random(n))  # even over a disc, and over a cone's side
        height = rng.uniform(-1, 1, n)
        place = rng.random(n)
        if name == "cylinder":  # side 4 pi, two discs of pi
            side = place < 4 / 6
            radius = np.where(side, 1, radius)
            height = np.where(side, height, np.where(place < 5 / 6, -1, 1))
        else:  # side pi sqrt(5), one disc of pi
            side = place < np.sqrt(5) / (1 + np.sqrt(5))
            height = np.where(side, 1 - 2 * radius, -1)
        return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], 1)
    corner, edges, below = _faces(name)
    chosen = below.searchsorted(rng.random(n), side="right")
    u, v = rng.random((2, n, 1))
    outside = u + v > 1  # of the triangle: the other half of the parallelogram is turned onto it
    u, v = np.where(outside, 1 - u, u), np.where(outside, 1 - v, v)
    return corner[chosen] + u * edges[0][chosen] + v * edges[1][chosen]


@lru_cache(maxsize=8)
def _faces(name: str) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Of every triangle a corner and two edges, [triangles, xyz] each, and the share of the surface up to it."""
    triangles = _triangles(name)
    edges = triangles[:, 1:] - triangles[:, :1]
    areas = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    below = (areas / areas.sum()).cumsum()
    return triangles[:, 0].copy(), (edges[:, 0].copy(), edges[:, 1].copy()), below / below[-1]


def _triangles(name: str) -> np.ndarray:
    """The faces of a convex polyhedron cut into triangles, [triangles, corner, xyz]."""
    square = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    if name == "cube":
        loops = [[(*p, -1) for p in square], [(*p, 1) for p in square]]
    elif name == "prism":
        corners = [(np.cos(a), np.sin(a)) for a in (np.pi / 2, np.pi * 7 / 6, np.pi * 11 / 6)]
        loops = [[(*p, -1) for p in corners], [(*p, 1) for p in corners]]
    elif name == "pyramid":
        loops = [[(*p, -1) for p in square], [(0, 0, 1)]]
    else:  # octahedron: two pyramids on one square
        ring = [(1, 0, 0), (0, 1, 0), (-1, 0, 0), (0, -1, 0)]
        return np.array([(ring[i - 1], ring[i], (0, 0, z)) for i in range(4) for z in (-1, 1)], float)
    low, high = loops
    faces = [(low[0], low[i], low[i + 1]) for i in range(1, len(low) - 1)]
    if len(high) == 1:
        faces += [(low[i - 1], low[i], high[0]) for i in range(len(low))]
    else:
        faces += [(high[0], high[i], high[i + 1]) for i in range(1, len(high) - 1)]
        for i in range(len(low)):
            faces += [(low[i - 1], low[i], high[i]), (low[i - 1], high[i], high[i - 1])]
    return np.array(faces, float)


def _turn(rng: np.random.Generator) -> np.ndarray:
    """A rotation [3, 3] about the vertical axis, drawn evenly."""
    c, s = np.cos(angle := rng.uniform(0, 2 * np.pi)), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
