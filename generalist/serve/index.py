"""Everything in a folder by its vector: made once, brought up to date, searched by words, pictures, sounds.

    DIR/about.json      the model, the hash of its weights, the folder
    DIR/items.jsonl     an item a line: file, modality, size and time of change
    DIR/vectors.npy     Float32[n D], unit vectors in the order of the items

Search is exact: FAISS's flat inner product (a million vectors of 128 numbers take tens of milliseconds). What has not
changed since is not encoded again; what is gone leaves; what cannot be read is counted and named.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from generalist.data.base.errors import UserError
from generalist.data.base.files import is_regular
from generalist.data.media.kinds import CALLED, MEDIA, ending, is_junk
from generalist.hf.saved import weights_hash
from generalist.model.ask import in_precision
from generalist.model.model import PackedModel
from generalist.model.processor import Processor
from generalist.model.sides import CANDIDATE, INPUT
from generalist.tokenizers_mod.base.capabilities import Writes

TEXTS = ("txt", "md")
BATCH = 64


@dataclass(frozen=True)
class Item:
    """file: relative to the folder; stamp: its size and time of change."""

    file: str
    modality: str
    stamp: tuple[int, int]


@dataclass
class Told:
    """What an update did."""

    made: int = 0
    kept: int = 0
    gone: int = 0
    unread: dict[str, str] = field(default_factory=dict)


def modalities_of_files(processor: Processor) -> dict[str, str]:
    """{ending of a file: the model's modality that reads it}"""
    found: dict[str, str] = {}
    for name, modality in processor.built.items():
        endings = TEXTS if isinstance(modality, Writes) else MEDIA.get(CALLED.get(name, ""), ())
        for one in endings:
            found.setdefault(one, name)
    return found


def items_in(folder: Path, kinds: dict[str, str]) -> Iterator[Item]:
    """Every file below the folder that a modality of the model reads, in order."""
    for path in sorted(folder.rglob("*")):
        own = path.relative_to(folder)
        if ending(own) in kinds and not is_junk(own) and is_regular(str(path)):
            stat = path.stat()
            yield Item(own.as_posix(), kinds[ending(own)], (stat.st_size, stat.st_mtime_ns))


class Index:
    """The index in `place`, empty where there is none yet. UserError: of another model, or damaged."""

    def __init__(
        self, place: Path, model: PackedModel, processor: Processor, folder: Path, precision: str = "fp32"
    ) -> None:
        self.place, self.model, self.processor, self.folder = place, model, processor, folder
        self.hash = weights_hash(dict(model.state_dict()))
        self.precision = precision
        self.items: list[Item] = []
        self.vectors = np.zeros((0, 0), np.float32)
        if (place / "about.json").is_file():
            self._read()

    def _read(self) -> None:
        try:
            about = json.loads((self.place / "about.json").read_text(encoding="utf-8"))
            lines = (self.place / "items.jsonl").read_text(encoding="utf-8").splitlines()
            rows = [json.loads(line) for line in lines]
            self.vectors = np.load(self.place / "vectors.npy", allow_pickle=False)
            self.items = [Item(row["file"], row["modality"], tuple(row["stamp"])) for row in rows]
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{self.place}: the index cannot be read ({error}); remove the folder and make it anew"
            ) from error
        if about.get("weights") != self.hash:
            raise UserError(f"{self.place} is an index of another model; give another --out, or remove the folder")
        if (made := about.get("precision", "fp32")) != self.precision:
            raise UserError(f"{self.place} was made with --precision {made}; give the same, or another --out")
        if len(self.items) != len(self.vectors):
            raise UserError(f"{self.place}: {len(self.items)} items and {len(self.vectors)} vectors; make it anew")

    def update(self, progress: Callable[[int], object] = lambda n: None) -> Told:
        """Encode what is new or changed, forget what is gone, save."""
        told = Told()
        before = {item: number for number, item in enumerate(self.items)}
        now = list(items_in(self.folder, modalities_of_files(self.processor)))
        old = [item for item in now if item in before]
        told.kept, told.gone = len(old), len(before) - len(old)
        new = [item for item in now if item not in before]
        made, vectors = [], [self.vectors[[before[item] for item in old]]] if old else []
        for modality in dict.fromkeys(item.modality for item in new):
            part = [item for item in new if item.modality == modality]
            for start in range(0, len(part), BATCH):
                read, found = self._encoded(part[start : start + BATCH], told)
                made += read
                vectors += [found] if read else []
                progress(len(part[start : start + BATCH]))
        told.made = len(made)
        self.items = [*old, *made]
        self.vectors = np.concatenate(vectors) if vectors else np.zeros((0, 0), np.float32)
        self.__dict__.pop("flat", None)  # made of the vectors before
        self._save()
        return told

    def _encoded(self, items: Sequence[Item], told: Told) -> tuple[list[Item], np.ndarray]:
        """The items that could be read and their vectors, packed in one pass."""
        read, sequences = [], []
        for item in items:
            try:
                raw = self.processor.built[item.modality].from_command_line(str(self.folder / item.file))
                sequences.append(self.processor(**{item.modality: [raw]})[0])
                read.append(item)
            except UserError as error:
                told.unread[item.file] = str(error)
        return read, self.encode(sequences, items[0].modality) if read else np.zeros((0, 0), np.float32)

    @torch.no_grad()
    def encode(self, sequences: Sequence[Any], modality: str) -> np.ndarray:
        """Float32[n D]: texts as candidates, as they were taught; everything else as inputs."""
        side = CANDIDATE if isinstance(self.processor.built[modality], Writes) else INPUT
        with in_precision(self.precision, self.model.device):
            return self.model.encode(sequences, side=side).float().cpu().numpy()

    def _save(self) -> None:
        self.place.mkdir(parents=True, exist_ok=True)
        np.save(self.place / "vectors.npy", self.vectors)
        lines = [json.dumps(asdict(item), ensure_ascii=False) for item in self.items]
        (self.place / "items.jsonl").write_text("\n".join(lines) + "\n" * bool(lines), encoding="utf-8")
        about = {"folder": str(self.folder.resolve()), "model": str(self.model.name_or_path), "weights": self.hash}
        about["precision"] = self.precision
        (self.place / "about.json").write_text(json.dumps(about, indent=1), encoding="utf-8")

    def search(self, modality: str, raw: Any, most: int = 10) -> list[tuple[str, float]]:
        """[(file, cosine)] of the nearest items, nearest first; raw: a value of the modality."""
        query = self.encode(self.processor(**{modality: [raw]}), modality)
        return [(self.items[number].file, cosine) for number, cosine in self.nearest(query, most)[0]]

    def nearest(self, queries: np.ndarray, most: int) -> list[list[tuple[int, float]]]:
        """For each of Float32[q D] the numbers of its nearest items with their cosines, nearest first."""
        if not self.items:
            return [[] for _ in queries]
        cosines, numbers = self.flat.search(np.ascontiguousarray(queries), min(most, len(self.items)))
        return [list(zip(n, c, strict=True)) for n, c in zip(numbers.tolist(), cosines.tolist(), strict=True)]

    @cached_property
    def flat(self) -> Any:
        """FAISS's exact index of the vectors. ImportError: the extra `serve` is not installed."""
        import faiss

        flat = faiss.IndexFlatIP(self.vectors.shape[1])
        flat.add(np.ascontiguousarray(self.vectors))
        return flat


def place_of(place: Path) -> tuple[Path, Path, str]:
    """(the model's folder, the folder of items, the precision) that an index was made of."""
    try:
        about = json.loads((place / "about.json").read_text(encoding="utf-8"))
        return Path(about["model"]), Path(about["folder"]), about.get("precision", "fp32")
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{place} is no index ({error}); make one: generalist index MODEL FOLDER --out {place}"
        ) from error
