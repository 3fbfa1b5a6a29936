"""Packing lays sequences end to end without padding: every token is found again, and nonsense is refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generalist.data.batch.pack import collate, pack
from generalist.data.batch.types import Example, Span


def span(values: list[float], modality: str = "m", **kwargs) -> Span:
    return Span(modality, {"value": torch.tensor(values).unsqueeze(1)}, len(values), **kwargs)


def tokens(packed) -> list[tuple[str, float]]:
    """Modality and value of every packed token."""
    names = list(packed.data)
    return [
        (names[s], float(packed.data[names[s]]["value"][r]))
        for s, r in zip(packed.source.tolist(), packed.row.tolist(), strict=True)
    ]


def test_short_sequences_come_first_and_equal_lengths_form_one_group():
    packed = pack([[span([1, 2, 3])], [span([4, 5])], [span([6, 7, 8])], [span([9, 10])]])
    assert [(g.start, g.count, g.length, g.plain) for g in packed.layout.groups] == [(0, 2, 2, True), (4, 2, 3, True)]
    assert [v for _, v in tokens(packed)] == [4, 5, 9, 10, 1, 2, 3, 6, 7, 8]
    assert packed.first.tolist() == [4, 0, 7, 2]
    assert packed.owner.tolist() == [1, 1, 3, 3, 0, 0, 0, 2, 2, 2]


def test_a_sequence_that_needs_a_mask_is_kept_apart_from_those_of_its_length():
    causal = torch.tensor([False, True])
    packed = pack([[span([1, 2], causal=causal)], [span([3, 4])]])
    assert [(g.count, g.plain) for g in packed.layout.groups] == [(1, True), (1, False)]
    assert packed.first.tolist() == [2, 0]


def test_questions_follow_their_tokens_in_the_order_given():
    packed = pack(
        [
            [span([1, 2, 3]).ask([2, 0], torch.tensor([5, 6]))],
            [span([4, 5]).ask([1], torch.tensor([7]))],
        ]
    )
    values = [v for _, v in tokens(packed)]
    assert [values[i] for i in packed.asked.tolist()] == [3, 1, 5]
    assert packed.asked_owner.tolist() == [0, 0, 1]
    assert packed.labels.tolist() == [5, 6, 7]


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.booleans(), min_size=1, max_size=5)), max_size=3),
        min_size=1,
        max_size=7,
    )
)
@settings(max_examples=60, deadline=None)
def test_every_real_token_of_every_sequence_is_found_again_in_its_order(drawn):
    number, sequences, expected = 0, [], []
    for parts in drawn:
        sequence, kept = [span([-1.0], "first")], [("first", -1.0)]  # a sequence has at least one real token
        for modality, mask in parts:
            values = [float(number + i) for i in range(len(mask))]
            number += len(mask)
            sequence.append(span(values, modality, mask=torch.tensor(mask)))
            kept += [(modality, v) for v, real in zip(values, mask, strict=True) if real]
        sequences.append(sequence)
        expected.append(kept)
    packed = pack(sequences)
    found = tokens(packed)
    assert packed.tokens == sum(len(kept) for kept in expected)
    for b, kept in enumerate(expected):
        start = int(packed.first[b])
        assert found[start : start + len(kept)] == kept
        assert set(packed.owner[start : start + len(kept)].tolist()) == {b}
    assert sum(g.count * g.length for g in packed.layout.groups) == packed.tokens


@pytest.mark.parametrize(
    "sequences, message",
    [
        ([], "empty batch"),
        ([[span([1, 2])], [span([3], mask=torch.tensor([False]))]], "sequence 1 of the batch has no real token"),
        ([[span([1, 2], mask=torch.tensor([True, False])).ask([1])]], "asked at a masked token"),
        ([[span([1]).ask([0]), span([2], "n").ask([0])]], "asks at tokens of several modalities"),
    ],
)
def test_a_batch_that_makes_no_sense_is_refused(sequences, message):
    with pytest.raises(ValueError, match=message):
        pack(sequences)


def test_partners_are_packed_on_their_own_and_keep_their_keys():
    examples = [
        Example([span([1, 2]).ask([0])], [span([3]).ask([0])], record="one", key=7),
        Example([span([4]).ask([0])], [span([5, 6, 7]).ask([0])], record="two", key=9),
    ]
    batch = collate("pairs", examples, candidates=None)
    assert (batch.inputs.tokens, batch.partners.tokens) == (3, 4)
    assert batch.keys.tolist() == [7, 9]
    assert batch.records == ["one", "two"]
    with pytest.raises(ValueError, match="in-batch candidates need a partner in every example"):
        collate("pairs", [examples[0], Example([span([1])])], candidates=None)
    with pytest.raises(ValueError, match="needs at least one example"):
        collate("pairs", [], candidates=None)
