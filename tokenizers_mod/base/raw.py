"""Numbers in a person's hands -> an ordinary NumPy array, whatever library and whichever form they come in."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generalist.data.base.errors import UserError, told
from generalist.data.base.limits import MB, limits, over

FEW = 10_000  # numbers that are within any limit
PLAIN = frozenset(np.dtype(kind) for kind in ("f4", "f8", "u1", "i8", "i4", "u2", "i2", "?"))
FINEST = 10_000  # the denominator of a resampling ratio: the filter is twenty times as long


def as_array(raw: Any, what: str) -> np.ndarray:
    """Tensors that need a gradient, are sparse, half or quantised, arrays of another byte order, lists -> an array.

    Kinds that torch does not have (long double, other byte orders) become those that it has. UserError: no array.
    """
    if type(raw) is np.ndarray and raw.dtype in PLAIN:  # nearly all are: nothing to ask
        return raw
    if isinstance(raw, Tensor):
        return _of_tensor(raw.detach(), what)
    try:
        array = np.ma.filled(raw, np.nan) if isinstance(raw, np.ma.MaskedArray) else np.asarray(raw)
    except Exception as error:  # lists of unequal rows, objects that refuse to be arrays
        raise UserError(f"{what}: {told(raw)} is not an array of numbers ({type(error).__name__})") from error
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _of_tensor(tensor: Tensor, what: str) -> np.ndarray:
    if math.prod(tensor.shape) * 8 > limits().array_mb * MB and tensor.layout != torch.strided:
        raise over(what, "array_mb", f"a sparse tensor of shape {tuple(tensor.shape)}")
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()
    return tensor.cpu().resolve_conj().resolve_neg().numpy()


def as_numbers(raw: Any, what: str) -> np.ndarray:
    """The same as float64. UserError: no numbers, or too many of them."""
    array = as_array(raw, what)
    if array.size > FEW and array.size * 8 > limits().array_mb * MB:
        raise over(what, "array_mb", f"{array.size:,} numbers")
    if array.dtype.kind not in "biufO" and not (array.dtype.kind in "US" and array.size):
        raise UserError(f"{what}: not an array of numbers ({array.dtype} of shape {array.shape})")
    try:
        return array.astype(np.float64, copy=False)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{what}: not an array of numbers ({error})") from error


def as_rate(rate: Any, what: str, low: float, high: float) -> float:
    """A sampling rate in Hz. UserError: no one number, NaN, or outside low..high."""
    try:
        value = float(rate) if np.ndim(rate) == 0 and not isinstance(rate, str | bytes | bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not low <= value <= high:
        raise UserError(f"{what}: sampling rate {told(rate)}; expected a number of Hz, {low:,g} to {high:,g}")
    return value


def resampled(
    array: np.ndarray, rate: float, wanted: float, what: str, finest: int = FINEST, **options: Any
) -> np.ndarray:
    """[t, ...] at `rate` -> at `wanted` Hz (scipy's polyphase filter), by a ratio of denominator at most `finest`.

    UserError where the result would be larger than a decoded sound may be, or nothing would be left.
    """
    from scipy.signal import resample_poly

    ratio = Fraction(wanted / rate).limit_denominator(finest)
    if ratio <= 0 or ratio.numerator > 100 * finest:
        raise UserError(f"{what}: cannot resample {rate:g} to {wanted:g} Hz; the rates are too far apart")
    size = array.size * float(ratio) * 4
    if size > limits().sound_mb * MB:
        raise over(what, "sound_mb", f"{size / MB:,.0f} MB at {wanted:g} Hz")
    return resample_poly(array, ratio.numerator, ratio.denominator, axis=0, **options)
