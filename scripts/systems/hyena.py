"""Hyena N-D: the operator in all its variants, and its long convolution alone."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from generalist.scripts.systems.reference import Reference, loaded
from generalist.tokenizers_mod.maps.hyena import Hyena, long_convolution

FALLS = {"fast_decay_pct": 0.3, "slow_decay_pct": 1.5, "target": 1e-2}  # of fixed windows
WINDOWS = {"standard": "fixed", "symettric": "symmetric", "no": "none"}  # the authors' spelling
NAMES = [
    (r"^in_proj\.", "into."),
    (r"^out_proj\.", "out."),
    (r"^short_filter\.", "short."),
    (r"^linear_mix\.", "merge."),
    (r"^(filter_fn\.)?bias$", "skip"),
    (r"^filter$", "filter.values"),
    (r"^filter_fn\.pos_emb\.z$", "filter.z_rows"),
    (r"^filter_fn\.X?implicit_filter\.1\.freq$", "filter.frequency"),
    (r"^filter_fn\.X?implicit_filter\.", "filter.mlps.0."),
    (r"^filter_fn\.Yimplicit_filter\.", "filter.mlps.1."),
]


def knows(reference: Reference) -> bool:
    return reference.has("short_filter.weight", "in_proj.weight") or set(reference.tensors) == {"u", "k", "D", "output"}


def compute(reference: Reference) -> dict[str, Tensor]:
    if not reference.weights:
        u, k, skip = (reference[name] for name in ("u", "k", "D"))
        return {"output": long_convolution(u, k, official_scale=True) + skip[:, None, None] * u}
    config = reference.config
    direct, grid = config.get("direct_paramtrization", False), config.get("hyena2d_filter", False)
    side, window = config["l_max"], config.get("window_mode", "standard")
    config.get("w")  # of the sines, which are weights
    window = window if config.get("modulate", True) else "no"
    falls = [config.get(name, value) == value for name, value in FALLS.items()]
    shift = config.get("shift", 0.0)
    if window == "standard" and not (all(falls) and shift == 0):
        window = "learn"  # whose rates and shift are weights
    made = Hyena(
        config["d_model"],
        config.get("order", 2),
        config.get("filter_order", 64),
        "direct" if direct else "grid" if grid else "product",
        WINDOWS.get(window, window),
        config.get("directional_mode", "standard"),
        config.get("sqrt_decay", False),
        side,
        config.get("emb_dim", 3),
        config.get("num_inner_mlps", 2),
        official_scale=True,
    )
    loaded(made, official(reference, made, shift))
    x = reference["input"]
    found = {"output": made(x.view(len(x), side, side, -1), None).view_as(x)}
    return found if direct else found | {"filter_k": made.filter(side, side).unsqueeze(0)}


def official(reference: Reference, made: Hyena, shift: float) -> dict[str, Tensor]:
    """The authors' weights by our names. shift: of windows, where it is no weight."""
    found: dict[str, Tensor] = {}
    for key, value in reference.weights.items():
        name = key
        for pattern, ours in NAMES:
            name = re.sub(pattern, ours, name)
        if found_linear := re.fullmatch(r"(filter\.mlps\.\d+)\.(\d+)\.(weight|bias)", name):
            mlp, number, kind = found_linear.groups()
            name = f"{mlp}.{int(number) // 2}.{kind}"
        if not name.startswith(("filter_fn.", "filter.mlps")) or name.endswith(("weight", "bias")):
            found[name] = value
    if "filter.z_rows" in found:
        found["filter.z_rows"] = found["filter.z_columns"] = found["filter.z_rows"][0]
    for name in ("skip", "filter.values"):  # the authors' direct form stores one more than it uses
        if name in found:
            count = made.order - 1
            found[name] = found[name][:count] if found[name].ndim > 1 else found[name]
    for ours in ("deltas", "shift"):
        keys = [
            f"filter_fn.{where}{ours}" for where in ("Xmodulation.", "Ymodulation.", "modulation.X", "modulation.Y")
        ]
        keys = [key for key in [*keys, f"filter_fn.modulation.{ours}"] if key in reference.weights]
        if keys and f"filter.{ours}" in made.state_dict():
            found[f"filter.{ours}"] = made.state_dict()[f"filter.{ours}"].new_tensor(
                [reference.weights[key].flatten().tolist() for key in keys]
            )
    own = made.state_dict()
    if "filter.shift" in own and "filter.shift" not in found:
        found["filter.shift"] = torch.full_like(own["filter.shift"], shift)
    return found
