"""The whole model as int8: dynamic quantisation of torch.ao and torchao, in every modality, packed and padded."""

import warnings

import clients
import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

RAW = {
    "text": ["a red seven", "some other words on a table"],
    "image": [clients.picture(20, 7), clients.picture(10, 12)],
    "audio": [(clients.sound(2000), 8000), (clients.sound(3333), 8000)],
    "points": [np.random.default_rng(1).normal(size=(n, 3)) for n in (40, 4)],
    "series": [np.random.default_rng(2).normal(size=n) for n in (40, 12)],
    "table": clients.ROWS[:2],
}


def torch_ao(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from torch.ao.quantization import quantize_dynamic

        return quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)


def torchao(model):
    package = pytest.importorskip("torchao.quantization", reason="pip install torchao")
    package.quantize_(model, package.Int8WeightOnlyConfig())
    return model


@pytest.mark.parametrize("way", [torch_ao, torchao])
@pytest.mark.parametrize("more", [{}, {"moe": {"placement": "all", "experts": 3, "router": "attribute"}}])
def test_every_modality_keeps_its_features_when_all_linears_are_int8(way, more):
    model, processor = clients.model_and_processor(**more)
    small = way(clients.model_and_processor(**more)[0])
    kept = [
        type(m).__name__ for m in small.modules() if type(m) is torch.nn.Linear and type(m.weight.data) is torch.Tensor
    ]
    assert way is not torch_ao or not kept
    for name, raw in RAW.items():
        expected = model.encode(processor(**{name: raw}))
        found = small.encode(processor(**{name: raw}))
        assert not torch.equal(found, expected)
        assert (found * expected).sum(-1).min() > 0.99, name
        with torch.no_grad():
            padded = small(**processor(**{name: raw}, return_tensors="pt")).pooler_output
        assert (normalize(padded, dim=-1) * found).sum(-1).min() > 0.995, name
    p = small.rank(processor(image=RAW["image"]), processor.candidates(["a red seven", "a blue nine"]))
    torch.testing.assert_close(
        p,
        model.rank(processor(image=RAW["image"]), processor.candidates(["a red seven", "a blue nine"])),
        atol=0.1,
        rtol=0,
    )
