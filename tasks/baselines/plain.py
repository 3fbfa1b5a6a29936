"""Ordinary features of any raw value, fitted on training records: what the ordinary baselines of inputs look at.

A value is first made plain by its modality (`Modality.plain`), so that a path, bytes and an array of one picture are
one. Then what it is decides, not which task or modality it belongs to: words, pictures and clips, sound, graphs,
points, signals, table rows. A value that is missing has the mean of its features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, hstack, issparse

from generalist.data.base.foreign import is_picture
from generalist.data.stream.source import Records
from generalist.tasks.baselines import features, strong
from generalist.tasks.baselines.budget import clock
from generalist.tokenizers_mod.base.base import Modality

Matrix = Any  # Float[n d], dense or sparse by rows
Fit = Callable[[list[Any]], Callable[[list[Any]], Matrix]]


@dataclass(frozen=True)
class Kind:
    """each: a plain value -> what is kept of it; fit: kept training values -> (kept values -> Float[n d]).

    trees: whether boosted trees are tried on it beside linear models. beside: whether it stands beside what a
    pretrained encoder makes of the value, or gives way to it.
    """

    each: Callable[[Any], Any]
    fit: Fit
    trees: bool = True
    beside: bool = False


def plain_features(
    train: Records, others: Sequence[Records], names: list[str], modalities: Sequence[Modality | None] = ()
) -> list[Matrix]:
    """Features of the named fields side by side, [n, d] for train and each of the others; sparse where words are.

    modalities: that of each field, by which its values are read; without one a value is taken as it stands.
    """
    return sides(train, others, names, modalities)[0]


def sides(
    train: Records, others: Sequence[Records], names: list[str], modalities: Sequence[Modality | None] = ()
) -> tuple[list[Matrix], bool]:
    """The features, and whether boosted trees may use them."""
    parts: list[list[Matrix]] = [[] for _ in range(1 + len(others))]
    trees = True
    for place, name in enumerate(names):
        modality = modalities[place] if modalities else None
        columns, kind = [], None
        if modality is not None and clock().strong and (encoded := _encoded((train, *others), name, modality)):
            trees = False
            for part, column in zip(parts, encoded, strict=True):
                part.append(_with_gaps(lambda there: np.stack(there).astype(float), column))
            if not _first_kind(train, name, modality).beside:
                continue
        for records in (train, *others):
            column, kind = _column(records, name, modality, kind)
            columns.append(column)
        assert kind is not None
        trees &= kind.trees
        extract = kind.fit([v for v in columns[0] if v is not None])
        for part, column in zip(parts, columns, strict=True):
            part.append(_with_gaps(extract, column))
    joined = [_joined(part) for part in parts]
    return joined, trees and joined[0].shape[1] <= 400 and not issparse(joined[0])


def _encoded(parts: Sequence[Records], name: str, modality: Modality) -> list[list[Any]]:
    """What a pretrained encoder makes of a field of all records, None where it is missing; [] without an encoder."""
    first = next((raw for i in range(len(parts[0])) if (raw := parts[0][i][name]) is not None), None)
    if first is None or modality.vector(first) is None:
        return []
    out = []
    for records in parts:
        clock().check()
        raws = [records[i][name] for i in range(len(records))]
        out.append([None if raw is None else modality.vector(raw) for raw in raws])
    return out


def _first_kind(records: Records, name: str, modality: Modality) -> Kind:
    return kind_of(modality.plain(next(raw for i in range(len(records)) if (raw := records[i][name]) is not None)))


def _column(records: Records, name: str, modality: Modality | None, kind: Kind | None) -> tuple[list[Any], Kind | None]:
    """What is kept of a field of all records, None where it is missing; the kind is that of the first value."""
    found: list[Any] = []
    for i in range(len(records)):
        clock().check()
        raw = records[i][name]
        value = raw if raw is None or modality is None else modality.plain(raw)
        if value is not None:
            kind = kind or kind_of(value)
            value = kind.each(value)
        found.append(value)
    return found, kind


def _with_gaps(extract: Callable[[list[Any]], Matrix], column: list[Any]) -> Matrix:
    there = [i for i, value in enumerate(column) if value is not None]
    found = extract([column[i] for i in there])
    if len(there) == len(column):
        return found
    if issparse(found):
        place = csr_matrix((np.ones(len(there)), (there, np.arange(len(there)))), shape=(len(column), len(there)))
        return place @ found
    out = np.tile(found.mean(0), (len(column), 1))
    out[there] = found
    return out


def _joined(part: list[Matrix]) -> Matrix:
    if any(issparse(matrix) for matrix in part):
        return hstack([csr_matrix(m) for m in part], format="csr")
    return np.nan_to_num(np.concatenate(part, axis=1))


def kind_of(value: Any) -> Kind:
    """By what a plain value is, and with the features that take longer where the budget asks for them."""
    found = _kind_of(value)
    return STRONG.get(found, found) if clock().strong else found


def _kind_of(value: Any) -> Kind:
    if isinstance(value, str):
        return WORDS
    if is_picture(value):
        return PICTURE
    if isinstance(value, Mapping):
        return next((kind for key, kind in MARKED.items() if key in value), ROW)
    array = np.asarray(value)
    if array.ndim == 4:
        return CLIP
    if array.ndim == 2 and array.dtype.kind == "f" and array.shape[1] <= 16:  # [t, channels], lengths may differ
        return SIGNAL
    return ARRAY


# --- kinds ---


def _stacked(one: Callable[[Any], np.ndarray] = np.asarray) -> Fit:
    return lambda train: lambda column: np.stack([one(v) for v in column]).astype(float)


def _picture(value: Any) -> np.ndarray:
    """A PIL image or {"pixels": [C, H, W]} -> what `features.pixels` keeps of it."""
    if isinstance(value, Mapping):
        return features.pixels(value["pixels"])
    return features.pixels(np.asarray(value.convert("RGB")).transpose(2, 0, 1) / 255)


def _pictures(train: list[Any]) -> Callable[[list[Any]], Matrix]:
    shape = train[0].shape if len({v.shape for v in train}) == 1 else None

    def extract(column: list[Any]) -> Matrix:
        if shape is not None and all(v.shape == shape for v in column):
            return np.stack([v.ravel() for v in column]).astype(float)
        if shape is not None:  # of another size than all of training's
            return np.stack([_as_shape(v, shape).ravel() for v in column]).astype(float)
        return np.stack([features.coloured(v).ravel() for v in column]).astype(float)

    return extract


def _as_shape(picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    import torch
    from torch.nn.functional import adaptive_avg_pool2d

    if len(picture) != shape[0]:
        picture = np.repeat(picture.mean(0, keepdims=True), shape[0], axis=0)
    return adaptive_avg_pool2d(torch.as_tensor(picture), (shape[1], shape[2])).numpy()


def _arrays(train: list[Any]) -> Callable[[list[Any]], Matrix]:
    """Arrays of one shape number by number; others by the moments and bands of their channels."""
    shape = train[0].shape if len({v.shape for v in train}) == 1 else None

    def extract(column: list[Any]) -> Matrix:
        if shape is not None and all(v.shape == shape for v in column):
            return np.stack([v.ravel() for v in column]).astype(float)
        return np.stack([features.signal(v if v.ndim > 1 else v[:, None]) for v in column])

    return extract


def _graphs(train: list[Any]) -> Callable[[list[Any]], Matrix]:
    most = max((int(np.max(v["nodes"])) + 1 for v in train if np.size(v.get("nodes", ()))), default=0)
    return lambda column: np.stack([features.graph(v, most) for v in column])


def _words(values: list[str]) -> Callable[[list[Any]], Matrix]:
    """TF-IDF of words and pairs of words; of texts that are single words (SMILES strings), counts of 1 to 3 letters."""
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

    if not any(" " in value.strip() for value in values):
        letters = CountVectorizer(analyzer="char", lowercase=False, ngram_range=(1, 3), max_features=500)
        vectorizer: Any = letters
    else:
        vectorizer = TfidfVectorizer(token_pattern=r"(?u)\w+", ngram_range=(1, 2), max_features=1500, sublinear_tf=True)
    vectorizer.fit(values)
    return lambda column: vectorizer.transform(column).astype(float)


def _rows(values: list[dict[str, Any]]) -> Callable[[list[Any]], Matrix]:
    """Numbers as they are (missing = mean), words one-hot by what training rows hold."""
    numeric, words = {}, {}
    for name in values[0]:
        present = [row[name] for row in values if not _gap(row.get(name))]
        if all(isinstance(v, int | float | np.number) for v in present):
            numeric[name] = float(np.mean(present)) if present else 0.0
        else:
            words[name] = {word: i for i, word in enumerate(sorted(set(map(str, present))))}

    def extract(column: list[Any]) -> Matrix:
        out = [[mean if _gap(row.get(n)) else float(row[n]) for row in column] for n, mean in numeric.items()]
        parts = [np.array(out).T.reshape(len(column), -1)]
        for name, index in words.items():
            hot = np.zeros((len(column), len(index)))
            for i, row in enumerate(column):
                if (word := str(row.get(name))) in index:
                    hot[i, index[word]] = 1
            parts.append(hot)
        return np.concatenate(parts, axis=1)

    return extract


def _gap(cell: Any) -> bool:
    return cell is None or cell != cell


def _strong_words(values: list[str]) -> Callable[[list[Any]], Matrix]:
    return _words(values) if any(" " in value.strip() for value in values) else strong.letters(values)


def _neighbourhoods(values: list[Any]) -> Callable[[list[Any]], Matrix]:
    """Histograms as ever, beside counts of neighbourhoods that some training graph holds."""
    usual = _graphs(values)
    known = np.stack([strong.neighbourhoods(v) for v in values]).any(0)

    def extract(column: list[Any]) -> Matrix:
        return np.concatenate([usual(column), np.stack([strong.neighbourhoods(v)[known] for v in column])], axis=1)

    return extract


WORDS = Kind(str, _words, beside=True)
PICTURE = Kind(_picture, _pictures, trees=False)
SOUND = Kind(lambda v: features.log_spectrum(v["array"]), _stacked())
CLOUD = Kind(lambda v: features.shape_histogram(v["points"]), _stacked())
CLIP = Kind(lambda v: features.clip(np.asarray(v, dtype=float)), _stacked())
SIGNAL = Kind(lambda v: features.signal(np.asarray(v, dtype=float)), _stacked())
GRAPH = Kind(lambda v: v, _graphs)
ROW = Kind(dict, _rows)
ARRAY = Kind(lambda v: np.atleast_1d(np.asarray(v, dtype=float)), _arrays)
STRONG = {
    SIGNAL: Kind(strong.standard, strong.rocket, trees=False),
    SOUND: Kind(lambda v: strong.cepstra(v["array"], v.get("sampling_rate", 16000)), _stacked()),
    GRAPH: Kind(lambda v: v, _neighbourhoods),
    WORDS: Kind(str, _strong_words, beside=True),
}
MARKED = {"pixels": PICTURE, "array": SOUND, "points": CLOUD, "edges": GRAPH}  # keys that say what a mapping is
