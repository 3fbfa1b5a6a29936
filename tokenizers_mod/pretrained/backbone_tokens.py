"""The device half of `Backbone`: maps of the network -> tokens; what a frozen network made of a picture is kept."""

from __future__ import annotations

from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.base.base import sincos
from generalist.tokenizers_mod.libraries.chain import cut, front_state, through
from generalist.tokenizers_mod.libraries.tower import Tower
from generalist.tokenizers_mod.pretrained.base import PretrainedTokens, frozen
from generalist.tokenizers_mod.pretrained.features import as_key, numbers

ALONE = "more than 1 value per channel"  # torch's words


class BackboneTokens(PretrainedTokens):
    """forward({"pixels": Float[B 3 H W]}) -> Float[N width], the cells of every picture's maps row by row.

    Of pictures of several sizes, {"pixels": Float[sum 3 h w], "size": Int[B 2]}; with features that are kept also
    {"key": Int[B 2], "known": Bool[B], "kept": Float[...]}: a picture has pixels or, where it is known, features.
    settings: the `Backbone`; with its `tail` features are what the front of the network makes, and the rest learns.
    """

    cut: int = 0  # stages of the tail

    def __init__(self, tower: Tower, width: int, settings: Any) -> None:
        super().__init__(tower, settings.frozen, settings.lora)
        if width % 4:
            raise UserError(f"{settings.name}: width {width} is not a multiple of 4, which 2-D positions need")
        self.width, self.settings, self.cut = width, settings, settings.tail
        self.one = settings.maps == "embedding" and settings.shapes[0][:2] == [1, 1]
        linears = [nn.Linear(shape[2], width) for shape in settings.shapes]
        self.projections = nn.ModuleList(linears)
        self.scales = nn.Parameter(torch.randn(len(settings.shapes), width) * 0.02) if settings.maps == "all" else None
        for linear in linears:
            nn.init.zeros_(linear.bias)
        self.settle()
        self.train(self.training)

    def halves(self) -> tuple[list[nn.Module], list[nn.Module]]:
        return cut(cast(Tower, self.encoder).net, self.cut, self.settings.name)

    def settle(self) -> None:
        super().settle()
        if self.cut:
            for part in self.halves()[0]:
                part.requires_grad_(False)

    def train(self, mode: bool = True) -> BackboneTokens:
        super().train(mode)
        if self.cut:
            for part in self.halves()[0]:
                part.eval()
        return self

    def fixed(self) -> dict[str, Tensor]:
        if not self.cut:
            return super().fixed()
        return front_state(cast(Tower, self.encoder).net, self.cut, self.settings.name)

    def forward(self, data: dict[str, Tensor]) -> Tensor:
        if "size" not in data:
            return self.tokens(self.encoded(data["pixels"])).flatten(0, 1)
        maps = self.known(data) if "known" in data else self.of_sizes(data)
        shapes = [tuple(m.shape for m in one) for one in maps]
        made: list[Tensor] = [data["pixels"]] * len(maps)
        for shape in dict.fromkeys(shapes):
            rows = [i for i, own in enumerate(shapes) if own == shape]
            batch = [torch.stack(scale) for scale in zip(*(maps[i] for i in rows), strict=True)]
            for i, one in zip(rows, self.tokens(batch), strict=True):
                made[i] = one
        if "rows" not in data:
            return torch.cat(made)
        full = made[0].new_zeros(*data["rows"].shape, self.width)
        for i, one in enumerate(made):
            full[i, : len(one)] = one
        return full.flatten(0, 1)

    def made(self, data: dict[str, Tensor]) -> Tensor:
        if "size" not in data:
            return self.encoded(data["pixels"])[0].flatten(1)
        maps = self.known(data) if "known" in data else self.of_sizes(data)
        return torch.stack([one[0].flatten() for one in maps])

    def encoded(self, pixels: Tensor) -> list[Tensor]:
        """Float[B 3 H W] -> the network's maps, [Float[B C h w], ...]."""
        with frozen(self.frozen):
            try:
                return self.encoder(pixels.to(next(self.projections.parameters()).dtype))
            except ValueError as error:  # a batch norm that learns from one sample's map of one cell
                if ALONE not in str(error):
                    raise
                raise UserError(
                    f"{self.settings.name}: a batch norm of its network cannot learn from one sample whose map is one "
                    "cell; take more samples a step and process (batch), a larger size, or frozen=true"
                ) from error

    def of_sizes(self, data: dict[str, Tensor]) -> list[list[Tensor]]:
        """Of every picture its maps [Float[C h w], ...]; each distinct size goes through the network once."""
        sizes = [tuple(size) for size in data["size"].tolist()]
        parts = data["pixels"].split([prod(self.settings.input_shape(size)) for size in sizes])
        made: list[list[Tensor]] = [[]] * len(sizes)
        for size in dict.fromkeys(sizes):
            rows = [i for i, own in enumerate(sizes) if own == size]
            maps = self.encoded(torch.stack([parts[i].view(self.settings.input_shape(size)) for i in rows]))
            for j, i in enumerate(rows):
                made[i] = [m[j] for m in maps]
        return made

    def known(self, data: dict[str, Tensor]) -> list[list[Tensor]]:
        """The same, of features that are kept; those of a picture not seen yet are made, and put there."""
        self.check()
        sizes = [tuple(size) for size in data["size"].tolist()]
        known = data["known"].tolist()
        shapes = [self.settings.kept_at(size) for size in sizes]
        counts = [numbers(shape) if there else 0 for shape, there in zip(shapes, known, strict=True)]
        kept = data["kept"].split(counts)
        new = [i for i, there in enumerate(known) if not there]
        inputs = [self.settings.input_shape(sizes[i]) for i in new]
        pixels = data["pixels"].split([prod(shape) for shape in inputs])
        made = {}
        if new:
            made = self._made([p.view(shape) for p, shape in zip(pixels, inputs, strict=True)], new)
            keys = data["key"]
            for i, maps in made.items():
                if self.state():  # of other than float32 nothing is kept
                    self.settings.store.put(as_key(keys[i]), torch.cat([m.reshape(-1) for m in maps]))
        found = [made[i] if i in made else unflat(kept[i], shapes[i]) for i in range(len(sizes))]
        return self._finished([one[0] for one in found]) if self.cut else found

    def _finished(self, fronts: list[Tensor]) -> list[list[Tensor]]:
        """What the tail makes of the front's maps [Float[C h w]]: a vector a picture, as a map of one cell."""
        with frozen(self.frozen):
            rows = through(self.halves()[1], torch.stack(fronts).to(next(self.projections.parameters()).dtype))
        return [[row[:, None, None]] for row in rows]

    def _front(self, pixels: Tensor) -> list[Tensor]:
        """The maps that are kept."""
        return [through(self.halves()[0], pixels)] if self.cut else self.encoder(pixels)

    def _made(self, pictures: list[Tensor], rows: list[int]) -> dict[int, list[Tensor]]:
        """The maps of pictures [Float[3 h w]] by their rows.

        On a CPU each goes alone, so that what is kept does not depend on its company; no slower, measured.
        """
        made: dict[int, list[Tensor]] = {}
        with torch.no_grad(), torch.autocast(pictures[0].device.type, enabled=False):
            kind = next(self.encoder.parameters()).dtype
            groups: dict[Any, list[int]] = {}
            for j, picture in enumerate(pictures):
                groups.setdefault(j if picture.device.type == "cpu" else picture.shape, []).append(j)
            for group in groups.values():
                maps = self._front(torch.stack([pictures[j] for j in group]).to(kind))
                for place, j in enumerate(group):
                    made[rows[j]] = [m[place].float() for m in maps]
        return made

    def check(self) -> None:
        """UserError where the encoder's weights are not those by which features are kept."""
        if self.state() not in ("", self.settings.digest):
            name = self.settings.name
            raise UserError(
                f"{name}: the encoder's weights are not those of {self.settings.weights}, by which its features are "
                f"kept on disk; set modalities.{name}.features=0 and modalities.{name}.digest to nothing"
            )

    def tokens(self, maps: list[Tensor]) -> Tensor:
        """Maps -> Float[B n width], scale by scale, each row by row."""
        out = []
        for i, (one, linear) in enumerate(zip(maps, self.projections, strict=True)):
            dtype = next((p.dtype for p in linear.parameters()), torch.float32)  # none where torch.ao packed them
            x = linear(one.flatten(2).transpose(1, 2).to(dtype))
            if not self.one:
                h, w = one.shape[2:]
                places = torch.cartesian_prod(torch.arange(h), torch.arange(w)).view(-1, 2).to(x.device)
                x = x + (sincos(places, self.width // 2).flatten(-2) * 0.2).to(x.dtype)
            out.append(x if self.scales is None else x + self.scales[i])
        return torch.cat(out, dim=1)


def unflat(flat: Tensor, shapes: list[list[int]]) -> list[Tensor]:
    """Features as they are kept -> maps [Float[C h w], ...]."""
    parts = flat.split([h * w * c for h, w, c in shapes])
    return [part.view(c, h, w) for part, (h, w, c) in zip(parts, shapes, strict=True)]
