"""Sounds, films and series through transformers' encoders: the library's own numbers, every kind, kept and saved."""

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoModel, Wav2Vec2Config, Wav2Vec2FeatureExtractor

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.tokenizers_mod.pretrained.sequences import PretrainedAudio, PretrainedSeries, PretrainedVideo

TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
CONVOLVED = TINY | {"conv_dim": [8] * 7, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
WHISPER = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "decoder_layers": 1}
WHISPER |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
CLAP = {"patch_embeds_hidden_size": 16, "hidden_size": 64, "depths": [1, 1, 1], "num_attention_heads": [1, 2, 2]}
SOUNDS = {
    "audio-spectrogram-transformer": (TINY | {"num_mel_bins": 32, "max_length": 64}, 2 + 2 * 5),
    "wav2vec2": (CONVOLVED, 24),
    "hubert": (CONVOLVED, 24),
    "wavlm": (CONVOLVED, 24),
    "whisper": (WHISPER, 1500),
    "clap": ({"audio_config": CLAP | {"num_hidden_layers": 3}}, None),
}
PATCHTST = {"model_type": "patchtst", "num_input_channels": 2, "context_length": 16, "patch_length": 8}
PATCHTST |= {"patch_stride": 8, "d_model": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 16}
TIMESFM = {"model_type": "timesfm", "patch_length": 8, "context_length": 32, "head_dim": 16} | TINY


def sound(seconds: float) -> dict:
    t = np.arange(int(16000 * seconds)) / 16000
    return {"array": np.sin(2 * np.pi * 440 * t).astype(np.float32), "sampling_rate": 16000}


@pytest.mark.parametrize("kind", SOUNDS)
def test_every_encoder_of_sounds_gives_its_hidden_states_and_one_vector(kind):
    settings, tokens = SOUNDS[kind]
    modality = PretrainedAudio(backbone={"model_type": kind, **settings})
    span = modality.span(modality.read(sound(0.5)))
    assert tokens is None or span.length == tokens
    out = modality.build(16).eval()(span.data)
    assert out.shape == (span.length, 16) and bool(out.isfinite().all())
    one = PretrainedAudio(backbone={"model_type": kind, **settings}, maps="embedding")
    assert one.build(16)(one.span(one.read(sound(0.5))).data).shape == (1, 16)


def test_a_folders_encoder_and_extractor_are_the_librarys_own(tmp_path):
    torch.manual_seed(0)
    AutoModel.from_config(Wav2Vec2Config(**CONVOLVED)).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path)
    modality = PretrainedAudio.from_settings(PretrainedAudio(backbone=str(tmp_path), frozen=True).settings())
    encoder = modality.build(16).eval().encoder
    spans = [modality.span(modality.read(sound(s))) for s in (0.3, 0.5)]
    net, extractor = AutoModel.from_pretrained(tmp_path).eval(), AutoFeatureExtractor.from_pretrained(tmp_path)
    for span, seconds in zip(spans, (0.3, 0.5), strict=True):
        given = extractor(sound(seconds)["array"], sampling_rate=16000, return_tensors="pt")["input_values"]
        torch.testing.assert_close(span.data["pixels"], given[0])
        with torch.no_grad():
            found, own = encoder(given)[0], net(given).last_hidden_state
        assert span.length == own.shape[1]
        torch.testing.assert_close(found[:, :, 0].transpose(1, 2), own, atol=1e-5, rtol=1e-4)
    module = modality.build(16).eval()  # of two lengths, kept on disk
    together = {k: torch.cat([s.data[k] for s in spans]) for k in spans[0].data}
    first = module(together)
    known = [modality.span(modality.read(sound(s))) for s in (0.3, 0.5)]
    assert all(bool(s.data["known"].all()) for s in known)
    assert torch.equal(module({k: torch.cat([s.data[k] for s in known]) for k in known[0].data}), first)


@pytest.mark.parametrize(("kind", "tokens"), [("videomae", 8), ("timesformer", 17), ("vivit", 9)])
def test_films_go_through_their_encoders(kind, tokens):
    more = {"tubelet_size": [2, 16, 16]} if kind == "vivit" else {}
    net = {"model_type": kind, "image_size": 32, "patch_size": 16, "num_frames": 4, **TINY, **more}
    modality = PretrainedVideo(backbone=net)
    span = modality.span(modality.read(np.random.default_rng(0).random((7, 40, 50, 3))))
    assert span.length == tokens
    assert modality.build(16)(span.data).shape == (span.length, 16)


@pytest.mark.parametrize(("maps", "tokens"), [("last", 3 * 16), ("embedding", 3)])
def test_any_picture_network_sees_a_film_frame_by_frame(maps, tokens):
    modality = PretrainedVideo(backbone="test_vit", frames=3, side=64, maps=maps)
    module = modality.build(16).eval()
    film = np.random.default_rng(0).random((5, 40, 50, 3))
    span = modality.span(modality.read(film))
    assert span.length == tokens
    rows = module(span.data)
    still = module(modality.span(modality.read(np.repeat(film[:1], 3, axis=0))).data).view(3, -1, 16)
    assert not torch.allclose(still[0], still[1])  # the same frame at another time
    moved = module(modality.span(modality.read(film[::-1].copy())).data)
    assert not torch.allclose(rows, moved)


@pytest.mark.parametrize("net", [PATCHTST, TIMESFM], ids=lambda net: net["model_type"])
def test_series_go_through_their_encoders_and_what_is_missing_is_told(net):
    modality = PretrainedSeries(backbone=net, channels=2)
    steps, channels = modality.sides[1:]
    series = np.random.default_rng(0).normal(size=(steps + 4, channels))
    module = modality.build(16).eval()
    span = modality.span(modality.read(series))
    assert span.length == channels * steps // 8 and module(span.data).shape == (span.length, 16)
    cut = modality.span(modality.read(series[-steps:]))  # only the last steps are seen
    assert torch.equal(cut.data["pixels"], span.data["pixels"])
    short = modality.prepared(modality.pixels_of(modality.read(series[-5:])))
    assert short[1].sum() == 5 * channels and short[0, : steps - 5].abs().sum() == 0
    with pytest.raises(UserError, match="3 channels given"):
        modality.read(np.zeros((20, 3)))


def test_a_model_of_them_saves_and_loads(tmp_path):
    modality = PretrainedVideo(backbone="test_vit", frames=2, side=64)
    settings = {**modality.settings(), "class": f"{PretrainedVideo.__module__}:PretrainedVideo"}
    config = GeneralistConfig(width=16, layers=1, heads=2, hidden=16, modalities={"summary": {}, "video": settings})
    model = GeneralistModel(config).eval()
    model.save_pretrained(tmp_path)
    again = GeneralistModel.from_pretrained(tmp_path).eval()
    packed = pack([[modality.span(modality.read(np.zeros((3, 40, 50, 3)))).ask([0])]])
    torch.testing.assert_close(again.features(packed), model.features(packed), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: PretrainedAudio(), "give backbone="),
        (lambda: PretrainedAudio(backbone={"model_type": "wav2vec3"}).settings(), "did you mean 'wav2vec2'"),
        (lambda: PretrainedAudio(backbone={"model_type": "wav2vec2"}, maps="all"), "maps 'all'"),
        (lambda: PretrainedSeries(backbone={"model_type": "bert"}).settings(), "no network of series"),
        (lambda: PretrainedVideo(backbone="test_vitt").settings(), "no network 'test_vitt'"),
    ],
)
def test_a_mistake_is_one_line(made, said):
    with pytest.raises(UserError) as told:
        made()
    assert said in str(told.value) and "\n" not in str(told.value)
