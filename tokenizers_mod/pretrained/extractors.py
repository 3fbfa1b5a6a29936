"""transformers' feature extractors of sounds: which one a network hears through, and its settings."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.base.named import in_library
from generalist.tokenizers_mod.libraries.voices.sound import EXTRACTOR, VoiceExtractor

# model types -> transformers' feature extractor of sounds, where there is no folder that names one
EXTRACTORS = {
    "audio-spectrogram-transformer": "ASTFeatureExtractor",
    "whisper": "WhisperFeatureExtractor",
    "clap_audio_model": "ClapFeatureExtractor",
}
WAVES = "Wav2Vec2FeatureExtractor"


def asked_of(network: dict[str, Any]) -> dict[str, Any]:
    """What a configuration says of the extractor's sizes."""
    names = {"num_mel_bins": "num_mel_bins", "max_length": "max_length"}
    if network["name"] == "whisper":
        names = {"num_mel_bins": "feature_size"}
    if network["name"] == "clap_audio_model" and not network["settings"].get("enable_fusion"):
        return {"truncation": "rand_trunc"}
    return {there: network["settings"][key] for key, there in names.items() if key in network["settings"]}


def extractor_of(name: str, settings: dict[str, Any]) -> Any:
    if name == EXTRACTOR:
        return VoiceExtractor()
    kind = in_library("transformers", name)
    if kind is None:
        raise UserError(f"audio: this version of transformers has no {name}; update transformers")
    return kind(**settings)


def extracted_of(extractor: Any, wave: Tensor) -> Tensor:
    """A wave Float[t] at the extractor's rate -> the network's input, without the batch's axis."""
    most = getattr(extractor, "nb_max_samples", 0)
    if most and len(wave) > most:  # the extractor would draw which part it takes
        first = (len(wave) - most) // 2
        wave = wave[first : first + most]
    found = extractor(wave.numpy(), sampling_rate=extractor.sampling_rate, return_tensors="pt")
    return found[extractor.model_input_names[0]][0]
