"""The files that make a saved model folder usable by other tools, besides configuration, weights and tokenizer.

generalist_remote.py            what trust_remote_code=True runs: it imports the installed package
preprocessor_config.json        image processor and feature extractor
modules.json, sentence_bert_config.json, config_sentence_transformers.json      sentence-transformers
README.md                       the model card
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

REMOTE = "generalist_remote"

# What the model's config.json says of where its classes are; one entry a kind of Auto class.
AUTO_MAP = {
    "AutoConfig": f"{REMOTE}.GeneralistConfig",
    "AutoModel": f"{REMOTE}.GeneralistModel",
    "AutoModelForZeroShotImageClassification": f"{REMOTE}.GeneralistForZeroShotImageClassification",
    "AutoModelForImageTextToText": f"{REMOTE}.GeneralistForImageTextToText",
    "AutoModelForImageClassification": f"{REMOTE}.GeneralistForImageClassification",
    "AutoModelForAudioClassification": f"{REMOTE}.GeneralistForAudioClassification",
    "AutoModelForSequenceClassification": f"{REMOTE}.GeneralistForSequenceClassification",
    "AutoModelForMaskedLM": f"{REMOTE}.GeneralistForMaskedLM",
    "AutoProcessor": f"{REMOTE}.GeneralistProcessor",
    "AutoImageProcessor": f"{REMOTE}.GeneralistImageProcessor",
    "AutoFeatureExtractor": f"{REMOTE}.GeneralistFeatureExtractor",
}
PROCESSOR_MAP = {"AutoProcessor": AUTO_MAP["AutoProcessor"]}
# the pipeline of a model that proposes regions; transformers' own asks for one name at a time
DETECTION_PIPELINE = {
    "zero-shot-object-detection": {"impl": f"{REMOTE}.DetectionPipeline", "pt": ["AutoModel"], "type": "multimodal"}
}
TOKENIZER_MAP = {"AutoTokenizer": [None, f"{REMOTE}.BpeTokenizer"]}

# tensor that a processor makes -> its entry in preprocessor_config.json
FACES = {"pixel_values": "modality", "input_features": "audio"}

# modality -> its tensor, of those that sentence-transformers knows by these names
SENTENCES = {"text": "input_ids", "image": "pixel_values", "audio": "input_features"}


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def write_remote(folder: Path) -> None:
    """The file behind auto_map."""
    shutil.copyfile(Path(__file__).with_name("remote_code.py"), folder / f"{REMOTE}.py")


def write_processors(folder: Path, processor: Any) -> None:
    """preprocessor_config.json: the settings of the first modality that makes each standard tensor.

    It names no class, so that the Auto classes ask the model's configuration, which `import generalist` makes known.
    """
    config: dict[str, Any] = {"processor_class": "GeneralistProcessor"}
    for name, modality in processor.built.items():
        entry = FACES.get(modality.tensor_names[0]) if modality.tensor_names else None
        if entry is not None:
            config.setdefault(entry, {name: processor.modalities[name]})
    write_json(folder / "preprocessor_config.json", config)
    tokenizer = folder / "tokenizer_config.json"
    if tokenizer.is_file():
        write_json(tokenizer, json.loads(tokenizer.read_text(encoding="utf-8")) | {"auto_map": TOKENIZER_MAP})


def write_sentence_transformers(folder: Path, processor: Any) -> None:
    """sentence-transformers' own files: texts, pictures and sounds as their features at the summary token, unit length.

    Texts are candidates, pictures and sounds inputs, as in the pipelines.
    """
    tensors = {name: modality.tensor_names[:1] for name, modality in processor.built.items()}
    read = {
        name: {"method": f"get_{name}_features", "method_output_name": "pooler_output"}
        for name, own in SENTENCES.items()
        if tensors.get(name) == (own,) or name == "text"
    }
    write_json(
        folder / "sentence_bert_config.json",
        {
            "transformer_task": "feature-extraction",
            "modality_config": read,
            "module_output_name": "sentence_embedding",
        },
    )
    modules = (
        ("0", "", "base.modules.transformer.Transformer"),
        ("1", "1_Normalize", "sentence_transformer.modules.normalize.Normalize"),
    )
    write_json(
        folder / "modules.json",
        [
            {"idx": int(name), "name": name, "path": path, "type": f"sentence_transformers.{kind}"}
            for name, path, kind in modules
        ],
    )
    write_json(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine", "prompts": {}})
    (folder / "1_Normalize").mkdir(exist_ok=True)
    write_json(folder / "1_Normalize" / "config.json", {})
