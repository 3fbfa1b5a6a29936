"""Folders of small contrastive models of transformers with random weights, their tokenizers and preprocessors."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = [*"abcdefghijklmnopqrstuvwxyz.,!", "this", "is", "photo", "sound", "of", "cat", "dog", "two", "##s"]
CLIP_SIDES = {
    "vision_config": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2},
    "text_config": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2},
}
PICTURES = {"image_size": 32, "patch_size": 16}


def tokenizer(folder: Path, length: int = 20, **kwargs: Any) -> int:
    """A lower-casing word-piece tokenizer with a start and an end token into a folder; its number of entries."""
    from transformers import PreTrainedTokenizerFast

    entries = ["<pad>", "<s>", "</s>", "<unk>", *WORDS, *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(entries))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    marks = [(token, vocabulary[token]) for token in ("<s>", "</s>")]
    backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=marks)
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "sep_token": "</s>"}
    made = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=length, cls_token="<s>", **named | kwargs)
    made.save_pretrained(folder)
    return len(vocabulary)


def build(kind: str, folder: Path, seed: int = 0) -> Any:
    """A model of a type with all that belongs to it, saved; the model in evaluation mode."""
    import transformers as t

    length = 64 if kind.startswith("siglip") else 20
    entries = tokenizer(folder, length)
    ids = {"vocab_size": entries, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    text = CLIP_SIDES["text_config"] | ids | {"max_position_embeddings": length}
    vision = CLIP_SIDES["vision_config"] | PICTURES
    kinds: dict[str, Any] = {
        "clip": lambda: t.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12),
        "siglip": lambda: t.SiglipConfig(text_config=text, vision_config=vision),
        "siglip2": lambda: t.Siglip2Config(text_config=text, vision_config=vision | {"num_patches": 9}),
        "xclip": lambda: t.XCLIPConfig(
            text_config=text,
            vision_config=vision | {"num_frames": 3, "mit_hidden_size": 12, "mit_intermediate_size": 24,
                                    "mit_num_hidden_layers": 1, "mit_num_attention_heads": 2},
            projection_dim=12,
        ),
        "clap": lambda: t.ClapConfig(
            text_config=text | {"max_position_embeddings": length + 2},
            audio_config={"num_mel_bins": 16, "spec_size": 64, "hidden_size": 32, "patch_size": 4,
                          "patch_stride": [4, 4], "patch_embeds_hidden_size": 16, "depths": [1, 1],
                          "num_hidden_layers": 2, "window_size": 4, "num_attention_heads": [2, 2],
                          "enable_fusion": False},
            projection_dim=12,
        ),
    }  # fmt: skip
    torch.manual_seed(seed)
    model = t.AutoModel.from_config(kinds[kind]()).eval()
    with torch.no_grad():
        for name, value in model.named_parameters(recurse=False):
            if "scale" in name:
                value.fill_(2.0 + 0.1 * len(name))
            if "bias" in name:
                value.fill_(-1.5)
    model.save_pretrained(folder)
    square = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    if kind == "clap":
        made = t.ClapFeatureExtractor(
            feature_size=16,
            sampling_rate=8000,
            max_length_s=1,
            fft_window_size=256,
            hop_length=80,
            frequency_min=50,
            frequency_max=4000,
            truncation="rand_trunc",
        )
        made.save_pretrained(folder)
    elif kind == "siglip2":
        t.Siglip2ImageProcessor(patch_size=16, max_num_patches=9).save_pretrained(folder)
    elif kind == "siglip":
        t.SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    else:
        t.CLIPImageProcessor(**square).save_pretrained(folder)
    return model
