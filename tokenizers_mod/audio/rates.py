"""The rate at which a client's waveform was sampled, told beside it: `processor(audio=wave, sampling_rate=16000)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.base.base import Modality
from generalist.tokenizers_mod.base.capabilities import Hears


def at_rate(inputs: dict[str, Any], rate: Any, built: Mapping[str, Modality]) -> dict[str, Any]:
    """The inputs with every waveform of a sound told its rate, so that it is brought to the model's own."""
    sounds = [name for name, raw in inputs.items() if raw is not None and isinstance(built.get(name), Hears)]
    if not sounds:
        raise UserError(f"sampling_rate={rate} belongs to a waveform, and none is given")
    return {name: _told(raw, rate) if name in sounds else raw for name, raw in inputs.items()}


def _told(raw: Any, rate: Any) -> Any:
    """One waveform, or a list of them; a list of numbers is one waveform."""
    if isinstance(raw, list) and raw and not isinstance(raw[0], int | float | np.number):
        return [_told(one, rate) for one in raw]
    if isinstance(raw, np.ndarray | Tensor | list):
        return {"array": np.asarray(raw), "sampling_rate": rate}
    return raw
