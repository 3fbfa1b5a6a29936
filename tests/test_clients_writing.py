"""Captions through transformers' own generation and pipeline: the same words as the project's own decoding."""

import clients
import pytest
import torch

from generalist.data.base.errors import UserError
from generalist.hf.predict import captions
from generalist.model.decode import decode, vocabulary_features

PICTURES = [clients.picture(12, 8), clients.picture(7, 12, 1), clients.picture(12, 12, 2)]


@pytest.fixture(scope="module")
def writer(folder):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    import generalist  # noqa: F401

    return AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def own(writer, pictures, **options):
    """What `generalist.model.decode` writes."""
    model, processor = writer
    text, summary = processor.built["text"], processor.built["summary"]
    inputs = [[summary.span(None), processor.span("image", picture)] for picture in pictures]
    members = vocabulary_features(model, text, summary)
    return decode(model, inputs, text, members, model.writing_scale, **options)


def test_generate_writes_the_words_that_the_own_decoding_writes(writer):
    model, processor = writer
    tensors = processor(image=PICTURES, return_tensors="pt")
    assert "pixel_mask" in tensors  # sizes differ
    ids = model.generate(**tensors, max_new_tokens=5)
    expected = own(writer, PICTURES, steps=5).ids[:, 0]
    assert ids[:, 1:].tolist() == expected[:, : ids.shape[1] - 1].tolist()
    assert (ids[:, 0] == processor.built["text"].eot).all()
    assert model._members is None  # and afterwards forward is the model's own again
    assert model(**tensors).pooler_output.shape == (3, 24)


def test_beam_search_finds_the_score_of_the_own_beam_search(writer):
    model, processor = writer
    tensors = processor(image=PICTURES[:1], return_tensors="pt")
    out = model.generate(
        **tensors,
        max_new_tokens=3,
        min_new_tokens=3,
        num_beams=4,
        num_return_sequences=4,
        length_penalty=0.0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    found = own(writer, PICTURES[:1], steps=3, beam=4)
    end = processor.built["text"].eot
    expected = {tuple(i.tolist()): float(s) for i, s in zip(found.ids[0], found.score[0], strict=True) if end not in i}
    got = {tuple(i[1:].tolist()): float(s) for i, s in zip(out.sequences, out.sequences_scores, strict=True)}
    shared = expected.keys() & got.keys()
    assert shared
    assert all(got[words] == pytest.approx(expected[words], abs=1e-3) for words in shared)


def test_greedy_words_and_several_beams_are_those_of_the_one_search(writer, monkeypatch):
    """And whatever that search does not offer is not passed over: a criterion of the user's own ends the writing."""
    model, processor = writer
    tensors = processor(image=PICTURES, return_tensors="pt")
    expected = own(writer, PICTURES, steps=4, beam=3).ids[:, :2].flatten(0, 1)
    with monkeypatch.context() as patch:
        patch.setattr("generalist.hf.writing.Anew", None)  # transformers' loops make one at every word
        model.generate(**tensors, max_new_tokens=4)
        ids = model.generate(**tensors, max_new_tokens=4, num_beams=3, num_return_sequences=2)
    assert ids[:, 1:].tolist() == expected[:, : ids.shape[1] - 1].tolist()
    ended = model.generate(
        **tensors, max_new_tokens=4, stopping_criteria=[lambda ids, scores, **more: torch.ones(len(ids), dtype=bool)]
    )
    assert ended.shape == (3, 2)


def test_a_given_beginning_is_gone_on_from_whatever_its_length(writer):
    model, processor = writer
    words = ["a red seven on", "a blue"]
    end, text = processor.built["text"].eot, processor.built["text"]
    together = model.generate(**processor(images=PICTURES[:2], text=words, return_tensors="pt"), max_new_tokens=4)
    given = [text.ids(w)[:-1].tolist() for w in words]
    for i in range(2):
        one = processor(images=PICTURES[i], text=words[i], return_tensors="pt")
        alone = model.generate(**one, max_new_tokens=4)[0].tolist()
        assert alone[: 1 + len(given[i])] == [end, *given[i]] and len(alone) > 1 + len(given[i])
        row = together[i].tolist()[max(map(len, given)) - len(given[i]) :]  # behind the padding
        assert row[: len(alone)] == alone and set(row[len(alone) :]) <= {end}


def test_the_pipeline_describes_a_picture_and_goes_on_from_a_prompt(folder, writer, monkeypatch):
    from PIL import Image
    from transformers import pipeline

    describe = pipeline("image-text-to-text", model=str(folder))
    picture = Image.fromarray(PICTURES[0])
    (found,) = describe(picture, text="", max_new_tokens=4)
    words = own(writer, [picture], steps=4)
    assert found["generated_text"].strip() == writer[1].built["text"].decode(words.words(0))
    (found,) = describe(picture, text="a red", max_new_tokens=4)
    assert found["generated_text"].startswith("a red")
    monkeypatch.setattr("transformers.pipelines.logger.warning_once", lambda *words: None)  # its arguments do not fit
    old = pipeline("image-to-text", model=str(folder))
    assert old.task == "image-text-to-text"


def test_what_cannot_be_described_is_refused_in_one_line(writer):
    model, processor = writer
    with pytest.raises(UserError, match="what is to be described"):
        model.generate(max_new_tokens=2)
    with pytest.raises(UserError, match="pixel_valuez"):
        model.generate(pixel_valuez=torch.zeros(1, 3, 12, 12), max_new_tokens=2)
    with pytest.raises(UserError, match="empty"):
        processor(text="", return_tensors="pt")
    with pytest.raises(UserError, match="logit scale"):
        model.generate(**processor(image=PICTURES[0], return_tensors="pt"), max_new_tokens=2, scale="defaul")


def test_a_model_without_a_task_that_writes_says_what_to_train(folder):
    with pytest.raises(UserError, match="no task of this model writes captions; train one"):
        captions(folder, {"image": "a.png"})


@pytest.mark.parametrize("penalty", [0.0, 2.0])
def test_beams_that_end_early_are_those_of_the_own_search(writer, penalty):
    """A finished beam stays among the beams; every fourth word ends here, so that most beams finish at once."""
    model, processor = writer
    tensors = processor(image=PICTURES, return_tensors="pt")
    first = own(writer, PICTURES, steps=1, beam=4).ids
    for end in first[0, :, 0].tolist():  # likely words
        options = {"num_beams": 3, "max_new_tokens": 6, "length_penalty": penalty, "eos_token_id": end}
        ids = model.generate(**tensors, **options)
        expected = own(writer, PICTURES, steps=6, beam=3, length_penalty=penalty, end=end).ids[:, 0]
        assert ids[:, 1:].tolist() == expected[:, : ids.shape[1] - 1].tolist()
        assert set(expected[:, ids.shape[1] - 1 :].flatten().tolist()) <= {end}


def test_a_converted_model_writes_what_the_official_code_writes(shared, tmp_path):
    """Its scales are set, so that `generate` and the pipelines' forward need no word about them."""
    from safetensors.torch import load_file

    from generalist.convert.uni_perceiver.checkpoint import build
    from generalist.hf.writing import GeneralistForImageTextToText
    from generalist.tasks.candidates.likelihood import scale_of

    file = load_file(shared / "reference" / "uni_perceiver" / "v1_tiny_dense.safetensors")
    model, _, _, _ = build({k[2:]: v for k, v in file.items() if k.startswith("w.")}, heads=4)
    model.save_pretrained(tmp_path)
    model = GeneralistForImageTextToText.from_pretrained(tmp_path).eval()
    images = {"pixel_values": file["x.image"]}
    given = {"num_beams": 2, "max_new_tokens": 6}
    ending = {**given, "eos_token_id": int(file["y.caption.beam2_eos.eos_id"])}
    for case, options in (("", given), ("_eos", ending), ("_eos_lenpen2", {**ending, "length_penalty": 2.0})):
        ids = model.generate(**images, **options)[:, 1:]
        expected = file[f"y.caption.beam2{case}.ids"]
        assert ids.tolist() == expected[:, : ids.shape[1]].tolist(), case
        assert set(expected[:, ids.shape[1] :].flatten().tolist()) <= {options.get("eos_token_id")}
    names = {"input_ids": file["x.names_ids"], "attention_mask": 1 - file["x.names_invalid"].long()}
    with torch.no_grad():
        logits = model(**images, **names).logits
    torch.testing.assert_close(logits, file["y.img_cls.logits"], rtol=0, atol=1e-5 * float(logits.abs().max()))
    assert not torch.allclose(scale_of(model.log_scale("default")), scale_of(model.log_scale("img_cls")), rtol=0.01)


def test_a_text_ends_at_the_length_that_the_model_knows(folder, writer):
    """Also where a pipeline asks for hundreds of words by default; beams and sampling too."""
    from PIL import Image
    from transformers import pipeline

    model, processor = writer
    most = processor.built["text"].max_length
    tensors = processor(image=PICTURES[:1], text="a red", return_tensors="pt")
    for options in ({}, {"num_beams": 2}, {"do_sample": True}):
        with pytest.warns(UserWarning, match=f"ends after {most} tokens"):
            ids = model.generate(**tensors, max_new_tokens=200, min_new_tokens=200, **options)
        assert ids.shape[1] == most + 1  # the start stands in front
    with pytest.warns(UserWarning, match="ends after"):
        assert (
            model.generate(**processor(image=PICTURES[:1], return_tensors="pt"), num_beams=2, max_new_tokens=99)
            is not None
        )
    describe = pipeline("image-text-to-text", model=str(folder))
    assert describe(Image.fromarray(PICTURES[0]), text="a red")[0]["generated_text"].startswith("a red")
    long = torch.full((1, most + 1), 5)
    with pytest.raises(UserError, match=f"of the {most} tokens"):
        model.generate(pixel_values=tensors["pixel_values"], input_ids=long)
