"""Tokens that each open a block see what is before them without a mask of all pairs."""

from dataclasses import replace

import pytest
import torch

from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Group, Layout, Span
from generalist.nn.attention import parts, prefixes
from generalist.nn.attention.attend import attend
from generalist.scripts.bench_waiting import told


def text(n: int, causal: int, *hidden: int) -> list[Span]:
    """n tokens, the last `causal` of them causal, asked at the last and one before."""
    tokens = torch.arange(n)
    made = Span("text", {"x": torch.zeros(n, 1)}, n, causal=tokens >= n - causal).ask([n - 1, n // 2])
    return [replace(made, hidden=torch.isin(tokens, torch.tensor(hidden))) if hidden else made]


SENTENCES = [text(5, 5), text(5, 5), text(7, 6), text(4, 0), text(9, 3), text(6, 6, 2)]


def inputs(sentences):
    packed = pack(sentences)
    torch.manual_seed(0)
    made = [torch.randn(packed.tokens, 2, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    return packed, made


@pytest.mark.parametrize("only", [False, True])
@pytest.mark.parametrize("prompted", [False, True])
def test_what_is_seen_is_what_the_formula_with_its_mask_sees(only, prompted):
    packed, qkv = inputs(SENTENCES)
    prompts = tuple(torch.randn(2, 3, 2, 8, dtype=torch.float64)) if prompted else None
    found = []
    for kernel in ("sdpa", "eager"):
        out = attend(*qkv, At(packed.layout, kernel=kernel, only=only), prompts)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        found.append([out.detach(), *(t.grad for t in qkv)])
        for t in qkv:
            t.grad = None
    assert len(found[0][0]) == (12 if only else packed.tokens)
    for own, wanted in zip(*found, strict=True):
        torch.testing.assert_close(own, wanted, atol=1e-6, rtol=1e-5)  # its softmax is in float32


def test_no_mask_of_all_pairs_is_made(monkeypatch):
    made = []
    monkeypatch.setattr(parts, "visible", lambda *given: made.append(given) or pytest.fail("a mask was made"))
    packed, qkv = inputs([text(5, 5), text(7, 6), text(7, 7)])
    for only in (False, True):
        attend(*qkv, At(packed.layout, only=only))
    packed, qkv = inputs(SENTENCES)
    with pytest.raises(pytest.fail.Exception):
        attend(*qkv, At(packed.layout))
    n = 3000  # a mask of its pairs would be nine million
    at = At(Layout([Group(0, 1, n, False)], torch.arange(n), torch.zeros(n, dtype=torch.bool)))
    q = torch.randn(n, 1, 8)
    out = attend(q, q, q, at)
    torch.testing.assert_close(out[:1], q[:1])  # the first sees itself alone
    assert len(made) == 1


def test_many_questions_of_long_causal_sequences_see_what_is_before_them_in_blocks(monkeypatch):
    packed, qkv = inputs([text(9, 9), text(9, 9), text(7, 7), text(12, 3)])
    found, masks = [], []
    blocks = prefixes._blocks
    monkeypatch.setattr(prefixes, "_blocks", lambda *g: (masks.append(b[2].shape) or b for b in blocks(*g)))
    for seen in (prefixes.SEEN, 20):
        monkeypatch.setattr(prefixes, "SEEN", seen)
        out = attend(*qkv, At(packed.layout, only=True))
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        found.append([out.detach(), *(t.grad for t in qkv)])
        for t in qkv:
            t.grad = None
    # of two sequences of nine, asked at two places each; the last question first; forward and backward
    assert masks == [(2, 1, 1, 9), (2, 1, 1, 5)] * 2
    for own, wanted in zip(*found, strict=True):
        torch.testing.assert_close(own, wanted)


def test_questions_at_every_sixteenth_of_many_causal_tokens_take_little_more_memory_than_full_attention():
    full, causal = (told("asked_memory", way) for way in ("full", "causal"))
    assert causal < 1.3 * full, (full, causal)  # 1.9 with a mask of all questions; 1.2 is asked, allocators differ
