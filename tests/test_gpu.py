"""What a GPU computes is what a CPU computes; every test here skips where there is none."""

import copy
from unittest import mock

import clients
import numpy as np
import pytest
import torch

from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.nn.attention import parts
from generalist.nn.encoder import Encoder

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
RAW = {
    "text": ["a red seven", "some other words on a table"],
    "image": [clients.picture(20, 7), clients.picture(10, 12)],
    "audio": [(clients.sound(2000), 8000), (clients.sound(3333), 8000)],
    "points": [np.random.default_rng(1).normal(size=(n, 3)) for n in (40, 4)],
    "series": [np.random.default_rng(2).normal(size=n) for n in (23, 5)],
    "table": clients.ROWS[:2],
}


@pytest.fixture(scope="module", autouse=True)
def full_precision():
    """Matrix products in fp32 as a CPU has them, not in TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("modality", RAW)
def test_features_and_gradients_are_those_of_the_cpu(modality):
    model, processor = clients.model_and_processor()
    packed = pack(processor(**{modality: RAW[modality]}))
    found = []
    for device in ("cpu", "cuda"):
        own = copy.deepcopy(model).to(device).train()
        features = own.features(packed.to(device))
        features.square().sum().backward()
        gradients = {n: p.grad.cpu() for n, p in own.named_parameters() if p.grad is not None}
        found.append((features.detach().cpu(), gradients))
    torch.testing.assert_close(found[1][0], found[0][0], atol=1e-5, rtol=1e-4)
    assert set(found[0][1]) == set(found[1][1])
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient, atol=1e-4, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sequences_of_many_lengths_go_through_one_kernel(dtype):
    """Half precision against the CPU's float32: one call a layer, features and gradients as near as the dtype is."""
    torch.manual_seed(0)
    config = GeneralistConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128)
    encoder = Encoder(config)
    lengths = [1, 3, 3, 8, 17, 40]
    packed = pack([[Span("x", {"x": torch.randn(n, 64)}, n)] for n in lengths])
    weight, found = torch.randn(sum(lengths), 64), []
    kernel = mock.Mock(side_effect=parts.varlen)
    for device in ("cpu", "cuda"):
        own, here = copy.deepcopy(encoder).to(device), packed.to(device)
        x = here.data["x"]["x"][here.row].requires_grad_()
        with torch.autocast("cuda", dtype, enabled=device == "cuda"), mock.patch.object(parts, "varlen", kernel):
            out, _ = own(x, At(here.layout))
        (out.float() * weight.to(device)).sum().backward()
        assert kernel.call_count == (2 if device == "cuda" else 0)
        found.append([out.detach().float().cpu(), x.grad.cpu(), *(p.grad.cpu() for p in own.parameters())])
    for here, there in zip(*found, strict=True):
        assert (here - there).abs().max() <= 0.03 * here.abs().max()


@pytest.mark.parametrize("mask", [False, True])
def test_flex_attention_learns_what_sdpa_learns(mask):
    model = clients.model_and_processor()[0]
    words = {"input_ids": torch.arange(10, device="cuda").view(2, 5)}
    if mask:
        words["attention_mask"] = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], device="cuda")
    found = []
    for name in ("sdpa", "flex_attention"):
        own = copy.deepcopy(model).cuda().train()
        own.set_attn_implementation(name)
        features = own(**words).pooler_output
        features.square().sum().backward()
        found.append((features.detach(), {n: p.grad for n, p in own.named_parameters() if p.grad is not None}))
    torch.testing.assert_close(found[1][0], found[0][0], atol=1e-4, rtol=1e-3)
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient, atol=1e-3, rtol=1e-2, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("version", [2, 3])
def test_flash_attention_gives_the_features_of_sdpa_or_says_what_to_install(version, tmp_path):
    from transformers import AutoModel
    from transformers.utils import is_flash_attn_2_available
    from transformers.utils.import_utils import is_flash_attn_3_available

    import generalist  # noqa: F401
    from generalist.data.base.errors import UserError

    clients.save(tmp_path)
    there = (is_flash_attn_2_available if version == 2 else is_flash_attn_3_available)()
    name = f"flash_attention_{version}"
    if not there:
        with pytest.raises(UserError, match="flash-attn" if version == 2 else "sources"):
            AutoModel.from_pretrained(tmp_path, attn_implementation=name, dtype=torch.bfloat16)
        return
    words = {
        "input_ids": torch.arange(10, device="cuda").view(2, 5),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], device="cuda"),
    }
    with torch.no_grad():
        found = [
            AutoModel.from_pretrained(tmp_path, attn_implementation=kind, dtype=torch.bfloat16).cuda()(**words)
            for kind in ("sdpa", name)
        ]
    torch.testing.assert_close(found[1].pooler_output, found[0].pooler_output, atol=0.05, rtol=0.05)


def test_a_step_in_bf16_lowers_the_loss():
    model, processor = clients.model_and_processor()
    model = model.cuda().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    raw = {"text": clients.TEXTS, "image": [clients.picture(12, 12, i) for i in range(5)]}
    batch = processor(**raw, return_tensors="pt").to("cuda")
    losses = []
    for _ in range(20):
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(**batch, return_loss=True).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0], losses
