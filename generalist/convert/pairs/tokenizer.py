"""A tokenizer's folder -> the settings by which a text tower makes the same rows of ids."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generalist.data.base.errors import UserError, one_line

FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")


@dataclass
class Rules:
    """How a library makes rows. length: most tokens; clean: of texts; fixed: always of that length; masked: the network
    is given the mask; clips: open_clip's "clips" mode (a class token behind the padding); strip: separators become 0.
    """

    length: int
    clean: str = "none"
    fixed: bool = True
    masked: bool = False
    clips: bool = False
    strip: bool = False


def load_tokenizer(folder: Path) -> Any:
    """A fast tokenizer of transformers. UserError: there is none."""
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in FILES):  # the library would make an empty one
        raise UserError(f"no tokenizer in {folder} (none of {', '.join(FILES[:3])} ...); put tokenizer.json in")
    try:
        found = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # json, tokenizers and transformers each fail in their own way
        line = one_line(error)[:120]
        raise UserError(
            f"no tokenizer in {folder} ({line}); put tokenizer.json and tokenizer_config.json in"
        ) from error
    if getattr(found, "backend_tokenizer", None) is None:
        raise UserError(
            f"the tokenizer in {folder} has no tokenizer.json, which is what is read; save it as a fast one"
        )
    return found


def text_settings(tokenizer: Any, rules: Rules, name: str) -> dict[str, Any]:
    """Settings of a `TextTower`. UserError where something has no form here."""
    if tokenizer.pad_token_id is None:
        raise UserError(f"the tokenizer of {name} has no padding token; set pad_token in its tokenizer_config.json")
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend["truncation"] = backend["padding"] = None
    found = {
        "length": rules.length,
        "clean": rules.clean,
        "padding": tokenizer.pad_token_id,
        "left": tokenizer.padding_side == "left",
        "fixed": rules.fixed,
        "masked": rules.masked,
    }
    if rules.strip and tokenizer.sep_token_id is not None:
        found["replaced"] = [tokenizer.sep_token_id, 0]
    if rules.clips:
        found["tail"] = tokenizer.cls_token_id
        backend["post_processor"] = _between(tokenizer.bos_token, tokenizer.eos_token, tokenizer)
    return found | {"tokenizer": json.dumps(backend, ensure_ascii=False)}


def _between(start: str, end: str, tokenizer: Any) -> dict[str, Any]:
    """A post-processor that puts a text between two tokens."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in (start, end)}
    one = {"Sequence": {"id": "A", "type_id": 0}}
    marks = [{"SpecialToken": {"id": token, "type_id": 0}} for token in (start, end)]
    return {
        "type": "TemplateProcessing",
        "single": [marks[0], one, marks[1]],
        "pair": [marks[0], one, marks[1]],
        "special_tokens": {token: {"id": token, "ids": [i], "tokens": [token]} for token, i in ids.items()},
    }
