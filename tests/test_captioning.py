"""BLEU-4 and CIDEr of written captions against values worked out by hand, and the words they are counted in."""

import builtins
import math

import pytest

from generalist.data.base.errors import UserError
from generalist.tasks.kinds.describe import Describe
from generalist.tasks.measures.captioning import caption_metrics, words
from tests.small import Listed

DOG, CAT = "A dog runs on the grass.", "Two cats sleep in a bed"


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A man, a plan -- a canal!", "a man a plan a canal"),
        ("It isn't the dog's ball", "it is n't the dog 's ball"),
        ('It isn’t mine; they\'re "his"', "it is n't mine they 're his"),
        ("a black-and-white cat at 10:30", "a black-and-white cat at 10:30"),
        ("3.5 pizzas & one you cannot eat...", "3.5 pizzas & one you can not eat"),
    ],
)
def test_captions_are_cut_into_words_as_the_reference_tokenizer_cuts_them(caption, expected):
    assert words(caption) == expected


def test_captions_that_repeat_a_reference_word_for_word_score_one_and_ten():
    pytest.importorskip("pycocoevalcap")
    found = caption_metrics([DOG.lower(), CAT + "."], [[DOG], [CAT]])
    assert found["BLEU-4"] == pytest.approx(1, abs=1e-6)
    assert found["CIDEr"] == pytest.approx(10, abs=1e-6)


def test_bleu_is_the_geometric_mean_of_four_precisions_with_a_penalty_for_short_captions():
    pytest.importorskip("pycocoevalcap")
    # 5 of the reference's 6 words, in order: 5/5, 4/4, 3/3, 2/2; too short by one: exp(1 - 6/5)
    found = caption_metrics(["a dog runs on the"], [[DOG]])
    assert found["BLEU-4"] == pytest.approx(math.exp(1 - 6 / 5), abs=1e-6)
    # one wrong word of six in the fifth place: 5/6, 3/5, 2/4, 1/3
    found = caption_metrics(["a dog runs on a grass", "two cats sleep in a bed"], [[DOG], [CAT]])
    precisions = [(5 + 6) / 12, (3 + 5) / 10, (2 + 4) / 8, (1 + 3) / 6]
    assert found["BLEU-4"] == pytest.approx(math.prod(precisions) ** 0.25, abs=1e-6)


def test_bleu_counts_a_word_no_more_often_than_one_reference_has_it():
    pytest.importorskip("pycocoevalcap")
    # "the" twice at most in either reference: 2/7 unigrams and no 2-gram of "the the"
    found = caption_metrics(["the the the the the the the"], [["the cat is on the mat", "there is a cat on the mat"]])
    assert found["BLEU-4"] < 1e-3


def test_cider_is_ten_times_the_mean_cosine_of_weighted_n_grams():
    pytest.importorskip("pycocoevalcap")
    # two pictures: an n-gram of one picture weighs log 2, one of both ("a") weighs 0.
    # "a red dog" against "a red cat": unigrams red, dog | red, cat: cosine 1/2; bigrams "a red", "red dog" | "a red",
    # "red cat": 1/2; trigrams 0; no 4-grams: 0. The other picture: 1 of 4 words right, so nothing but "a" in common.
    found = caption_metrics(["a red dog", "a horse"], [["a red cat"], ["a tree"]])
    assert found["CIDEr"] == pytest.approx(10 * (0.5 + 0.5) / 4 / 2, abs=1e-6)
    # a second reference without anything in common halves the first picture's part
    found = caption_metrics(["a red dog", "a horse"], [["a red cat", "one blue bird"], ["a tree"]])
    assert found["CIDEr"] == pytest.approx(10 * (0.5 + 0.5) / 4 / 2 / 2, abs=1e-6)
    # a caption longer by two words: the penalty exp(-2^2 / 2 / 6^2), and the cosines of five against three words
    found = caption_metrics(["a red dog or so", "a horse"], [["a red cat"], ["a tree"]])
    cosines = 1 / (math.sqrt(4) * math.sqrt(2)) + 1 / (math.sqrt(4) * math.sqrt(2))
    assert found["CIDEr"] == pytest.approx(10 * cosines / 4 / 2 * math.exp(-(2**2) / 72), abs=1e-6)


def test_pictures_without_a_reference_or_caption_are_refused_in_one_line():
    pytest.importorskip("pycocoevalcap")
    with pytest.raises(UserError, match="picture 1 has no reference caption"):
        caption_metrics([DOG, CAT], [[DOG], []])
    with pytest.raises(UserError, match="1 written captions for 2 pictures"):
        caption_metrics([DOG], [[DOG], [CAT]])


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    ordinary = builtins.__import__

    def refuse(name, *rest):
        if name.startswith("pycocoevalcap"):
            raise ImportError(name)
        return ordinary(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UserError, match=r"pip install 'generalist-encoder\[captions\]'"):
        caption_metrics([DOG], [[DOG]])


def test_the_captioning_task_compares_what_was_written_with_all_captions_of_a_record():
    pytest.importorskip("pycocoevalcap")
    rows = [{"id": "0", "captions": ["One dog", DOG]}, {"id": "1", "captions": [CAT]}]
    task = Describe(name="describe", source=Listed({"train": rows}))
    found = task.compare([DOG, CAT], task.source.open("test"))
    assert found == caption_metrics([DOG, CAT], [["One dog", DOG], [CAT]])
    assert found["BLEU-4"] == pytest.approx(1, abs=1e-6)
