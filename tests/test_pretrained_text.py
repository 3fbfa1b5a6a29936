"""Text through a pretrained encoder: its ids, its features, frozen or tuned, candidates, saved models."""

import pytest
import torch

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.hf.model import GeneralistModel
from generalist.model.config import GeneralistConfig
from generalist.tasks.candidates.names import Names
from generalist.tokenizers_mod.text.pretrained_text import PretrainedText
from generalist.tokenizers_mod.text.summary import Summary
from tests.roberta import roberta

WORDS = ["a", "cat", "dog", "street", "red", "the", "sat", "on", "car", "person"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    return roberta(tmp_path_factory.mktemp("roberta"), WORDS)


def text(encoder: str, **settings) -> PretrainedText:
    return PretrainedText(encoder=encoder, max_length=16, positions=16, **settings)


def test_the_ids_are_the_encoders_own_and_end_in_its_end(encoder):
    modality = text(encoder)
    assert modality.vocabulary == 15 and modality.ids("the cat").tolist() == [10, 6, 2]
    assert modality.eot == 2 and modality.spe == 4 and modality.decode([10, 6, 2]) == "the cat"


def test_tokens_are_the_encoders_last_hidden_states(encoder):
    from transformers import RobertaModel

    modality = text(encoder)
    module = modality.build(24).eval()
    spans = [modality.span(t) for t in ("a cat sat on the street", "dog", "the red car")]
    data = {k: torch.cat([s.data[k] for s in spans]) for k in ("ids", "position")}
    out = module(data).split([s.length for s in spans])
    network = RobertaModel.from_pretrained(encoder, add_pooling_layer=False).eval()
    for span, rows in zip(spans, out, strict=True):
        ids = torch.cat([torch.tensor([0]), span.data["ids"]])[None]
        torch.testing.assert_close(rows, network(input_ids=ids).last_hidden_state[0, 1:], atol=1e-5, rtol=1e-4)


def test_words_of_a_caption_stand_for_themselves(encoder):
    """No word's row may depend on another word, or the encoder would tell the answer."""
    modality = text(encoder)
    module = modality.build(24).eval()
    one, other = (modality.caption_span(t) for t in ("the cat sat", "the dog sat"))
    a, b = module(one.data), module(other.data)
    same = (one.data["ids"] == other.data["ids"]).tolist()
    assert same.count(False) == 1
    for i, equal in enumerate(same):
        assert torch.equal(a[i], b[i]) == equal
    assert not torch.equal(a[1], a[5])  # other words at other positions


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_encoder_keeps_its_weights_and_a_tuned_one_learns(encoder, frozen):
    modality = text(encoder, frozen=frozen)
    module = modality.build(32).train()
    module(modality.span("the cat").data).sum().backward()
    weights = dict(module.encoder.named_parameters())
    assert all((p.grad is None) == frozen for n, p in weights.items() if "layer.1.attention" in n)
    assert module.projection.weight.grad is not None and module.encoder.training != frozen


def test_a_model_ranks_names_and_stands_alone_when_saved(encoder, tmp_path):
    modality = text(encoder)
    config = GeneralistConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        modalities={
            "summary": Summary().settings(),
            "text": {**modality.settings(), "class": "generalist.tokenizers_mod.text.pretrained_text:PretrainedText"},
        },
    )
    model = GeneralistModel(config).eval()
    model.config.modalities["text"]["encoder"] = "a folder that is gone"
    model.save_pretrained(tmp_path)
    again = GeneralistModel.from_pretrained(tmp_path).eval()
    modalities = {"summary": Summary(), "text": modality}
    names = Names(["cat", "red car", "person"]).sequences(modalities)
    question = [[Summary().span(None).ask([0]), modality.span("a dog on the street")]]
    p = model.rank(question, names)
    assert p.shape == (1, 3) and p.sum().item() == pytest.approx(1)
    torch.testing.assert_close(again.rank(question, names), p)
    packed = pack([*names, *question])  # lengths differ: no token may see another text
    torch.testing.assert_close(model.features(packed)[1], model.features(pack([names[1]]))[0], atol=1e-5, rtol=1e-4)


def test_what_is_missing_or_does_not_fit_is_said(encoder, tmp_path):
    with pytest.raises(UserError, match="give encoder="):
        PretrainedText()
    with pytest.raises(UserError, match="no pretrained encoder"):
        PretrainedText(encoder=str(tmp_path / "nothing")).span("a cat")
    with pytest.raises(UserError, match="max_length 33 exceeds the 31 positions"):
        PretrainedText(encoder=encoder, max_length=33).span("a cat")
    with pytest.raises(UserError, match="is empty"):
        text(encoder).span("  ")
    gone = text(encoder)
    gone.settings()  # adopted, then lost
    gone.encoder = str(tmp_path / "gone")
    with pytest.raises(UserError, match="cannot load the pretrained encoder"):
        gone.build(24)


def test_a_frozen_encoder_that_keeps_texts_says_the_same_whatever_came_before(encoder):
    modality = text(encoder, frozen=True, remember=2)
    module, plain = modality.build(24).eval(), text(encoder, frozen=True).build(24).eval()
    plain.load_state_dict(module.state_dict())
    texts = ["a cat sat on the street", "dog", "the red car", "dog", "a cat sat on the street"]
    spans = [modality.span(t) for t in texts]
    data = {k: torch.cat([s.data[k] for s in spans]) for k in ("ids", "position")}
    torch.testing.assert_close(module(data), plain(data), atol=1e-5, rtol=1e-4)
    assert len(module.kept) == 2  # the two met last
    assert torch.equal(module(data), module(data))
    weights = {k: v + 0.1 if "encoder" in k else v for k, v in module.state_dict().items()}
    module.load_state_dict(weights)
    plain.load_state_dict(weights)
    torch.testing.assert_close(module(data), plain(data), atol=1e-5, rtol=1e-4)  # nothing stale
    assert module.double()(data).dtype == torch.float64
    with pytest.raises(UserError, match="frozen"):
        text(encoder, remember=2)
