"""What all modalities with a pretrained encoder share: where weights come from, what of them learns, what is said.

frozen     its weights stay, in evaluation mode; the tokens' linear map learns
tuned      (the default) all of it learns with the rest
lora=R     low-rank changes of rank R beside its linear maps learn (2106.09685), its weights stay
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.base.tokenizer import Tokenizer
from generalist.tokenizers_mod.libraries.weights import ZOO, digest
from generalist.tokenizers_mod.libraries.zoo import entry


@dataclass
class Pretrained:
    """weights: "" = random ones, which is said; "zoo:NAME", a folder, a file or "hub:NAME".

    frozen, lora: what of the encoder learns.
    features: 1e9 bytes on disk that what a frozen encoder makes of samples may take, each sample once
        (`generalist.tokenizers_mod.pretrained.features`); 0 = it is made anew every time.
    digest: of a frozen encoder, which weights it has (found, not given).
    """

    weights: str = ""
    frozen: bool = False
    lora: int = 0
    features: float = 4.0
    digest: str = ""

    def check_learning(self, name: str) -> None:
        if self.lora < 0:
            raise UserError(f"{name}: lora is {self.lora}; it is the rank of the changes, 0 = none")
        if self.features < 0:
            raise UserError(f"{name}: features is {self.features} 1e9 bytes; it is at least 0, 0 = nothing is kept")
        if self.lora and self.frozen:
            raise UserError(
                f"{name}: frozen and lora={self.lora} do not go together; with lora its weights stay as well"
            )

    @property
    def keeps(self) -> bool:
        """Whether what the encoder makes of a sample is kept on disk: it is frozen, and its weights are known."""
        return self.stays and self.features > 0 and bool(self.digest)

    @property
    def stays(self) -> bool:
        """Whether what comes of a sample before anything that learns stays the same."""
        return self.frozen

    def reference(self) -> dict[str, str] | None:
        """Where a saved model finds the frozen weights that it leaves out: those of a package, by name and hash."""
        if not (self.frozen and self.digest and self.weights.startswith(ZOO)):
            return None
        found = entry(self.weights)
        return {"weights": self.weights, "package": f"{found.package} {found.version}".strip(), "digest": self.digest}

    def learns(self) -> str:
        """What of it does, in words."""
        return "frozen" if self.frozen else f"with LoRA of rank {self.lora}" if self.lora else "tuned"

    def origin(self) -> list[str]:
        """What is said of the weights, a line."""
        learns = self.learns()
        if not self.weights:
            return [f"its encoder begins with RANDOM weights, {learns}; weights= gives pretrained ones"]
        return [f"its encoder begins with the weights {self.weights}, {learns}"]


class PretrainedTokens(Tokenizer):
    """A device half around `encoder`, which stays in evaluation mode where it is frozen."""

    def __init__(self, encoder: nn.Module, frozen: bool, lora: int) -> None:
        super().__init__()
        self._state = ""  # the digest of its weights, once it was asked for
        self.frozen = frozen
        self.lora = lora
        self.encoder = with_lora(encoder, lora) if lora else encoder
        self.settle()

    def settle(self) -> None:
        """Let only that learn which was asked for; whoever loads a model's weights makes all of them learn."""
        if self.frozen or self.lora:
            for name, value in self.encoder.named_parameters():
                value.requires_grad_(bool(self.lora) and "lora_" in name)

    def state(self) -> str:
        """The digest of the weights that stay as they are; "" where they are not float32, and not what was read."""
        if not self._state and all(v.dtype == torch.float32 for v in self.encoder.parameters()):
            self._state = digest(self.fixed())
        return self._state

    def fixed(self) -> dict[str, Tensor]:
        """The weights by which features are kept."""
        return self.encoder.state_dict()

    def _apply(self, fn: Any, recurse: bool = True) -> PretrainedTokens:
        self.forget()  # another device or type
        super()._apply(fn, recurse)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.forget()  # other weights
        super()._load_from_state_dict(*args, **kwargs)

    def made(self, data: dict[str, Tensor]) -> Tensor:
        """What the encoder makes of samples that are one token each, before the linear map: Float[B inner]."""
        raise NotImplementedError

    def forget(self) -> None:
        """Drop what is known of the weights."""
        self._state = ""

    def hold(self) -> bool:
        self.frozen = True
        self.encoder.requires_grad_(False)
        self.train(self.training)
        return True

    def train(self, mode: bool = True) -> PretrainedTokens:
        super().train(mode)
        if self.frozen:
            self.encoder.eval()  # no dropout and no new statistics in what does not learn
        return self


def vector(modality: Any, raw: Any) -> np.ndarray | None:
    """What a modality's encoder, as it was pretrained, makes of a raw value, Float[inner]; None of one tuned whole."""
    if not modality.stays:
        return None
    span = modality.span(modality.read(raw))
    if span.length != 1:
        return None
    if "_alone" not in modality.__dict__:
        with torch.random.fork_rng(devices=[]):
            modality.__dict__["_alone"] = modality.build(8).eval()
    with torch.no_grad():
        return modality.__dict__["_alone"].made(span.data)[0].numpy()


@contextmanager
def frozen(off: bool) -> Iterator[None]:
    """No gradient inside where `off`."""
    with torch.set_grad_enabled(torch.is_grad_enabled() and not off):
        yield


def with_lora(encoder: nn.Module, rank: int) -> nn.Module:
    """The same encoder with low-rank changes beside every linear map; they alone learn. UserError without peft."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError("lora needs peft; pip install peft (or the extra lora)") from error
    names = [name for name, module in encoder.named_modules() if isinstance(module, nn.Linear)]
    if not names:  # a network of convolutions: those of 1 x 1 pixel are its linear maps
        names = [
            name
            for name, module in encoder.named_modules()
            if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
        ]
    if not names:
        raise UserError("lora: this encoder has no linear maps; use frozen=true or tune it whole")
    changes: Any = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names)
    return inject_adapter_in_model(changes, encoder)
