"""The travelling types: spans are checked when they are made, and the one mask rule is drawn out."""

import pytest
import torch

from generalist.data.batch.pack import pack
from generalist.data.batch.types import Group, Layout, Span


def span(length: int, modality: str = "m", **kwargs) -> Span:
    return Span(modality, {"value": torch.arange(length).float().unsqueeze(1)}, length, **kwargs)


def sees(layout: Layout) -> list[str]:
    """Who sees whom in the first group, by the rule of `generalist.data.batch.types`: one string a query, 1 = sees
    the key."""
    group = layout.groups[0]
    rows = slice(group.start, group.start + group.length)
    block, hidden = layout.block[rows], layout.hidden[rows]
    seen = (block.unsqueeze(0) <= block.unsqueeze(1)) & (~hidden.unsqueeze(0) | torch.eye(group.length).bool())
    return ["".join(str(int(v)) for v in row) for row in seen]


def flags(*values: int) -> torch.Tensor:
    return torch.tensor(values).bool()


def test_without_causal_tokens_every_token_sees_every_token():
    assert sees(pack([[span(2), span(3)]]).layout) == ["11111"] * 5


def test_each_causal_token_opens_a_block_that_earlier_tokens_do_not_see():
    packed = pack([[span(2), span(3, causal=flags(1, 1, 1))]])
    assert packed.layout.block.tolist() == [0, 0, 1, 2, 3]
    assert sees(packed.layout) == [
        "11000",
        "11000",
        "11100",
        "11110",
        "11111",
    ]


def test_tokens_after_a_causal_one_share_its_block_until_the_next_opens():
    packed = pack([[span(5, causal=flags(0, 1, 0, 1, 0))]])
    assert packed.layout.block.tolist() == [0, 1, 1, 2, 2]
    assert sees(packed.layout) == ["10000", "11100", "11100", "11111", "11111"]


def test_a_hidden_token_is_seen_by_itself_only():
    packed = pack([[span(3, hidden=flags(0, 1, 0))]])
    assert sees(packed.layout) == ["101", "111", "101"]


def test_masked_tokens_are_gone_and_open_no_block():
    packed = pack([[span(5, mask=flags(1, 0, 1, 0, 1), causal=flags(0, 1, 0, 0, 1))]])
    assert packed.tokens == 3
    assert packed.row.tolist() == [0, 2, 4]
    assert packed.layout.block.tolist() == [0, 0, 1]


def test_captioning_slots_follow_the_drawing_of_the_text_span():
    # SPE w0 SPE w1 SPE EOT: a slot sees the picture, earlier words and itself, a word also itself
    picture, words = span(2), span(6, causal=flags(0, 1, 0, 1, 0, 1), hidden=flags(1, 0, 1, 0, 1, 0))
    assert sees(pack([[picture, words]]).layout) == [
        "11000000",
        "11000000",
        "11100000",
        "11010000",
        "11011000",
        "11010100",
        "11010110",
        "11010101",
    ]


def test_a_layout_followed_by_another_keeps_blocks_and_moves_groups():
    one, two = pack([[span(2)]]).layout, pack([[span(3, causal=flags(0, 1, 0))], [span(5)]]).layout
    both = one + two
    assert both.groups == [Group(0, 1, 2, True), Group(2, 1, 3, False), Group(5, 1, 5, True)]
    assert both.block.tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
    assert len(both.hidden) == 10


@pytest.mark.parametrize("name", ["mask", "causal", "hidden"])
def test_a_flag_of_the_wrong_length_is_refused(name):
    with pytest.raises(ValueError, match=rf"m span: {name} has shape \(2,\), expected \(3,\)"):
        span(3, **{name: flags(1, 0)})


def test_labels_need_one_row_for_each_asked_token():
    with pytest.raises(ValueError, match="1 labels for 2 asked tokens"):
        span(5).ask([0, 3], torch.tensor([7]))
    with pytest.raises(ValueError, match="2 labels for 0 asked tokens"):
        span(5, labels=torch.tensor([1, 2]))


@pytest.mark.parametrize("at", [-1, 5, 7])
def test_a_question_outside_the_span_is_refused(at):
    with pytest.raises(ValueError, match=f"asked at token {at} of 5"):
        span(5).ask([2, at])


def test_asking_gives_a_new_span_and_leaves_the_old_one():
    plain = span(5)
    asked = plain.ask([1, 3], torch.tensor([2, 0]))
    assert plain.asked is None
    assert asked.asked.tolist() == [1, 3]
    assert asked.labels.tolist() == [2, 0]
    assert asked.data is plain.data


def test_mapping_a_packed_batch_touches_every_tensor_and_keeps_the_rest():
    packed = pack([[span(2).ask([1], torch.tensor([4]))], [span(3)]])
    seen = []
    moved = packed.map(lambda t: seen.append(t) or t + 0)
    # source row owner first asked asked_owner block hidden, the layout's asked; data; labels
    assert len(seen) == 9 + 1 + 1
    assert moved.layout.groups == packed.layout.groups
    assert moved.asked_modality == "m"
    assert torch.equal(moved.data["m"]["value"], packed.data["m"]["value"])
