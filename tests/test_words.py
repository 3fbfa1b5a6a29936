"""sampling_rate, padding, truncation, max_length and a text without a name: what clients say is honoured or refused."""

import clients
import numpy as np
import pytest
import torch

from generalist.data.base.errors import UserError


@pytest.fixture(scope="module")
def processor():
    return clients.model_and_processor()[1]


def test_a_waveform_is_heard_at_the_rate_that_it_is_told(processor):
    wave = clients.sound(4000)
    rate = processor.built["audio"].rate
    own = processor(audio=[(wave, rate)], return_tensors="pt")
    told = processor(audio={"array": wave, "sampling_rate": 2 * rate}, return_tensors="pt")
    other = processor(audio=wave, sampling_rate=2 * rate, return_tensors="pt")
    key = next(iter(own))
    torch.testing.assert_close(other[key], told[key])
    assert other[key].shape != own[key].shape  # half as long
    many = processor(audio=[wave, wave.tolist()], sampling_rate=2 * rate, return_tensors="pt")
    torch.testing.assert_close(many[key][0], many[key][1])
    packed, apart = processor(audio=wave, sampling_rate=2 * rate)[0], processor(audio=[(wave, 2 * rate)])[0]
    assert packed[1].length == apart[1].length
    with pytest.raises(UserError, match="none is given"):
        processor(text="a", sampling_rate=rate)


def test_texts_are_cut_and_filled_as_asked(processor):
    texts = ["a red seven", "a red seven and a blue nine and a green one"]
    free = processor(text=texts, return_tensors="pt")
    lengths = free["attention_mask"].sum(1).tolist()
    assert lengths[0] < lengths[1]
    cut = processor(text=texts, return_tensors="pt", truncation=True, max_length=lengths[0])
    assert cut["input_ids"].shape == (2, lengths[0]) and cut["attention_mask"].all()
    eot = processor.built["text"].eot
    assert cut["input_ids"][:, -1].tolist() == [eot, eot]
    torch.testing.assert_close(cut["input_ids"][1, :-1], free["input_ids"][1, : lengths[0] - 1])
    room = lengths[1] + 2
    full = processor(text=texts, return_tensors="pt", padding="max_length", truncation=True, max_length=room)
    assert full["input_ids"].shape == (2, room) and full["attention_mask"].sum(1).tolist() == lengths
    by_kwargs = processor(text=texts, text_kwargs={"padding": "max_length", "truncation": True, "max_length": room})
    np.testing.assert_array_equal(by_kwargs["input_ids"], full["input_ids"].numpy())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"max_length": 3}, "give truncation=True"),
        ({"max_length": 10_000, "truncation": True}, "2 to"),
        ({"padding": False}, "needs padding=True"),
        ({"truncation": False, "max_length": 4}, "longer than 4"),
    ],
)
def test_what_cannot_be_is_refused(processor, words, told):
    with pytest.raises(UserError, match=told):
        processor(text=["a red seven", "a red seven and a blue nine"], return_tensors="pt", **words)


def test_max_length_without_a_text_is_refused(processor):
    with pytest.raises(UserError, match="said of a text"):
        processor(image=clients.picture(12, 8), return_tensors="pt", max_length=4)


def test_what_has_no_name_is_text(processor):
    torch.testing.assert_close(
        processor(["a red seven"], return_tensors="pt")["input_ids"],
        processor(text=["a red seven"], return_tensors="pt")["input_ids"],
    )
    with pytest.raises(UserError, match="by modality"):
        processor(clients.picture(12, 8))
