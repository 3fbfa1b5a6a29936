"""Any modality, any odd raw value: one clear line or finite tokens, and what is masked never changes the result."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.hf.model import GeneralistModel
from generalist.model.config import GeneralistConfig
from generalist.tokenizers_mod.base.modalities import MODALITIES, build_modalities
from generalist.tokenizers_mod.tables.schema import Schema
from generalist.tokenizers_mod.text.bpe import train_bpe

ROWS = [{"age": 3, "city": "x"}, {"age": 5.5, "city": "y"}, {"age": None, "city": "z"}]
SETTINGS = {
    "summary": {},
    "text": {"max_length": 12, "positions": 12, "tokenizer": train_bpe(["a cat", "two dogs on a mat"], 280).to_str()},
    **{name: {"size": 16, "patch": 8} for name in ("image", "xray", "thermal", "depth")},
    "spectral": {"bands": 4, "patch": 2, "group": 2},
    "video": {"size": 8, "patch": 4, "frames": 5, "tubelet": 2},
    "audio": {"rate": 8000, "mels": 10, "patch": [10, 4], "stride": [10, 4]},
    "imu": {"channels": 3, "patch": 4},
    "graph": {"node_columns": [3], "node_values": 1, "identifiers": 2},
    "points": {"groups": 5, "size": 3, "hidden": 4},
    "series": {"patch": 4},
    "slot": {"patch": 3},
    "table": {"schemas": {"t": Schema.learn(ROWS).to_json()}},
    "number": {},
}
ELSEWHERE = {"region"}  # a network finds its tokens; see its own tests

wide = st.floats(allow_nan=True, allow_infinity=True, width=64)
gaps = st.floats(-1e300, 1e300) | st.just(math.nan)
kinds = st.sampled_from([np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64, np.bool_])


def arrays(elements=wide, dims=(0, 4), side=7):
    return hnp.arrays(
        np.float64, hnp.array_shapes(min_dims=dims[0], max_dims=dims[1], min_side=0, max_side=side), elements=elements
    )


def columns(count, elements=gaps, longest=20):
    return hnp.arrays(np.float64, st.tuples(st.integers(0, longest), st.just(count)), elements=elements)


pictures = (
    kinds.flatmap(lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=2, max_dims=3, min_side=0, max_side=19)))
    | arrays()
)
cells = st.none() | st.floats() | st.integers() | st.text(max_size=3) | st.booleans()
ends = st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 4)), max_size=9)
RAW = {
    "text": st.text() | st.none() | st.integers() | st.binary(),
    "image": pictures,
    "xray": pictures,
    "thermal": pictures,
    "depth": pictures,
    "spectral": arrays(gaps, (1, 3))
    | hnp.arrays(np.float64, st.tuples(*[st.integers(1, 5)] * 2, st.just(4)), elements=gaps),
    "video": arrays()
    | hnp.arrays(np.uint8, st.tuples(st.integers(0, 9), *[st.integers(0, 9)] * 2, st.sampled_from([1, 2, 3, 4]))),
    "audio": st.tuples(
        hnp.arrays(np.float64, st.integers(0, 900), elements=st.floats(-1e7, 1e7), fill=st.floats(-1, 1)),
        st.sampled_from([8000, 11025, 16000, 0, -5, 8000.5]),
    ),
    "imu": columns(3) | arrays(),
    "graph": st.fixed_dictionaries(
        {"nodes": st.lists(st.integers(-1, 9), max_size=5), "edges": ends},
        optional={"node_values": st.lists(wide, max_size=5), "center": st.integers(-2, 5)},
    ),
    "points": columns(3, wide) | arrays(),
    "series": hnp.arrays(np.float64, st.integers(0, 30), elements=gaps) | arrays(),
    "slot": st.integers(-2, 20) | st.lists(wide, max_size=9),
    "table": st.fixed_dictionaries({}, optional={"age": cells, "city": cells, "more": cells}),
    "number": wide | st.lists(wide, max_size=6) | st.text(max_size=3),
}
# a value that is whole, so that every modality is sure to be tried
SURE = {
    "text": "two dogs on a mat",
    "image": np.arange(600.0).reshape(20, 30),
    "xray": np.arange(600).reshape(20, 30),
    "thermal": np.arange(600.0).reshape(20, 30),
    "depth": np.arange(600.0).reshape(20, 30),
    "spectral": np.arange(100.0).reshape(5, 5, 4),
    "video": np.arange(180.0).reshape(5, 3, 4, 3),
    "audio": (np.sin(np.arange(3000.0)), 8000),
    "imu": np.arange(60.0).reshape(20, 3),
    "graph": {"nodes": [0, 1, 2, 1], "edges": [(0, 1), (1, 2)], "node_values": [0.5, 1.0, 2.0, 3.0]},
    "points": np.random.default_rng(0).random((40, 3)),
    "series": np.sin(np.arange(30.0)),
    "slot": 9,
    "table": {"age": 4, "city": "y"},
    "number": [0.5, 1.0, -3.0],
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = GeneralistConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        modalities={name: dict(values) for name, values in SETTINGS.items()},
    )
    return GeneralistModel(config).eval()


def test_every_modality_of_the_table_is_here():
    assert set(SETTINGS) | ELSEWHERE == set(MODALITIES)
    assert set(RAW) == set(SURE) == set(SETTINGS) - {"summary"}


@pytest.mark.parametrize("name", list(RAW))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_raw_value_ends_in_one_line_or_in_finite_tokens(name, data):
    modality = build_modalities({name: dict(SETTINGS[name])})[name]
    raw = data.draw(RAW[name])
    draw = data.draw(st.none() | st.integers(0, 99).map(lambda s: torch.Generator().manual_seed(s)))
    try:
        span = modality.span(modality.read(raw), draw)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 700
        return
    real = torch.ones(span.length, dtype=torch.bool) if span.mask is None else span.mask
    assert span.length >= 1 and bool(real.any())
    torch.manual_seed(0)
    assert modality.build(8)(span.data)[real].isfinite().all()


@pytest.mark.parametrize("name", list(RAW))
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 999))
def test_masked_tokens_never_change_the_result_whatever_they_hold(model, name, seed):
    modality = model.modalities[name]
    span = modality.span(modality.read(SURE[name]))
    span = replace(span, asked=None, labels=None)
    draw = torch.Generator().manual_seed(seed)
    real = torch.ones(span.length, dtype=torch.bool) if span.mask is None else span.mask.clone()
    kept = real & (torch.rand(span.length, generator=draw) < 0.6)
    kept[int(real.nonzero()[0])] = True
    spoiled = {}
    for key, value in span.data.items():
        assert len(value) == span.length, key  # one row a token, so a token can be left out
        spoiled[key] = value.clone()
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=draw) * 1e3
            spoiled[key] = torch.where(kept.view(-1, *[1] * (value.ndim - 1)), value, noise)
        else:
            spoiled[key][~kept] = value[int(kept.nonzero()[0])]
    head = model.modalities["summary"].span(None).ask([0])
    without = replace(
        span, data={k: v[kept] for k, v in span.data.items()}, length=int(kept.sum()), mask=None, grid=None
    )
    with torch.no_grad():
        masked, other, gone = (
            model.features(pack([[head, s]]))
            for s in (replace(span, mask=kept), replace(span, data=spoiled, mask=kept), without)
        )
    assert torch.equal(masked, other)
    torch.testing.assert_close(masked, gone, atol=1e-5, rtol=1e-5)
