"""What is done to a text before it is split into sub-words, by the name that a saved tokenizer holds.

lower          ftfy, HTML unescaped, white space collapsed, lower case           CLIP's
whitespace     the same without lower case                                       open_clip's Hugging Face tokenizers
canonicalize   ftfy, HTML unescaped, _ as a space, no punctuation, lower case    open_clip's SigLIP
none           nothing
"""

from __future__ import annotations

import html
import string
from collections.abc import Callable

NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def repaired(text: str) -> str:
    """Mojibake and control characters repaired (ftfy), HTML unescaped twice."""
    # printable ASCII without an ampersand passes both unchanged, and ftfy is most of the cost
    if text.isascii() and text.isprintable() and "&" not in text:
        return text
    import ftfy  # a tenth of a second, which plain text need not wait for

    return html.unescape(html.unescape(ftfy.fix_text(text)))


def collapsed(text: str) -> str:
    """One space for every run of white space, none at the ends."""
    return " ".join(text.split())


def whitespace(text: str) -> str:
    return collapsed(repaired(text))


def lower(text: str) -> str:
    return whitespace(text).lower()


def canonicalize(text: str) -> str:
    return collapsed(repaired(text).strip().replace("_", " ").translate(NO_PUNCTUATION).lower())


def none(text: str) -> str:
    return text


CLEANERS: dict[str, Callable[[str], str]] = {
    "lower": lower,
    "whitespace": whitespace,
    "canonicalize": canonicalize,
    "none": none,
}
