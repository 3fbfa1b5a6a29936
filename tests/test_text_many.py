"""Many texts at once: the spans that each gives by itself, whatever it is, from one call of the tokenizer."""

from dataclasses import replace

import pytest
import torch
from test_text import clip, small
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.text.bpe import EOT, SPE
from generalist.tokenizers_mod.text.text import Text


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("given", [clip, small])
def test_many_texts_are_those_made_one_by_one_by_one_call(given, causal, monkeypatch):
    texts = ["left right", "left right <|endoftext|>", "left " * 60, "isn't  it\t12 DOGS?", "Ünïcode &amp; 日本語", "a"]
    text = replace(given(), causal=causal).called("words")
    expected = [text.span(text.read(one)) for one in texts]
    monkeypatch.setattr(Text, "_split", None)  # nothing is looked at by itself
    for own, single in zip(text.many(texts), expected, strict=True):
        assert (own.modality, own.length, own.grid) == (single.modality, single.length, single.grid)
        assert list(own.data) == list(single.data)
        for key, value in single.data.items():
            assert torch.equal(own.data[key], value) and own.data[key].dtype == value.dtype
        assert own.causal is None if single.causal is None else torch.equal(own.causal, single.causal)
    assert text.many([]) == []


@pytest.mark.parametrize("wrong", ["", " \n", 7, "\x00"])
def test_one_wrong_text_of_many_is_refused_as_it_is_alone(wrong):
    with pytest.raises(UserError) as alone:
        clip().read(wrong)
    with pytest.raises(UserError) as among:
        clip().many(["left", wrong, "right"])
    assert str(among.value) == str(alone.value)


def test_many_texts_of_a_subclass_are_read_as_it_reads():
    class Loud(Text):
        def read(self, raw):
            return super().read(raw + " left")

    assert Loud(max_length=9, positions=11).many(["right"])[0].data["ids"].tolist() == [1155, 1823, 49407]


def test_many_texts_without_a_known_symbol_are_refused():
    words = Tokenizer(WordLevel({"[UNK]": 0, EOT: 1, SPE: 2, "cat": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    text = Text(tokenizer=words.to_str(), max_length=9, positions=9)
    assert [span.data["ids"].tolist() for span in text.many(["cat dog", "dog cat"])] == [[3, 0, 1], [0, 3, 1]]
    with pytest.raises(UserError, match="knows no symbol of 'dog'"):
        text.many(["cat", "dog"])
