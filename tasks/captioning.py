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

from data.errors import UserError

# what the reference's own wrapper removes behind its tokenizer
DROPPED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"]) | {'"', "“", "”", "‘", "’"}
_CLITIC = re.compile(r"(?<=\w)(n't|'(?:s|re|ve|ll|d|m))(?!\w)")
_TOKEN = re.compile(r"n't(?!\w)|'(?:s|re|ve|ll|d|m)(?!\w)|\d+(?:[.,:]\d+)+|\w+(?:-\w+)*|[^\w\s]")


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
    try:
        from pycocoevalcap.bleu.bleu_scorer import BleuScorer
        from pycocoevalcap.cider.cider_scorer import CiderScorer
    except ImportError as error:
        raise UserError("BLEU and CIDEr need pycocoevalcap; install it: pip install 'generalist[captions]'") from error

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
    with contextlib.redirect_stdout(io.StringIO()):  # the reference prints lengths
        scores, _ = bleu.compute_score(option="closest", verbose=0)
    return {"BLEU-4": float(scores[3]), "CIDEr": float(cider.compute_score()[0])}
