"""`zoo:resemblyzer`, voices: the numbers of the package's own code, a sound of any length, what is said without it."""

import numpy as np
import pytest
import torch

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.tokenizers_mod.libraries.voices.sound import windows
from generalist.tokenizers_mod.libraries.voices.tower import Voice
from generalist.tokenizers_mod.pretrained.backbone import Backbone
from generalist.tokenizers_mod.pretrained.sequences import PretrainedAudio, PretrainedSeries
from generalist.tokenizers_mod.text.summary import Summary

# samples -> windows, and of the voice the first four numbers, the largest and their sum, by Resemblyzer 0.1.4 with
# librosa 0.11 (`embed_utterance(normalize_volume(wave, -30, increase_only=True))`) and the weights of `by_rule`
PUBLISHED = {
    3000: (1, [0.064773, 0.0, 0.0, 0.0], 0.276244, 8.86574),
    50000: (3, [0.075073, 0.0, 0.0, 0.0], 0.255734, 9.09203),
    79999: (5, [0.077919, 0.007472, 0.001381, 0.0], 0.267169, 9.20707),
}


def by_rule():
    """Weights by a rule instead of a file: 0.2 (2 frac(43758.5453 sin(12.9898 (i + 1) + 78.233 (r + 1))) - 1)."""
    made = {}
    for rank, (name, value) in enumerate(sorted(Voice().state_dict().items())):
        i = torch.arange(1, value.numel() + 1, dtype=torch.float64)
        wave = 43758.5453 * torch.sin(12.9898 * i + 78.233 * (rank + 1))
        made[name] = (0.2 * (2 * (wave - wave.floor()) - 1)).float().view_as(value)
    return made


def sound(samples):
    t = np.arange(samples) / 16000
    wave = 0.01 * np.sin(2 * np.pi * (150 + 40 * np.sin(3 * t)) * t) * (1 + np.sin(9 * t))
    return {"array": wave.astype(np.float32), "sampling_rate": 16000}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of this name with such a file in it."""
    (tmp_path / "resemblyzer").mkdir()
    (tmp_path / "resemblyzer" / "__init__.py").write_text("raise ImportError('nothing of it is run')")
    beside = {"similarity_weight": torch.zeros(1), "similarity_bias": torch.zeros(1)}
    torch.save({"step": 1, "model_state": by_rule() | beside}, tmp_path / "resemblyzer" / "pretrained.pt")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("GENERALIST_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("samples", PUBLISHED)
def test_a_voice_is_the_packages_own(package, samples):
    one = PretrainedAudio(backbone="zoo:resemblyzer", maps="embedding", frozen=True)
    value = one.read(sound(samples))
    (count, first, largest, total) = PUBLISHED[samples]
    found = torch.from_numpy(one.vector(sound(samples)))
    assert one.span(value).length == 1 and found.shape == (256,) and float(found.norm()) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(found[:4], torch.tensor(first), atol=1e-6, rtol=1e-4)
    assert float(found.max()) == pytest.approx(largest, abs=1e-6) and float(found.sum()) == pytest.approx(total, 1e-5)
    every = PretrainedAudio(backbone="zoo:resemblyzer")
    span = every.span(every.read(sound(samples)))
    assert span.length == count == len(windows(samples)) and span.grid == (1, count)


def test_a_saved_model_names_the_package_and_hears_sounds_of_several_lengths_together(package, tmp_path):
    settings = {"class": "pretrained_audio", "backbone": "zoo:resemblyzer", "maps": "embedding", "frozen": True}
    audio = PretrainedAudio(**{k: v for k, v in settings.items() if k != "class"})
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    own = {"summary": {}, "audio": {"class": "pretrained_audio", **audio.settings()}}
    model = GeneralistModel(GeneralistConfig(**sizes, modalities=own)).eval()
    asked = Summary()
    given = [[asked.span(None).ask([0]), audio.span(audio.read(sound(n)))] for n in (3000, 50000)]
    together = model.features(pack(given))
    torch.testing.assert_close(together, torch.cat([model.features(pack([one])) for one in given]), atol=1e-5, rtol=0)
    model.save_pretrained(tmp_path / "saved")
    again = GeneralistModel.from_pretrained(tmp_path / "saved").eval()
    assert again.config.referred["audio"]["weights"] == "zoo:resemblyzer"
    assert torch.equal(again.features(pack(given)), together)


def test_silence_has_a_vector_and_a_short_sound_one_window(package):
    one = PretrainedAudio(backbone="zoo:resemblyzer", maps="embedding", frozen=True, features=0)
    assert np.isfinite(one.vector({"array": np.zeros(3000, np.float32), "sampling_rate": 16000})).all()
    assert [len(windows(n)) for n in (1, 25600, 40000, 50000, 79999)] == [1, 1, 2, 3, 5]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (PretrainedAudio, "zoo:resemblyzer needs Resemblyzer; pip install --no-deps Resemblyzer"),
        (PretrainedSeries, "no encoder of series but of audio"),
        (Backbone, "no network of pictures but of audio"),
    ],
)
def test_what_it_is_not_and_what_is_missing_is_one_line(kind, said, monkeypatch):
    monkeypatch.setattr("generalist.tokenizers_mod.libraries.zoo.find_spec", lambda name: None)
    with pytest.raises(UserError) as told:
        kind(backbone="zoo:resemblyzer").build(16)
    assert said in str(told.value) and "\n" not in str(told.value)
