"""Text and summary: ids, the spans of every kind of question, and the device half."""

import json
import pickle
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.tokenizers_mod.text.bpe import EOT, clean, train_bpe
from generalist.tokenizers_mod.text.summary import Summary
from generalist.tokenizers_mod.text.text import Text
from tests.references import UNI_PERCEIVER

LINES = ["the cat sat on the mat", "isn't it 12 dogs?", "a man's dog and a cat's mat", "extraordinarily unlikely"]


@cache
def clip():
    return Text(max_length=9, positions=11)


@cache
def small_json():
    return train_bpe(LINES, 290).to_str()


@cache
def small():
    return Text(tokenizer=small_json(), max_length=40, positions=50)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def visible(packed):
    """Bool[N, N] of one packed sequence, by the one mask rule: who (row) sees whom (column)."""
    block, hidden = packed.layout.block, packed.layout.hidden
    return (block[None, :] <= block[:, None]) & (~hidden[None, :] | torch.eye(len(block), dtype=torch.bool))


# ids and words


def test_published_words_are_the_words():
    for text, words in json.loads((UNI_PERCEIVER / "v1_tiny_meta.json").read_text(encoding="utf-8"))["tokenizer_words"]:
        assert clip().words(text) == words, text


def test_a_text_ends_in_one_end_token_and_positions_count_up():
    for text in ("left right", "left right <|endoftext|>"):
        span = clip().span(text)
        assert span.data["ids"].tolist() == [1823, 1155, 49407]
        assert span.data["position"].tolist() == [0, 1, 2]
        assert (span.modality, span.length, span.causal, span.asked) == ("text", 3, None, None)


def test_a_long_text_keeps_its_first_ids_and_its_end():
    ids = clip().ids("left " * 20)
    assert ids.tolist() == [1823] * 8 + [49407]


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=[])), st.sampled_from([clip, small]))
def test_any_unicode_string_round_trips_or_is_refused(text, modality):
    """Up to the clean-up (case, white space, repairs); surrogates included."""
    tokenizer = modality()
    try:
        value = tokenizer.read(text)
    except UserError as error:
        assert "\n" not in str(error)
        return
    ids = tokenizer.ids(value, max_length=10**6)
    normal = tokenizer.backend.normalizer.normalize_str("".join(clean(value).split()))
    assert "".join(tokenizer.decode(ids, specials=True).split()) == normal.strip().removesuffix(EOT) + EOT
    assert tokenizer.span(value).length <= tokenizer.max_length


@pytest.mark.parametrize("raw", ["", " \n\t ", "\x00\x1f", None, 3, b"bytes", ["a"]])
def test_nothing_and_other_types_are_refused_in_one_line(raw):
    with pytest.raises(UserError) as error:
        clip().read(raw)
    assert str(error.value).startswith("text: ") and "\n" not in str(error.value)


def test_a_text_of_unknown_symbols_is_refused():
    from tokenizers import Tokenizer, models, pre_tokenizers

    backend = Tokenizer(
        models.WordLevel({"<|endoftext|>": 0, "<|spe|>": 1, "<|unk|>": 2, "cat": 3}, unk_token="<|unk|>")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    text = Text(tokenizer=backend.to_str())
    assert text.ids("a cat").tolist() == [2, 3, 0]
    with pytest.raises(UserError, match="no symbol"):
        text.read("犬 猫")


# settings


def test_settings_are_json_that_stands_alone_and_the_modality_pickles_small(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(small_json(), encoding="utf-8")
    text = Text(tokenizer=str(path), max_length=7)
    expected = text.ids(LINES[2])
    path.unlink()
    again = Text.from_settings(json.loads(json.dumps(text.settings())))
    assert again == text and torch.equal(again.ids(LINES[2]), expected)
    assert torch.equal(pickle.loads(pickle.dumps(text)).ids(LINES[2]), expected)
    clip().ids("left")
    assert len(pickle.dumps(clip())) < 1000


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"max_length": 600}, "512 positions"),
        ({"max_length": 1}, "at least 2"),
        ({"tokenizer": "clipp.json"}, "clipp.json"),
        ({"tokenizer": ""}, "learn=800"),
        ({"max_lenght": 7}, "max_length"),
    ],
)
def test_wrong_settings_are_refused_with_what_to_mend(wrong, words):
    with pytest.raises(UserError, match=words):
        Text.from_settings(wrong)


def test_an_empty_tokenizer_is_learnt_once_and_travels_in_the_settings():
    text = Text(tokenizer="", learn=290)
    with pytest.raises(UserError, match="not learnt yet"):
        text.span("the cat")
    with pytest.raises(UserError, match="no training texts"):
        text.learn_texts([])
    text.learn_texts(LINES)
    assert text.vocabulary == 290 and torch.equal(text.ids(LINES[3]), small().ids(LINES[3]))
    again = Text.from_settings(text.settings())
    again.learn_texts(["other words"])
    assert again == text


def test_spans_go_by_the_name_that_the_modality_has_in_its_model():
    text = Text.from_settings(clip().settings())
    text.name = "question"
    spans = [text.span("left"), text.caption_span("left"), text.vocabulary_spans()[3], text.next_span([])]
    assert {span.modality for span in spans} == {"question"}
    assert pickle.loads(pickle.dumps(text)).span("left").modality == "question"


def test_the_hugging_face_tokenizer_gives_the_ids_of_the_modality():
    for text in (clip(), small()):
        found = text.hf_tokenizer()(LINES, truncation=True).input_ids
        assert found == [text.ids(line).tolist() for line in LINES]


# masked modelling


def test_masking_hides_whole_words_and_asks_for_every_sub_token_of_them():
    text, original = LINES[3] + " " + LINES[0], small().ids(LINES[3] + " " + LINES[0])
    word = torch.tensor(small().backend.encode(text, add_special_tokens=False).word_ids)
    assert len(word) > len(word.unique())  # some words have several sub-tokens
    for seed in range(40):
        span = small().masked(text, generator(seed), rate=0.3)
        shown = span.data["ids"]
        assert torch.equal(span.labels, original[span.asked]) and len(span.asked) > 0
        chosen = word[span.asked].unique()
        assert torch.equal(torch.isin(word, chosen).nonzero().squeeze(1), span.asked)
        rest = torch.ones(len(original), dtype=torch.bool)
        rest[span.asked] = False
        assert torch.equal(shown[rest], original[rest])
        for w in chosen:
            hidden = shown[: len(word)][word == w] == small().spe
            assert hidden.all() or not hidden.any()


def test_masking_follows_the_published_rates():
    text = Text(tokenizer=small_json(), max_length=500, positions=500)
    line = "dog " * 400
    original = text.ids(line)
    asked = hidden = kept = 0
    for seed in range(30):
        span = text.masked(line, generator(seed))
        shown = span.data["ids"][span.asked]
        asked += len(span.asked)
        hidden += int((shown == text.spe).sum())
        kept += int((shown == original[span.asked]).sum())
    per_word = (len(original) - 1) / 400
    assert asked / (30 * 400 * per_word) == pytest.approx(0.15, abs=0.015)
    assert hidden / asked == pytest.approx(0.8, abs=0.04)
    assert kept / asked == pytest.approx(0.1, abs=0.03)


def test_masking_repeats_with_its_seed_and_always_hides_a_word():
    first, second = (clip().masked("left right dog", generator(5)) for _ in range(2))
    assert torch.equal(first.data["ids"], second.data["ids"]) and torch.equal(first.asked, second.asked)
    for seed in range(20):
        assert clip().masked("left <|endoftext|> right", generator(seed), rate=0.0).asked.tolist() in ([0], [2])
        assert max(clip().masked("left " * 30, generator(seed), rate=1.0).asked) == 7  # the end is not a word
    with pytest.raises(UserError, match="no word"):
        clip().masked("<|endoftext|>", generator())


# captions


def test_a_caption_asks_for_every_word_at_its_own_slot():
    span = clip().caption_span("left right")
    assert span.data["ids"].tolist() == [49410, 1823, 49410, 1155, 49410, 49407]
    assert span.data["position"].tolist() == [0, 0, 1, 1, 2, 2]
    assert span.causal.tolist() == [False, True] * 3 and span.hidden.tolist() == [True, False] * 3
    assert span.asked.tolist() == [0, 2, 4] and span.labels.tolist() == [1823, 1155, 49407]


def test_the_mask_rule_gives_the_published_caption_mask():
    """[prefix(5), words(T), slots(T)] as published: slot i sees the prefix, words < i and itself only."""
    prefix, caption = clip().span("a red dog sits"), clip().caption_span("left right")
    pre, t = prefix.length, caption.length // 2
    seen = visible(pack([[prefix, caption]]))
    published_order = [*range(pre), *range(pre + 1, pre + 2 * t, 2), *range(pre, pre + 2 * t, 2)]
    seen = seen[published_order][:, published_order]

    expected = torch.zeros(pre + 2 * t, pre + 2 * t, dtype=torch.bool)
    expected[:, :pre] = True
    expected[pre : pre + t, pre : pre + t] = torch.ones(t, t).tril().bool()
    expected[pre + t :, pre : pre + t] = torch.ones(t, t).tril(-1).bool()
    expected[pre + t :, pre + t :] = torch.eye(t).bool()
    assert (pre, t) == (5, 3) and torch.equal(seen, expected)


def test_decoding_asks_at_the_slot_that_training_asked_at():
    """Step t of inference sees what slot t saw in training: the same ids, positions and mask."""
    prefix, words = clip().span("a red dog sits"), clip().ids("left right")
    caption = clip().caption_span("left right")
    trained = pack([[prefix, caption]])
    for t in range(len(words)):
        step = clip().next_span(words[:t])
        packed = pack([[prefix, step]])
        row = visible(packed)[packed.asked[0]]
        old = visible(trained)[trained.asked[t]]
        for key in ("ids", "position"):
            now, then = packed.data["text"][key][packed.row[row]], trained.data["text"][key][trained.row[old]]
            assert sorted(now.tolist()) == sorted(then.tolist())
    with pytest.raises(UserError, match="max_length"):
        clip().next_span([1823] * 9)


# questions and candidates


def test_a_question_is_cut_to_leave_room_for_its_slot_and_end():
    span = clip().question_span("what color is the car?", torch.tensor([4]))
    assert span.data["ids"].tolist() == [768, 3140, 533, 518, 1615, 286, 49410, 49407]
    assert span.asked.tolist() == [6] and span.labels.tolist() == [4] and span.causal is None
    cut = clip().question_span("left " * 30, max_length=5)
    assert cut.data["ids"].tolist() == [1823, 1823, 1823, 49410, 49407] and cut.asked.tolist() == [3]
    with pytest.raises(UserError, match="max_length"):
        clip().question_span("left", max_length=2)


def test_every_entry_is_a_candidate_of_two_tokens():
    spans = small().vocabulary_spans()
    assert len(spans) == small().vocabulary == 290
    assert [s.data["ids"].tolist() for s in spans] == [[i, small().eot] for i in range(290)]
    assert spans[7].data["position"].tolist() == [0, 1]


# device half


@pytest.mark.parametrize("type_row", [True, False])
def test_tokens_are_the_sum_of_the_tables_and_the_bare_row_without_a_position(type_row):
    torch.manual_seed(0)
    tables = Text(tokenizer=small_json(), max_length=5, positions=7, type_row=type_row).build(3)
    out = tables({"ids": torch.tensor([4, 9]), "position": torch.tensor([6, -1])})
    expected = tables.token.weight[4] + tables.position.weight[6]
    if type_row:
        expected = expected + tables.type_row.weight[0]
    torch.testing.assert_close(out, torch.stack([expected, tables.token.weight[9]]))
    out.sum().backward()
    assert tables.position.weight.grad[:6].abs().sum() == 0
    assert all(p.dim() > 0 for p in tables.parameters())


def test_embeddings_and_the_shared_norm_give_the_published_caption_sequence():
    """Published layout: [SPE, 9 patches, 6 words, 6 slots]; here id 599 is SPE (a vocabulary cut to 600)."""
    from safetensors.torch import load_file

    golden = load_file(UNI_PERCEIVER / "v1_tiny_dense.safetensors")
    tables = small().build(64)
    tables.token.weight.data = golden["w.token_embed.embeddings.weight"]
    tables.position.weight.data = golden["w.token_embed.embeddings_pos.position_embeddings.weight"]
    tables.type_row.weight.data = golden["w.token_embed.embeddings_token_type.weight"][:1]
    norm = [golden[f"w.token_embed.embeddings_norm.{name}"] for name in ("weight", "bias")]

    def embed(data):
        return torch.nn.functional.layer_norm(tables(data), (64,), *norm, eps=1e-5)

    published = golden["y.caption.input_sequence"]
    assert published.shape == (3, 22, 64)
    for row, ids in enumerate(golden["x.caption_ids"]):
        real = ~golden["x.caption_invalid"][row].bool()
        text = embed({"ids": ids, "position": torch.arange(6).repeat(2)})
        torch.testing.assert_close(text[real], published[row, 10:][real], rtol=1e-5, atol=1e-5)
        summary = embed(Summary(as_text=599).span().data)
        torch.testing.assert_close(summary[0], published[row, 0], rtol=1e-5, atol=1e-5)


# summary


def test_the_summary_is_one_token_asked_at_itself():
    summary = Summary()
    question = summary.question(torch.tensor([3]))
    assert (question.modality, question.length) == ("summary", 1)
    assert question.asked.tolist() == [0] and question.labels.tolist() == [3]
    assert summary.question().labels is None
    packed = pack([[summary.span(None), clip().span("left")], [question]])
    tokens = summary.build(5)(packed.data["summary"])
    assert tokens.shape == (2, 5) and torch.equal(tokens[0], tokens[1])
    assert [tuple(p.shape) for p in summary.build(5).parameters()] == [(1, 5)]


def test_a_summary_tied_to_the_text_table_is_a_text_token_without_place_and_has_no_weights():
    summary = Summary.from_settings(Summary(as_text=49410).settings())
    span = summary.span()
    assert (span.modality, span.length) == ("text", 1)
    assert span.data["ids"].tolist() == [49410] and span.data["position"].tolist() == [-1]
    assert list(summary.build(5).parameters()) == []
    packed = pack([[summary.question(), clip().span("left")]])
    assert packed.data["text"]["ids"].tolist() == [49410, 1823, 49407] and packed.asked_modality == "text"


def test_training_hides_whole_words_of_an_input_and_nothing_else():
    text = Text(tokenizer=small_json(), max_length=40, positions=50, drop=0.5)
    line = LINES[3]
    plain, hidden = text.span(line).data["ids"], set()
    words = list(text._encode(line).word_ids)
    for seed in range(12):
        ids = text.span(line, torch.Generator().manual_seed(seed)).data["ids"]
        assert len(ids) == len(plain) and ids[-1] == text.eot
        changed = ids != plain
        assert (ids[changed] == text.spe).all()
        gone = {w for w, c in zip(words, changed[:-1].tolist(), strict=True) if c}
        assert all(c == (w in gone) for w, c in zip(words, changed[:-1].tolist(), strict=True))
        hidden |= {tuple(sorted(gone))}
    assert len(hidden) > 1
    with pytest.raises(UserError, match="drop=1"):
        Text(drop=1)


def test_no_special_token_is_dropped_and_a_text_of_them_alone_stays():
    text = Text(tokenizer=small_json(), max_length=40, positions=50, drop=0.9)
    line = f"{LINES[0]}{EOT}{LINES[2]}"
    plain = text.span(line).data["ids"]
    for seed in range(5):
        ids = text.span(line, torch.Generator().manual_seed(seed)).data["ids"]
        assert torch.equal(ids == text.eot, plain == text.eot) and (ids == text.spe).any()
    assert text.span(EOT, torch.Generator().manual_seed(0)).data["ids"].tolist() == [text.eot]
