"""Loads this model with trust_remote_code=True: the code itself is the installed package, nothing is copied here."""

try:
    import generalist
except ImportError as error:
    raise ImportError("this model needs the package generalist: pip install generalist-encoder") from error

from tokenizers_mod.bpe_hf import BpeTokenizer

from generalist.auto import register
from generalist.config import GeneralistConfig
from generalist.detection import DetectionPipeline
from generalist.hf.heads import GeneralistForZeroShotAudioClassification, GeneralistForZeroShotImageClassification
from generalist.hf.processors import GeneralistFeatureExtractor, GeneralistImageProcessor
from generalist.hf.writing import GeneralistForImageTextToText
from generalist.model import GeneralistModel
from generalist.processor import GeneralistProcessor

register()

__all__ = [
    "BpeTokenizer",
    "DetectionPipeline",
    "GeneralistConfig",
    "GeneralistFeatureExtractor",
    "GeneralistForImageTextToText",
    "GeneralistForZeroShotAudioClassification",
    "GeneralistForZeroShotImageClassification",
    "GeneralistImageProcessor",
    "GeneralistModel",
    "GeneralistProcessor",
    "generalist",
]
