"""A library's picture network as this project uses it: maps with channels first, or one vector a picture.

`find_tower` says what a name means, `build_tower` makes it. A description is JSON and stands alone in a saved model:

    {"library": "timm", "name": "swin_tiny_patch4_window7_224", "settings": {...of create_model}}
    {"library": "transformers", "name": "dinov2", "settings": {...of its configuration}}
    {"library": "open_clip", "name": "ViT-B-32", "settings": {...of its vision_cfg}}
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from generalist.data.base.errors import UserError, nearest, one_line

KINDS = ("last", "all", "embedding")
# library -> the module here that knows it: `describe(name, settings)`, `build(description, size, kind, any_size)`
LIBRARIES = {
    "timm": "generalist.tokenizers_mod.libraries.timm_tower",
    "transformers": "generalist.tokenizers_mod.libraries.transformers_tower",
    "open_clip": "generalist.tokenizers_mod.libraries.open_clip_tower",
    "sequences": "generalist.tokenizers_mod.libraries.sequence_tower",
    "frames": "generalist.tokenizers_mod.libraries.frames_tower",
    "voice": "generalist.tokenizers_mod.libraries.voices.tower",
}


class Tower(nn.Module):
    """net: the library's network. forward(pixels Float[B 3 H W]) -> maps [Float[B C h w], ...], finest first, or, as
    "embedding", one Float[B C 1 1]."""

    net: Any  # of a library: its class says what it can do

    def __init__(self, net: nn.Module, kind: str) -> None:
        super().__init__()
        self.net, self.kind = net, kind

    def forward(self, pixels: Tensor) -> list[Tensor]:
        if self.kind == "embedding":
            return [self.embedding(pixels)[..., None, None]]
        maps = self.maps(pixels)
        if self.kind == "last":
            return maps[-1:]
        # scales: of maps of one resolution the last
        return [
            m
            for m, after in zip(maps, [*maps[1:], None], strict=True)
            if after is None or m.shape[2:] != after.shape[2:]
        ]

    def shapes(self, size: tuple[int, ...]) -> list[tuple[int, int, int]] | None:
        """(h, w, C) of every map where the library tells it without running; else None."""
        return None

    def blank(self, size: tuple[int, ...], **like: Any) -> Tensor:
        """One sample of this size, all zeros."""
        return torch.zeros(1, 3, *size, **like)

    def maps(self, pixels: Tensor) -> list[Tensor]:
        raise NotImplementedError

    def embedding(self, pixels: Tensor) -> Tensor:
        raise NotImplementedError

    def whole_state(self) -> dict[str, Tensor]:
        """Names and shapes of the library's whole network, with its classifier where it has one."""
        return self.net.state_dict()

    def load(self, tensors: dict[str, Tensor], where: str) -> None:
        """Put in weights under the library's own names, or the authors' where the library knows how to rename them."""
        fit(self.net, tensors, where)


def library_of(description: dict[str, Any]) -> Any:
    name = description.get("library", "")
    if name not in LIBRARIES:
        raise UserError(f"backbone: unknown library {name!r}; {nearest(name, LIBRARIES)}")
    try:
        return import_module(LIBRARIES[name])
    except ImportError as error:
        raise UserError(f"backbone: {error.name} is not installed; pip install {error.name}") from error


def build_tower(description: dict[str, Any], size: tuple[int, ...], kind: str, any_size: bool = False) -> Tower:
    """The network with fresh weights. size: height and width of its pictures, handed over where it is fixed to one.

    UserError where the library refuses the settings or the size.
    """
    library = library_of(description)
    try:
        return library.build(description, size, kind, any_size)
    except UserError:
        raise
    except Exception as error:  # every network checks its settings in its own way
        raise UserError(f"backbone: {description['name']} cannot be built at {by(size)} ({one_line(error)})") from error


def map_shapes(tower: Tower, size: tuple[int, ...], name: str) -> list[tuple[int, int, int]]:
    """(h, w, C) of every map of a picture of this size. UserError where the network refuses the size."""
    told = tower.shapes(size)
    if told is not None:
        return told
    was, device = tower.training, next(tower.parameters()).device
    tower.eval()
    try:
        with torch.no_grad():
            kind = next(tower.parameters()).dtype
            found = tower(tower.blank(size, device=device, dtype=kind))
    except Exception as error:
        raise UserError(f"backbone: {name} refuses an input of {by(size)} ({one_line(error)})") from error
    finally:
        tower.train(was)
    return [(m.shape[2], m.shape[3], m.shape[1]) for m in found]


def by(size: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in size)


def as_map(rows: Tensor, size: tuple[int, int], grid: tuple[int, int] | None = None) -> Tensor:
    """Float[B n C] of cells row by row -> Float[B C h w]. The grid is given, or has the picture's aspect."""
    n = rows.shape[1]
    if grid is None or grid[0] * grid[1] != n:
        side = (n * size[0] / size[1]) ** 0.5
        rows_of = [h for h in range(1, n + 1) if n % h == 0]
        h = min(rows_of, key=lambda h: abs(h - side))
        grid = h, n // h
    return rows.transpose(1, 2).unflatten(2, grid)


def fit(
    net: nn.Module, tensors: dict[str, Tensor], where: str, optional: Callable[[str], bool] = lambda name: False
) -> None:
    """Load a state dict whole. UserError names the first tensor that does not fit.

    optional: tensors that may be in the file alone (a head that is not used) or in the network alone.
    """
    own = net.state_dict()
    for name, value in own.items():
        if name not in tensors:
            if optional(name) or name.endswith("num_batches_tracked"):
                continue
            raise UserError(f"{where} holds weights of another architecture: {name} is missing")
        if tensors[name].shape != value.shape:
            had, need = tuple(tensors[name].shape), tuple(value.shape)
            raise UserError(f"{where} holds weights of another architecture: {name} is {had}, the network's {need}")
    extra = [name for name in tensors if name not in own and not optional(name)]
    if extra:
        raise UserError(f"{where} holds weights of another architecture: the network has no {extra[0]}")
    net.load_state_dict({k: v for k, v in tensors.items() if k in own}, strict=False)
