"""BLEU and CIDEr of written captions, by the reference implementation of the COCO caption challenge (pycocoevalcap).

CIDEr is its CIDEr-D (1411.5726, section 6: clipped counts, a Gaussian penalty of the lengths, times 10), the number
that papers print divided by 100; BLEU is of the whole corpus (Papineni et al. 2002, the closest reference length).
The reference cuts words with Stanford's tokenizer, which needs Java; `words` does the same by rules for captions.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from generalist.data.base.errors import UserError

# what the reference's own wrapper removes behind its tokenizer
DROPPED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"]) | {'"', "“", "”", "‘", "’"}
_CLITIC = re.compile(r"(?<=\w)(n't|'(?:s|re|ve|ll|d|m))(?!\w)")
_TOKEN = re.compile(r"n't(?!\w)|'(?:s|re|ve|ll|d|m)(?!\w)|\d+(?:[.,:]\d+)+|\w+(?:-\w+)*|[^\w\s]")

TINY, SMALL = 1e-15, 1e-9  # the reference's own, so that nothing is divided by zero


def words(caption: str) -> str:
    """The caption's words with a space between: lower case, clitics apart ("is n't", "dog 's"), punctuation dropped.

    Words with inner hyphens and numbers such as 3.5 or 10:30 stay whole, as in the Penn Treebank. Abbreviations lose
    their last dot, and brackets are kept as signs: there the reference's Java tokenizer differs.
    """
    text = caption.lower().replace("’", "'").replace("cannot", "can not")
    return " ".join(token for token in _TOKEN.findall(_CLITIC.sub(r" \1", text)) if token not in DROPPED)


def caption_metrics(written: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """{"BLEU-4": 0..1, "CIDEr": 0..10} of one written caption a picture against the captions that people gave it.

    CIDEr weighs words by how few of these very pictures have them, so it means nothing for a single picture (always
    0) and is comparable only on the same split. UserError: nothing to compare, a picture without reference, no library.
    """
    bleu, cider = _scorers(written, references)
    with contextlib.redirect_stdout(io.StringIO()):  # the reference prints lengths
        scores, _ = bleu.compute_score(option="closest", verbose=0)
    return {"BLEU-4": float(scores[3]), "CIDEr": float(cider.compute_score()[0])}


def resampled(written: Sequence[str], references: Sequence[Sequence[str]], times: np.ndarray) -> dict[str, np.ndarray]:
    """The same of R resamples of the pictures: times Float[R n], how often each stands in one -> {name: Float[R]}.

    The weights of words stay those of all pictures.
    """
    bleu, cider = _scorers(written, references)
    length = np.array([c["testlen"] for c in bleu.ctest])
    closest = [bleu._single_reflen(c["reflen"], "closest", c["testlen"]) for c in bleu.ctest]
    correct, guess = (times @ np.array([c[key] for c in bleu.ctest], dtype=float) for key in ("correct", "guess"))
    score = ((correct + TINY) / (guess + SMALL)).prod(1) ** 0.25
    ratio = (times @ length + TINY) / (times @ np.array(closest, dtype=float) + SMALL)
    brevity = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    return {"BLEU-4": score * brevity, "CIDEr": times @ np.asarray(cider.compute_score()[1]) / times.sum(1)}


def _scorers(written: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[Any, Any]:
    """The reference's scorers of BLEU and CIDEr, filled."""
    try:
        from pycocoevalcap.bleu.bleu_scorer import BleuScorer
        from pycocoevalcap.cider.cider_scorer import CiderScorer
    except ImportError as error:
        raise UserError(
            "BLEU and CIDEr need pycocoevalcap; install it: pip install 'generalist-encoder[captions]'"
        ) from error

    if not len(written) or len(written) != len(references):
        raise UserError(f"{len(written)} written captions for {len(references)} pictures; give one a picture")
    bleu, cider = BleuScorer(n=4), CiderScorer(n=4)
    for i, (caption, given) in enumerate(zip(written, references, strict=True)):
        # as many strings a picture as it has captions; one string would be taken for a list of letters
        true = [words(text) for text in ([given] if isinstance(given, str) else given)]
        if not any(true):
            raise UserError(f"picture {i} has no reference caption; leave it out")
        bleu += (words(caption), true)
        cider += (words(caption), true)
    return bleu, cider
