"""Loads this model with trust_remote_code=True: the code itself is the installed package, nothing is copied here."""

try:
    import generalist
    from generalist.hf.auto import register
    from generalist.hf.detection import DetectionPipeline
    from generalist.hf.heads.classification import (
        GeneralistForAudioClassification,
        GeneralistForImageClassification,
        GeneralistForSequenceClassification,
    )
    from generalist.hf.heads.masked import GeneralistForMaskedLM
    from generalist.hf.model import (
        GeneralistForZeroShotAudioClassification,
        GeneralistForZeroShotImageClassification,
        GeneralistModel,
    )
    from generalist.hf.pretrained.config import GeneralistConfig
    from generalist.hf.processor import GeneralistProcessor
    from generalist.hf.processors import GeneralistFeatureExtractor, GeneralistImageProcessor
    from generalist.hf.writing import GeneralistForImageTextToText
    from generalist.tokenizers_mod.text.bpe_hf import BpeTokenizer
except ModuleNotFoundError as error:
    if error.name != "generalist":
        raise
    raise ImportError("this model needs the package generalist: pip install generalist-encoder") from error


register()

__all__ = [
    "BpeTokenizer",
    "DetectionPipeline",
    "GeneralistConfig",
    "GeneralistFeatureExtractor",
    "GeneralistForAudioClassification",
    "GeneralistForImageClassification",
    "GeneralistForImageTextToText",
    "GeneralistForMaskedLM",
    "GeneralistForSequenceClassification",
    "GeneralistForZeroShotAudioClassification",
    "GeneralistForZeroShotImageClassification",
    "GeneralistImageProcessor",
    "GeneralistModel",
    "GeneralistProcessor",
    "generalist",
]
