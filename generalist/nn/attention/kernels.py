"""The attention kernels by transformers' names; `attention.attend` is the one place that calls them.

A kernel maps q, k, v Float[B H n d] and a mask (Bool[B 1 n|1 k], True = may be seen; Float[B H n k], added to the
scores; or None = all) to (Float[B H n d], weights Float[B H n k] where the kernel has them, else None).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from generalist.data.base.errors import UserError, nearest

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor | None]]


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, None]:
    """torch's own choice among its fused kernels."""
    return scaled_dot_product_attention(q, k, v, attn_mask=mask), None


def eager(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The formula, written out; softmax in float32. The only kernel that has weights to show."""
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if mask is not None:
        seen = mask.dtype == torch.bool
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min) if seen else scores + mask
    weights = scores.float().softmax(dim=-1).to(q.dtype)
    return weights @ v, weights


def flex(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, None]:
    """torch.nn.attention.flex_attention. UserError where torch cannot: it has no backward on a CPU."""
    from torch.nn.attention.flex_attention import flex_attention

    try:
        found = flex_attention(q, k, v, score_mod=_score_mod(q, k, mask))
        assert isinstance(found, Tensor)  # a tuple where more is asked for
        return found, None
    except NotImplementedError as error:
        what = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"{what}; or use attn_implementation='sdpa', which gives the same numbers") from error


def _score_mod(q: Tensor, k: Tensor, mask: Tensor | None) -> Callable[..., Tensor] | None:
    """A mask as flex_attention takes it: a function of a score and where it stands."""
    if mask is None:
        return None
    if mask.dtype != torch.bool:
        return lambda score, b, h, i, j: score + mask[b, h, i, j]
    full = mask.expand(len(q), 1, q.shape[2], k.shape[2])
    return lambda score, b, h, i, j: torch.where(full[b, 0, i, j], score, -float("inf"))


def flash(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, name: str) -> tuple[Tensor, None]:
    """The flash-attn package through transformers, for masks that only hide padding of queries and keys alike; others
    go to `sdpa`.

    Needs a CUDA device and float16 or bfloat16.
    """
    if mask is not None and (mask.shape[2] != 1 or q.shape[2] != k.shape[2]):
        return sdpa(q, k, v, mask)
    from transformers.modeling_flash_attention_utils import _flash_attention_forward

    padding = None if mask is None else mask[:, 0, 0]
    rows = (t.transpose(1, 2) for t in (q, k, v))
    out = _flash_attention_forward(*rows, padding, q.shape[2], is_causal=False, implementation=name)
    return out.transpose(1, 2), None


def needs_flash(version: int) -> str:
    """What must be there for `flash`, in one line; only version 2 is in the package index."""
    built = "the package flash-attn (pip install flash-attn --no-build-isolation)"
    what = built if version == 2 else f"FlashAttention {version} built from its sources"
    return (
        f"attn_implementation='flash_attention_{version}' needs {what}, a CUDA GPU and dtype bfloat16 or float16; "
        "without them 'sdpa' gives the same numbers"
    )


KERNELS: dict[str, Kernel] = {
    "sdpa": sdpa,
    "eager": eager,
    "flex_attention": flex,
    "flash_attention_2": partial(flash, name="flash_attention_2"),
    "flash_attention_3": partial(flash, name="flash_attention_3"),
}


def kernel(name: str | None) -> Kernel:
    """The kernel of `config._attn_implementation`; None is sdpa. UserError names the nearest valid one."""
    if name is None:
        return sdpa
    if name not in KERNELS:
        raise UserError(f"attn_implementation {name!r}; {nearest(name, KERNELS)}")
    return KERNELS[name]
