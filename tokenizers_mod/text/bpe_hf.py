"""The byte-pair encodings as Hugging Face tokenizers. Apart from `bpe`: importing transformers is slow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import BatchEncoding

from generalist.tokenizers_mod.text.bpe import EOT, SPE
from generalist.tokenizers_mod.text.cleaning import CLEANERS


class BpeTokenizer(PreTrainedTokenizerFast):
    """A `bpe` tokenizer with the Hugging Face interface: texts are cleaned first, then go to the backend.

    clean: how, by a name of `generalist.tokenizers_mod.text.cleaning`, "lower" where nothing is said.

    `tokenizer(text).input_ids` ends in <|endoftext|>; `add_special_tokens=False` leaves it out. Save and load with
    `save_pretrained` / `from_pretrained`, or with `AutoTokenizer` after `register(config_class)`.

    A plain `AutoTokenizer` that has not been told of this class loads the same folder as its generic tokenizer:
    the ids are the same wherever ftfy and HTML clean-up change nothing (white space and lower case are part of
    the saved tokenizer.json), and differ for mojibake, curly quotes, ligatures and entities such as "&amp;".
    """

    model_input_names: ClassVar[list[str]] = ["input_ids", "attention_mask"]

    @classmethod
    def wrap(cls, backend: Tokenizer, max_length: int = 512) -> BpeTokenizer:
        """A Hugging Face tokenizer around a backend from `clip_bpe`, `train_bpe` or `load_bpe`.

        Padding uses <|endoftext|>; the attention mask, not the id, says what is real.
        """
        return cls(
            tokenizer_object=backend,
            eos_token=EOT,
            pad_token=EOT,
            mask_token=SPE,
            model_max_length=max_length,
            clean_up_tokenization_spaces=False,
        )

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """A saved tokenizer; <|spe|> hides a word in every folder, also of a version that did not say so."""
        found = super().from_pretrained(*args, **kwargs)
        if found.mask_token is None and SPE in found.get_vocab():
            found.mask_token = SPE
        return found

    # No __init__ on purpose: without one, transformers loads tokenizer.json as it is instead of rebuilding it.

    def _encode_plus(self, text: Any, text_pair: Any = None, **kwargs: Any) -> BatchEncoding:
        clean = CLEANERS[self.init_kwargs.get("clean", "lower")]
        try:
            return super()._encode_plus(_cleaned(text, clean), text_pair=_cleaned(text_pair, clean), **kwargs)
        finally:  # a call leaves no trace, so that `datasets` finds what it made with the same tokenizer before
            self.backend_tokenizer.no_truncation()
            self.backend_tokenizer.no_padding()


def register(config_class: type[PreTrainedConfig]) -> None:
    """Let `AutoTokenizer.from_pretrained` find `BpeTokenizer` (by its name or by this model configuration)."""
    AutoTokenizer.register(config_class, tokenizer_class=BpeTokenizer, exist_ok=True)


def _cleaned(text: Any, clean: Callable[[str], str]) -> Any:
    if isinstance(text, (list, tuple)):
        return type(text)(_cleaned(t, clean) for t in text)
    return clean(text) if isinstance(text, str) else text
