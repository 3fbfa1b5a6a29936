"""Sentence-transformers folders keep their pooling: the features are the library's own, whatever modules they have."""

import json

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Normalize, Pooling, Transformer
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers import models as tokenizer_models
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from generalist.convert import hf
from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.hf.model import GeneralistModel

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "cat", "sits", "on", "the", "red", "mat", "two"]
TEXTS = ["a dog", "the red cat sits on the mat", "two", "a cat sits on a red dog on the mat on the mat"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A tiny random BERT folder with a tokenizer of words."""
    folder = tmp_path_factory.mktemp("sentence") / "bert"
    words = Tokenizer(tokenizer_models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    words.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {f"{n}_token": f"[{n.upper()}]" for n in ("unk", "pad", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(tokenizer_object=words, **names).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
    model = BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=20, **sizes))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.2)
    model.save_pretrained(folder)
    return folder


def saved(bert, folder, *behind):
    """The library's own model of these modules, saved."""
    made = SentenceTransformer(modules=[Transformer(str(bert), max_seq_length=10), *behind], device="cpu")
    made.save(str(folder))
    return made


@torch.no_grad()
def features(folder, texts):
    model = GeneralistModel.from_pretrained(folder).eval()
    summary, text = model.modalities["summary"], model.modalities["text"]
    return model.features(pack([[summary.span(None).ask([0]), text.span(text.read(t))] for t in texts]))


def same(ours, theirs):
    """Cosine 1, text by text, and the texts apart."""
    assert float(torch.nn.functional.cosine_similarity(ours, theirs).min()) > 1 - 1e-5
    assert float(torch.nn.functional.cosine_similarity(ours[0], ours[1], dim=0)) < 0.9999


@pytest.mark.parametrize("mode", ["cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"])
def test_every_pooling_gives_the_librarys_features(bert, tmp_path, mode):
    made = saved(bert, tmp_path / "in", Pooling(16, pooling_mode=mode), Normalize())
    report = hf.convert(tmp_path / "in", tmp_path / "out")
    assert report.missing == [] and any("pooling" in note for note in report.notes)
    same(features(tmp_path / "out", TEXTS), made.encode(TEXTS, convert_to_tensor=True))


@pytest.mark.parametrize("bias, act", [(True, torch.nn.Tanh()), (False, torch.nn.Identity()), (True, torch.nn.GELU())])
def test_a_dense_layer_behind_the_pooling_is_the_output_head(bert, tmp_path, bias, act):
    dense = Dense(16, 7, bias=bias, activation_function=act)
    made = saved(bert, tmp_path / "in", Pooling(16, pooling_mode="mean"), dense, Normalize())
    hf.convert(tmp_path / "in", tmp_path / "out")
    ours = features(tmp_path / "out", TEXTS)
    assert ours.shape == (4, 7)
    same(ours, made.encode(TEXTS, convert_to_tensor=True))


def test_older_folders_that_flag_their_pooling_are_read_too(bert, tmp_path):
    made = saved(bert, tmp_path / "in", Pooling(16, pooling_mode="mean"))
    old = {"word_embedding_dimension": 16, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (tmp_path / "in/1_Pooling/config.json").write_text(json.dumps(old))
    modules = json.loads((tmp_path / "in/modules.json").read_text())
    for module in modules:
        module["type"] = "sentence_transformers.models." + module["type"].rpartition(".")[2]
    (tmp_path / "in/modules.json").write_text(json.dumps(modules))
    hf.convert(tmp_path / "in", tmp_path / "out")
    same(features(tmp_path / "out", TEXTS), made.encode(TEXTS, convert_to_tensor=True))


def test_modules_that_have_no_form_here_end_in_one_line(bert, tmp_path):
    saved(bert, tmp_path / "in", Pooling(16, pooling_mode="mean"))
    modules = json.loads((tmp_path / "in/modules.json").read_text())
    for changed, said in (
        ([*modules, {"type": "x.LSTM", "path": "1_Pooling"}], "module LSTM"),
        ([{**modules[0], "type": "x.BoW"}], "begins with BoW"),
        ([*modules, {"type": "x.Dense", "path": "../../else"}], "outside"),
        ({"a": 1}, "no list"),
    ):
        (tmp_path / "in/modules.json").write_text(json.dumps(changed))
        with pytest.raises(UserError, match=said) as error:
            hf.convert(tmp_path / "in", tmp_path / "out")
        assert "\n" not in str(error.value)
    (tmp_path / "in/modules.json").write_text(json.dumps(modules))
    (tmp_path / "in/1_Pooling/config.json").write_text('{"pooling_mode": ["cls", "mean"]}')
    with pytest.raises(UserError, match="pools by cls and mean"):
        hf.convert(tmp_path / "in", tmp_path / "out")
