"""Two towers in other hands: AutoModel with and without trust_remote_code, and every side exported to ONNX."""

import numpy as np
import pytest
import torch

from generalist.convert import hf
from tests import pair_folders

# the side that is no text, and its padded tensor of a batch
SIDES = {"clip": ("pixel_values", (2, 3, 32, 32)), "clap": ("input_features", (2, 1, 64, 16))}
IDS = [[1, 9, 12, 2], [1, 7, 2, 0]]


@pytest.fixture(scope="module", params=SIDES)
def pair(request, tmp_path_factory):
    """(kind, ours as a folder, the library's own model)."""
    source, out = (tmp_path_factory.mktemp(f"{request.param}_{end}") for end in ("in", "out"))
    original = pair_folders.build(request.param, source)
    hf.convert(source, out)
    return request.param, out, original


def given(kind):
    name, shape = SIDES[kind]
    ids = torch.tensor(IDS)
    return {name: torch.randn(shape, generator=torch.Generator().manual_seed(0)), "input_ids": ids} | {
        "attention_mask": (ids > 0).long()
    }


@torch.no_grad()
@pytest.mark.parametrize("remote", [False, True])
def test_a_pair_loads_by_automodel_and_gives_the_originals_logits(pair, remote):
    from transformers import AutoModel, AutoProcessor

    kind, folder, original = pair
    model = AutoModel.from_pretrained(folder, trust_remote_code=remote).eval()
    tensors = given(kind)
    expected = original(**tensors)
    expected = expected.logits_per_image if kind == "clip" else expected.logits_per_audio
    torch.testing.assert_close(model(**tensors).logits, expected, atol=1e-5, rtol=1e-5)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=remote)
    assert processor(text=["a cat"], return_tensors="pt")["input_ids"].shape[0] == 1


class Side(torch.nn.Module):
    """Features of one side with a plain signature, for exporters."""

    def __init__(self, model, *names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *tensors):
        return self.model(**dict(zip(self.names, tensors, strict=True))).pooler_output


@pytest.mark.parametrize("text", [True, pytest.param(False, marks=pytest.mark.soak)])  # the exporter's seconds
def test_a_tower_is_exported_to_onnx_at_any_batch(pair, text, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="pip install generalist-encoder[clients]")
    pytest.importorskip("onnxscript", reason="pip install generalist-encoder[clients]")
    from torch.export import Dim
    from transformers import AutoModel

    kind, folder, original = pair
    names = ("input_ids", "attention_mask") if text else SIDES[kind][:1]
    wrapped = Side(AutoModel.from_pretrained(folder).eval(), *names).eval()
    tensors = tuple(given(kind)[name] for name in names)
    batch = Dim("batch", min=1, max=64)
    shapes = (tuple({0: batch} for _ in names),)  # *tensors is one argument
    words = {"dynamo": True, "dynamic_shapes": shapes, "verbose": False, "optimize": False}
    torch.onnx.export(wrapped, tensors, **words).save(str(tmp_path / "side.onnx"))
    session = runtime.InferenceSession(str(tmp_path / "side.onnx"), providers=["CPUExecutionProvider"])
    more = [torch.cat([t, t[:1]]) for t in tensors]  # another batch
    (got,) = session.run(None, {i.name: t.numpy() for i, t in zip(session.get_inputs(), more, strict=True)})
    with torch.no_grad():
        np.testing.assert_allclose(got, wrapped(*more).numpy(), atol=1e-4)
        side = "text" if text else {"clip": "image", "clap": "audio"}[kind]
        own = getattr(original, f"get_{side}_features")(**dict(zip(names, more, strict=True)))
    own = (own if isinstance(own, torch.Tensor) else own.pooler_output).numpy()
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (got, own)]
    np.testing.assert_allclose(*unit, atol=1e-4)  # the original's features, both at unit length
