"""Retention's three forms are one, answers are written with a state of one size, and RMT's decay in a packed batch."""

import pytest
import torch
from safetensors.torch import load_file

from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.model.decode import Anew, Writer, start, vocabulary_features
from generalist.nn.mixers.attention import DecayAttention
from generalist.nn.mixers.retention import chunked, decays, parallel, recurrent
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.image import Image
from tests.references import HERE

SIZES = {"width": 24, "layers": 2, "heads": 3, "hidden": 40}


def drawn(n, heads=3, width=4):
    torch.manual_seed(n)
    return [torch.randn(2, heads, n, width, dtype=torch.double) for _ in range(3)]


@pytest.mark.parametrize("n", [1, 5, 17])
def test_parallel_chunked_and_recurrent_are_one(n):
    q, k, v = drawn(n)
    decay = decays(3).double()
    place = torch.arange(n)[None]
    before = parallel(q, k, v, decay, place, both=False)
    steps, state = recurrent(q, k, v, decay)
    torch.testing.assert_close(steps, before, atol=1e-6, rtol=1e-5)
    assert state.shape == (2, 3, 4, 4)
    whole = parallel(q, k, v, decay, place)
    for chunk in (1, 2, 3, 4, 7, 64):
        torch.testing.assert_close(chunked(q, k, v, decay, chunk, both=False), before, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(chunked(q, k, v, decay, chunk), whole, atol=1e-5, rtol=1e-4)
    # forwards is backwards of the reverse, and a pair at distance d counts gamma^d
    turned = parallel(*(t.flip(2) for t in (q, k, v)), decay, place).flip(2)
    torch.testing.assert_close(turned, whole)
    far = (q[:, :, 0] * k[:, :, -1]).sum(-1, keepdim=True) * v[:, :, -1] * decay.exp().view(1, 3, 1) ** (n - 1)
    less = parallel(q, k, torch.cat([v[:, :, :-1], torch.zeros_like(v[:, :, -1:])], 2), decay, place)
    torch.testing.assert_close(whole[:, :, 0] - less[:, :, 0], far, atol=1e-6, rtol=1e-5)


def writing(mixers):
    torch.manual_seed(0)
    text = Text(tokenizer="", learn=300, max_length=8, positions=8)
    text.learn_texts(["once upon a time", "a cat sat on a mat"])
    own = {"summary": Summary(), "text": text, "image": Image(size=12, patch=4, channels=1)}
    settings = {name: m.settings() for name, m in own.items()}
    config = GeneralistConfig(**SIZES, mixers=mixers, modalities=settings, scales=["default"], writing_scale="default")
    made = GeneralistModel(config).eval()
    for parameter in made.encoder.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return made


@pytest.mark.parametrize("mixers", ["retention", ["decay_attention", "retention"]])
@torch.no_grad()
def test_words_written_with_what_is_kept_are_those_of_whole_passes(mixers):
    made = writing(mixers)
    text, image, summary = (made.modalities[name] for name in ("text", "image", "summary"))
    draw = torch.Generator().manual_seed(1)
    pictures = [torch.rand(1, 4 * h, 4 * w, generator=draw) for h, w in ((3, 3), (1, 2))]
    inputs = [[summary.span(None), image.span(picture)] for picture in pictures]
    members = vocabulary_features(made, text, summary)
    kept, anew = start(made, inputs, text, "default"), Anew(made, inputs, text, "default")
    assert isinstance(kept, Writer)
    sizes = []
    for t in range(4):
        ours, theirs = kept.ask(t, members), anew.ask(t, members)
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
        words = theirs.argmax(-1)
        kept.write(words, t)
        anew.write(words, t)
        sizes.append(kept.cache.layers[1][0].shape)
    assert set(sizes) == {(2, 3, 8, 8)}  # heads of d x d, however much was read and written
    rows = torch.tensor([1, 0, 1])
    kept.select(rows)
    anew.select(rows)
    torch.testing.assert_close(kept.ask(4, members), anew.ask(4, members), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_rmts_whole_form_among_other_maps_of_a_packed_batch_is_the_authors():
    tensors = load_file(HERE / "systems" / "rmt" / "masa_modules.safetensors")
    weight = {name.removeprefix("sd."): t for name, t in tensors.items() if name.startswith("sd.")}
    x = tensors["input"]
    made = DecayAttention(16, 2)
    own = {"out.weight": weight["out_proj.weight"], "out.bias": weight["out_proj.bias"]}
    for kind in ("weight", "bias"):
        own[f"qkv.{kind}"] = torch.cat([weight[f"{part}_proj.{kind}"] for part in "qkv"])
        own[f"local.filter.{kind}"] = weight[f"lepe.conv.{kind}"]
    made.load_state_dict(own)
    maps = [Span("x", {"x": one.flatten(0, 1)}, 30, grid=(5, 6)) for one in x]
    other = Span("x", {"x": torch.randn(6, 16)}, 6, grid=(2, 3))
    packed = pack([[maps[0]], [other], [maps[1]]])
    out = made(packed.data["x"]["x"][packed.row], At(packed.layout))
    for number, theirs in ((0, 0), (2, 1)):
        found = out[packed.owner == number].view(5, 6, 16)
        torch.testing.assert_close(found, tensors["output_whole"][theirs], atol=1e-5, rtol=1e-4)
