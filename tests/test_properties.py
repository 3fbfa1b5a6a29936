"""Any modality, any odd raw value: one clear line or finite tokens."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.base.modalities import MODALITIES, build_modalities, modality_class
from generalist.tokenizers_mod.base.tokenizer import Embedded

MODALITIES_TRIED = [name for name in MODALITIES if modality_class(name).takes_input]

wide = st.floats(allow_nan=True, allow_infinity=True, width=64)
gaps = st.floats(-1e300, 1e300) | st.just(math.nan)
kinds = st.sampled_from([np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64, np.bool_])
anything = st.none() | st.integers(-5, 20) | wide | st.booleans() | st.text(max_size=3) | st.binary(max_size=9)


def arrays(like):
    """Arrays of any shape and kind, and of the shape of one that is whole: longer, shorter, with gaps."""
    shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7)
    loose = kinds.flatmap(lambda kind: hnp.arrays(kind, shapes)) | hnp.arrays(np.float64, shapes, elements=wide)
    if like.ndim == 0:
        return loose
    sides = [st.integers(0, min(2 * n + 3, 900)) for n in like.shape]
    kept = st.tuples(sides[0], *(st.just(n) for n in like.shape[1:])) | st.tuples(*sides)
    if like.ndim > 2:  # the last axis means something: channels, bands
        kept |= st.tuples(*sides[:-1], st.just(like.shape[-1]))
    few = kept.filter(lambda shape: np.prod(shape) <= 4000)
    elements = gaps | st.floats(-10, 10)
    fitting = hnp.arrays(np.float64, few, elements=elements, fill=st.floats(-1, 1))
    return fitting | kinds.flatmap(lambda kind: hnp.arrays(kind, few, fill=st.just(1))) | loose


def odd(raw):
    """Values in the form of one that is whole, and all that may be wrong with such."""
    if isinstance(raw, np.ndarray):
        return arrays(raw)
    if isinstance(raw, dict):
        parts = {key: odd(value) | anything for key, value in raw.items()}
        return st.fixed_dictionaries({}, optional={**parts, "more": anything}) | st.fixed_dictionaries(parts)
    if isinstance(raw, tuple):
        return st.tuples(*map(odd, raw)) | anything
    if isinstance(raw, list):
        parts = [odd(value) for value in raw] or [anything]
        return st.lists(st.one_of(parts), max_size=9) | st.tuples(*parts).map(list)
    if isinstance(raw, str):
        return st.text() | anything
    if isinstance(raw, int | float) and abs(raw) > 99:  # a rate
        return st.sampled_from([raw, 11025, 16000, 0, -5, raw + 0.5])
    return st.integers(-2, 20) | wide | anything


@cache
def built(name):
    """(good raw values, modality, its device half)"""
    torch.manual_seed(0)
    shown = modality_class(name).examples()
    modality = build_modalities({name: dict(shown.settings)})[name]
    return shown.good, modality, modality.build(8).eval()


@pytest.mark.parametrize("name", MODALITIES_TRIED)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_raw_value_ends_in_one_line_or_in_finite_tokens(name, data):
    good, modality, tokenizer = built(name)
    raw = data.draw(st.sampled_from(good).flatmap(odd))
    draw = data.draw(st.none() | st.integers(0, 99).map(lambda s: torch.Generator().manual_seed(s)))
    try:
        span = modality.span(modality.read(raw), draw)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 700
        return
    real = torch.ones(span.length, dtype=torch.bool) if span.mask is None else span.mask
    assert span.length >= 1 and bool(real.any())
    made = tokenizer(span.data)
    assert (made.x if isinstance(made, Embedded) else made)[real].isfinite().all()
