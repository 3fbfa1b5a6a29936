"""Embedded text: English prose from the docstrings of installed scientific libraries."""

from __future__ import annotations

import ast
import gc
import inspect
import json
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from generalist.data.base.errors import UserError
from generalist.data.files.cache import SizedCache, content_key, default_folder
from generalist.data.sources.embedded.files import root
from generalist.data.sources.embedded.split import SPLITS, records
from generalist.data.stream.source import Record, Records

PACKAGES = ("numpy", "scipy", "sklearn", "statsmodels", "pandas", "networkx", "sympy", "matplotlib", "torch")
LIMITS = {"train": 20_000, "val": 1_000, "test": 1_000}
BIGGEST = 120_000  # bytes of a source file: the few longer ones take a third of the time to parse
FEWEST, MOST = 15, 60  # words a piece
DOCUMENTED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
KEPT = 100_000_000  # bytes of read pieces on disk, about six sets of packages
SHINGLE = 10  # a held-out piece sharing this many words in a row with training is dropped


def docstrings(seed: int = 0, packages: tuple[str, ...] | list[str] = PACKAGES) -> dict[str, Records]:
    """Prose of 15 to 60 words: {"id", "text", "module"}.

    Source files are parsed, never imported. Split by module, so that a test piece comes from a file
    that training never saw; pieces are unique up to case and punctuation, and held-out pieces that
    share ten consecutive words with training (or test with val) are dropped. The text changes with the
    versions of the installed libraries.
    """
    found = {name: home for name in packages if (home := root(name))}
    if not found:
        raise UserError(f"docstrings: none of {', '.join(packages)} is installed: pip install numpy scipy scikit-learn")
    modules = _kept(found)
    names = sorted(modules)
    names = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    part = len(names) // 12
    cut = {"test": names[:part], "val": names[part : 2 * part], "train": names[2 * part :]}
    parts: dict[str, list[Record]] = {}
    used: set[int] = set()
    for split in SPLITS:  # training first, so that what is dropped is dropped from the held-out side
        rows = [row for module in cut[split] for row in modules[module]]
        if split != "train":
            rows = [row for row in rows if used.isdisjoint(shingles(row["text"]))]
        order = np.random.default_rng(seed + 1).permutation(len(rows))[: LIMITS[split]]
        parts[split] = [rows[i] for i in order]
        used.update(h for row in parts[split] for h in shingles(row["text"]))
    about = f"prose from the docstrings of {', '.join(found)}"
    return records(parts, synthetic=False, about=about)


def _kept(found: dict[str, Path]) -> dict[str, list[Record]]:
    """`_read`, from the cache on disk where these files of code, read by this module, have been read before."""
    files = _files(found)
    marks = [f"{module}:{(state := path.stat()).st_size}:{state.st_mtime_ns}" for module, path in files.items()]
    store = SizedCache(default_folder() / "docstrings", limit=KEPT)
    key = content_key(Path(__file__).read_bytes(), sys.version, *marks) + ".json"

    for _ in range(2):
        try:
            written = store.get(key, lambda target: target.write_text(json.dumps(_read(files)), encoding="utf-8"))
            return json.loads(written.read_text(encoding="utf-8"))
        except ValueError:  # not whole: made anew
            store.place(key).unlink(missing_ok=True)
        except (UserError, OSError):  # no place to keep it
            break
    return _read(files)


def _files(found: dict[str, Path]) -> dict[str, Path]:
    """Module -> the file of code it is, in a fixed order."""
    files: dict[str, Path] = {}
    for package, home in found.items():
        for path in sorted(home.rglob("*.py"), key=lambda p: p.relative_to(home).as_posix()):
            place = path.relative_to(home)
            if any(map(_skipped, place.parts[:-1])) or "test" in place.name or path.stat().st_size > BIGGEST:
                continue
            files[f"{package}/{place.as_posix()}"] = path
    return files


def _read(files: dict[str, Path]) -> dict[str, list[Record]]:
    """Module -> its pieces, each piece kept where it occurs first; modules and pieces in a fixed order."""
    modules: dict[str, list[Record]] = {}
    seen: set[str] = set()
    collecting = gc.isenabled()
    gc.disable()  # syntax trees have no cycles, yet their many nodes set off full collections: twice the time
    try:
        for module, path in files.items():
            for piece in pieces(path.read_text(encoding="utf-8", errors="replace")):
                key = " ".join(re.findall(r"[a-z]+", piece.lower()))
                if key not in seen:
                    seen.add(key)
                    mine = modules.setdefault(module, [])
                    mine.append({"id": f"docstrings/{module}/{len(mine)}", "text": piece, "module": module})
    finally:
        if collecting:
            gc.enable()
    return modules


def shingles(text: str) -> list[int]:
    """Hashes (of this process) of every run of SHINGLE words, lower-cased."""
    tokens = re.findall(r"\w+", text.lower())
    return [hash(tuple(tokens[i : i + SHINGLE])) for i in range(max(1, len(tokens) - SHINGLE + 1))]


def pieces(code: str) -> Iterator[str]:
    """The prose pieces in the docstrings of a Python source, in order; nothing if it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in the libraries' own strings
            tree = ast.parse(code)
    except SyntaxError:
        return
    nodes: list = [tree]  # walks definitions only: several times faster than ast.walk
    for node in nodes:
        nodes += [child for child in node.body if isinstance(child, DOCUMENTED)]
        for paragraph in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
            yield from _prose(paragraph)


def _prose(paragraph: str) -> Iterator[str]:
    """Whole sentences of a paragraph joined to FEWEST..MOST words; nothing unless it reads as prose."""
    lines = (inspect.cleandoc(paragraph) if paragraph.startswith(" ") else paragraph).splitlines()
    # Lists, directives, doctests, tables, underlines, parameter tables and formulas.
    odd = r"\s|>>>|\.\.|[-*+|=~^#@:$\\]|\d+[.)]|\w+ : |\(\w+\)|In \["
    if not lines or any(re.match(odd, line) for line in lines):
        return
    text = " ".join(lines)
    if ":math:" in text or "\\" in text or "://" in text or "{" in text:
        return
    text = re.sub(r"\s*\[[\w, ]+\]_", "", text)  # citations
    text = re.sub(r":[\w:]+:`~?([^`<]*?)\s*(<[^`]*>)?`", r"\1", text)  # :func:`name`
    text = re.sub(r"`+([^`<]*?)\s*(<[^`]*>)?`+_*", r"\1", text)  # ``code``, `link <url>`_
    text = re.sub(r"\*+(\S[^*]*)\*+", r"\1", text)  # *emphasis*
    text = re.sub(r"\s+", " ", text).strip()
    piece: list[str] = []
    for sentence in re.split(r"(?<=[.!?]) (?=[A-Z])", text):
        if not _reads(sentence):
            piece = []  # pieces are consecutive sentences
            continue
        tokens = sentence.split()
        piece = piece + tokens if len(piece) + len(tokens) <= MOST else tokens
        if FEWEST <= len(piece) <= MOST:
            yield " ".join(piece)
            piece = []


# fmt: off
COMMON = frozenset((
    "a", "an", "and", "are", "as", "at", "be", "by", "can", "for", "from", "if", "in", "is", "it", "not",
    "of", "on", "or", "that", "the", "this", "to", "with",
))
# fmt: on


def _reads(sentence: str) -> bool:
    """True for a sentence: begins with a capital, ends with a stop, mostly letters, enough common words."""
    tokens = sentence.split()
    if not re.match(r"[A-Z].*[.!?]$", sentence) or not 4 <= len(tokens) <= MOST:
        return False
    odd = len(re.findall(r"[^A-Za-z ,.']", sentence))
    common = sum(map(COMMON.__contains__, sentence.lower().split()))
    return odd <= 0.06 * len(sentence) and common >= 0.2 * len(tokens)


def _skipped(folder: str) -> bool:
    """True for tests, vendored copies and private folders (whose docstrings are notes, not prose)."""
    return "test" in folder or folder.startswith(("extern", "vendored")) or (folder[0] == "_" and folder != "_core")
