"""timm's networks: every family by `forward_intermediates` (maps, channels first) and by its pooled features."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import timm
import torch
from torch import Tensor, nn

from generalist.data.base.errors import UserError, nearest
from generalist.tokenizers_mod.libraries.tower import Tower, fit

# settings of transformers' timm_backbone that are no settings of the network
TRANSFORMERS = ("features_only", "out_indices", "use_pretrained_backbone", "num_channels", "freeze_batch_norm_2d")


def describe(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    if not timm.is_model(name):
        raise UserError(f"backbone: timm has no network {name!r}; {nearest(name, timm.list_models())}")
    known = {k: v for k, v in settings.items() if k not in TRANSFORMERS}
    return {"library": "timm", "name": name, "settings": known}


def build(description: dict[str, Any], size: tuple[int, int], kind: str, any_size: bool) -> Tower:
    name, given = description["name"], dict(description["settings"])
    tries: list[dict[str, Any]] = [{"img_size": size}, {}]
    if any_size:
        tries.insert(0, {"img_size": size, "dynamic_img_size": True})
    for fixed in tries:
        try:
            settings = {**fixed, **given}
            return TimmTower(create(name, {"num_classes": 0, **settings}), kind, partial(_empty, name, settings))
        except TypeError as error:
            if not any(key in str(error) for key in fixed):
                raise
    raise AssertionError("the last try has no setting of its own")  # a network for any size takes none


def _empty(name: str, settings: dict[str, Any]) -> nn.Module:
    with torch.device("meta"):
        return create(name, settings)


def create(name: str, settings: dict[str, Any]) -> nn.Module:
    """timm's `create_model` with settings over those of the name; some entry points would refuse one they set."""
    try:
        return timm.create_model(name, pretrained=False, **settings)
    except TypeError as error:
        doubled = [key for key in settings if "multiple values" in str(error) and f"'{key}'" in str(error)]
        if not doubled:
            raise
    module = sys.modules[timm.model_entrypoint(name).__module__]
    build_model = module.build_model_with_cfg

    def built(*args: Any, **named: Any) -> Any:
        return build_model(*args, **{**named, **settings})

    with patch.object(module, "build_model_with_cfg", built):
        return timm.create_model(name, pretrained=False)


def pixels(description: dict[str, Any]) -> dict[str, Any]:
    """How timm prepares pictures for this network: the settings of its `create_transform`."""
    with torch.device("meta"):
        net = create(description["name"], description["settings"])
    found = timm.data.resolve_model_data_config(net)
    keys = ("interpolation", "mean", "std", "crop_pct", "crop_mode")
    return {"library": "timm", "size": list(found["input_size"][1:]), **{k: _json(found[k]) for k in keys}}


def _json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


class TimmTower(Tower):
    def __init__(self, net: nn.Module, kind: str, whole: Callable[[], nn.Module]) -> None:
        super().__init__(net, kind)
        self.whole = whole  # the same with a classifier, without values
        self.norm: bool | None = None  # whether `forward_intermediates` can apply the last norm; found at the first use

    def maps(self, pixels: Tensor) -> list[Tensor]:
        # scales as they are; of the one map, which stands for the whole network, the end with its norm
        if self.kind == "all":
            return self._scales(pixels, norm=False)
        if self.norm is None:
            try:
                found = self._scales(pixels, norm=True)
                self.norm = True
                return found
            except (AssertionError, ValueError):
                self.norm = False
        return self._scales(pixels, norm=self.norm)

    def _scales(self, pixels: Tensor, norm: bool) -> list[Tensor]:
        few = None if self.kind == "all" else 1
        found = self.net.forward_intermediates(
            pixels, indices=few, norm=norm, output_fmt="NCHW", intermediates_only=True
        )
        return list(found)

    def embedding(self, pixels: Tensor) -> Tensor:
        return self.net(pixels)

    def whole_state(self) -> dict[str, Tensor]:
        return self.whole().state_dict()

    def load(self, tensors: dict[str, Tensor], where: str) -> None:
        own = self.net.state_dict()
        rename = vars(sys.modules[type(self.net).__module__]).get("checkpoint_filter_fn")
        if rename is not None and not set(own) <= set(tensors):
            takes = len(inspect.signature(rename).parameters)
            whole = self.whole()  # some look up the classifier, which this network goes without
            try:
                tensors = rename(*(dict(tensors), whole)[:takes])
            except (KeyError, AttributeError, RuntimeError, IndexError) as error:
                name = next((name for name in tensors if name not in own), "its first tensor")
                raise UserError(f"{where} holds weights of another architecture: {name} is unknown to it") from error
        heads = self.net.pretrained_cfg.get("classifier") or ()
        heads = (heads,) if isinstance(heads, str) else tuple(heads)
        fit(self.net, tensors, where, lambda name: name.startswith(tuple(f"{h}." for h in heads)))


@contextmanager
def sized(size: tuple[int, int]) -> Iterator[None]:
    """Networks that transformers' timm_backbone makes inside are built for pictures of this size, their maps turned to
    channels first."""
    create_model = timm.create_model

    def made(name: str, *args: Any, **settings: Any) -> nn.Module:
        try:
            net = create_model(name, *args, **{"img_size": size, **settings})
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            net = create_model(name, *args, **settings)
        if str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC"):
            net.register_forward_hook(_turned)
        return net

    with patch.object(timm, "create_model", made):
        yield


def _turned(net: nn.Module, given: Any, maps: list[Tensor]) -> list[Tensor]:
    """[Float[B h w C], ...] -> [Float[B C h w], ...]."""
    return [one.permute(0, 3, 1, 2).contiguous() for one in maps]
