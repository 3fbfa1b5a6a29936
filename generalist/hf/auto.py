"""Makes transformers' Auto classes know this model, and costs nothing until one of them is used.

``import generalist`` must be enough for ``AutoModel.from_pretrained(folder)``, whichever of the two is imported
first. Registering the real classes means importing torch and transformers, which takes seconds that
``generalist --help`` should not pay. So two stand-ins are registered instead, as soon as transformers' own auto
modules are imported (now, if they already are). The first use of a stand-in imports the real classes,
registers them in its place and hands over.
"""

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODEL_TYPE = "generalist"


def register() -> None:
    """Import the configuration, the model and the processor and register them with the Auto classes (idempotent)."""
    import transformers
    from transformers import AutoConfig, AutoFeatureExtractor, AutoImageProcessor, AutoProcessor

    from generalist.hf.heads.classification import (
        GeneralistForAudioClassification,
        GeneralistForImageClassification,
        GeneralistForSequenceClassification,
    )
    from generalist.hf.heads.masked import GeneralistForMaskedLM
    from generalist.hf.model import GeneralistForZeroShotImageClassification, GeneralistModel
    from generalist.hf.pretrained.config import GeneralistConfig
    from generalist.hf.processor import GeneralistProcessor
    from generalist.hf.processors import GeneralistFeatureExtractor, GeneralistImageProcessor
    from generalist.hf.writing import GeneralistForImageTextToText
    from generalist.tokenizers_mod.text.bpe_hf import register as register_tokenizer

    AutoConfig.register(MODEL_TYPE, GeneralistConfig, exist_ok=True)
    models = {
        transformers.AutoModel: GeneralistModel,
        transformers.AutoModelForZeroShotImageClassification: GeneralistForZeroShotImageClassification,
        transformers.AutoModelForImageTextToText: GeneralistForImageTextToText,
        transformers.AutoModelForImageClassification: GeneralistForImageClassification,
        transformers.AutoModelForAudioClassification: GeneralistForAudioClassification,
        transformers.AutoModelForSequenceClassification: GeneralistForSequenceClassification,
        transformers.AutoModelForMaskedLM: GeneralistForMaskedLM,
    }
    for auto, model in models.items():
        auto.register(GeneralistConfig, model, exist_ok=True)
    AutoProcessor.register(GeneralistConfig, GeneralistProcessor, exist_ok=True)
    faces = {"pil": GeneralistImageProcessor, "torchvision": GeneralistImageProcessor}
    AutoImageProcessor.register(GeneralistConfig, image_processor_classes=faces, exist_ok=True)
    AutoFeatureExtractor.register(GeneralistConfig, GeneralistFeatureExtractor, exist_ok=True)
    register_tokenizer(GeneralistConfig)


def register_on_use() -> None:
    """Register the stand-ins once transformers' auto modules are there; safe to call again."""
    for name, action in _ACTIONS.items():
        module = sys.modules.get(name)
        if module is not None and not getattr(module.__spec__, "_initializing", False):
            action()
    if not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport(_ACTIONS))


class _ConfigStandIn:
    """What AutoConfig finds under "generalist" before the real class is needed."""

    model_type = MODEL_TYPE

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls._real()(*args, **kwargs)

    @staticmethod
    def _real() -> Any:
        register()
        from generalist.hf.pretrained.config import GeneralistConfig

        return GeneralistConfig

    @classmethod
    def from_dict(cls, *args: Any, **kwargs: Any) -> Any:
        return cls._real().from_dict(*args, **kwargs)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        return cls._real().from_pretrained(*args, **kwargs)


class _ProcessorStandIn:
    """What AutoProcessor finds by name before the real class is needed."""

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        register()
        from generalist.hf.processor import GeneralistProcessor

        return GeneralistProcessor.from_pretrained(*args, **kwargs)


# AutoProcessor looks its classes up by name (processor_config.json holds the name), AutoConfig by model type.
_ConfigStandIn.__name__ = "GeneralistConfig"
_ProcessorStandIn.__name__ = "GeneralistProcessor"


def _config_stand_in() -> None:
    mapping = sys.modules["transformers.models.auto.configuration_auto"].CONFIG_MAPPING
    if MODEL_TYPE not in mapping:
        mapping.register(MODEL_TYPE, _ConfigStandIn)


def _processor_stand_in() -> None:
    auto = sys.modules["transformers.models.auto.processing_auto"]
    auto.AutoProcessor.register(_ConfigStandIn, _ProcessorStandIn, exist_ok=True)


_ACTIONS: dict[str, Callable[[], None]] = {
    "transformers.models.auto.configuration_auto": _config_stand_in,
    "transformers.models.auto.processing_auto": _processor_stand_in,
}


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls a function right after a named module has been executed; every other import passes it by."""

    def __init__(self, actions: dict[str, Callable[[], None]]) -> None:
        self.actions = actions
        self.looking: set[str] = set()

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec that the other finders give, its loader followed by the action; None for all other names."""
        if fullname not in self.actions or fullname in self.looking:
            return None
        self.looking.add(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self.looking.discard(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute, action = spec.loader.exec_module, self.actions[fullname]

        def exec_module(module: ModuleType) -> None:
            execute(module)
            action()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
