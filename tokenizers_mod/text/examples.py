"""Examples of texts and of the summary token (`generalist.tokenizers_mod.base.examples`)."""

from __future__ import annotations

from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.text.bpe import train_bpe


def text() -> Examples:
    words = train_bpe(["a cat", "two dogs on a mat", "no", "yes", "a text"], 290).to_str()
    clip = {"tokenizer": "clip", "positions": 9}
    return Examples(
        {"max_length": 12, "positions": 12, "tokenizer": words},
        ["a cat", "two dogs on a mat", "x"],
        [("", r"empty"), (" \n\t ", r"empty"), (5, r"expected a str")],
        [("no", 2)],
        [({**clip, "max_length": n}, "a photo of two dogs", {"pieces": 5}) for n in (9, 4)],
    )


def summary() -> Examples:
    return Examples(good=[None, None], counted=[({}, None, {})])
