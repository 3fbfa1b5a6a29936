"""The device half of `PretrainedText`: texts through the encoder, whole; a frozen one sees each text once."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from generalist.tokenizers_mod.pretrained.base import PretrainedTokens, frozen
from generalist.tokenizers_mod.pretrained.features import Features
from generalist.tokenizers_mod.text.text_tokens import NO_POSITION

if TYPE_CHECKING:
    from transformers import PreTrainedModel

POOLINGS = ("mean", "cls")
RECENT = 1024  # texts whose features are kept in memory where they are kept on disk; a task's candidates are few


def table_of(encoder: Any) -> nn.Embedding:
    """The rows of words of an encoder of transformers."""
    return encoder.get_input_embeddings()


class EncodedText(PretrainedTokens):
    """forward({"ids": Int[N], "position": Int[N]}) -> Float[N, width].

    A text is a run of tokens at positions 0, 1, ...; it goes through the encoder whole, behind the start token. A token
    at position -1 stands for itself without a position, at -2 - p with position p. With pooling a text is one row.
    """

    def __init__(self, encoder: PreTrainedModel, width: int, settings: Any) -> None:
        super().__init__(encoder, settings.frozen, settings.lora)
        inner = int(encoder.config.hidden_size)
        self.start = settings.backend.token_to_id(settings.start) if settings.start else None
        self.fill, self.pooling = settings.eot, settings.pooling
        self.digest = settings.digest
        self.features = Features(settings.features, settings.digest, settings.pooling) if settings.keeps else None
        self.remember = settings.remember or (RECENT if settings.keeps else 0)
        self.kept: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()
        own = int(table_of(encoder).weight.shape[1])
        # rows of words are narrower than hidden states in some (ELECTRA's small ones, ALBERT)
        self.widened: nn.Module = nn.Identity() if own == inner else nn.Linear(own, inner, bias=False)
        self.position = nn.Embedding(settings.positions, inner)
        nn.init.normal_(self.position.weight, std=0.02)
        self.projection: nn.Module = nn.Identity() if inner == width else nn.Linear(inner, width)
        self.train(self.training)

    def forward(self, data: dict[str, Tensor]) -> Tensor:
        ids, position = data["ids"], data["position"]
        alone = position < 0
        if not self.pooling or bool(alone.all()):
            rows = self._words(ids, position)
            if not bool(alone.all()):
                rows = rows.index_put((~alone,), self._encoded(ids[~alone], position[~alone]).to(rows.dtype))
            return self.projection(rows)
        kept = alone | (position == 0)  # a text is one row, where it begins
        rows = self._words(ids[kept], position[kept])
        texts = ~alone[kept]
        rows = rows.index_put((texts,), self._encoded(ids[~alone], position[~alone]).to(rows.dtype))
        return self.projection(rows)

    def made(self, data: dict[str, Tensor]) -> Tensor:
        return self._encoded(data["ids"], data["position"])

    def _words(self, ids: Tensor, position: Tensor) -> Tensor:
        """Tokens that stand for themselves: Float[N inner]."""
        rows = self.widened(table_of(self.encoder)(ids))
        place = self.position((-2 - position).clamp(min=0))
        return rows + torch.where((position < NO_POSITION).unsqueeze(-1), place, 0.0)

    def _encoded(self, ids: Tensor, position: Tensor) -> Tensor:
        """Texts laid end to end, Int[n] x 2 -> Float[n inner], or a row a text where they are pooled."""
        first = (position == 0).nonzero().squeeze(1).tolist()
        lengths = [b - a for a, b in zip(first, [*first[1:], len(ids)], strict=True)]
        if self.remember:
            return torch.cat([self._remembered(text) for text in ids.split(lengths)])
        return self._hidden(ids, lengths)

    def _remembered(self, text: Tensor) -> Tensor:
        """What the encoder makes of one text, from memory or disk where it was met before."""
        key = tuple(text.tolist())
        if key not in self.kept:
            self.kept[key] = self._known(text)
            if len(self.kept) > self.remember:
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        return self.kept[key]

    def _known(self, text: Tensor) -> Tensor:
        if self.features is None or self.state() != self.digest:  # other weights, or other than float32
            return self._hidden(text, [len(text)])
        key = self.features.key(text.cpu().numpy().tobytes())
        found = self.features.get(key)
        if found is None:
            with torch.autocast(text.device.type, enabled=False):
                found = self._hidden(text, [len(text)])
            self.features.put(key, found)
        return found.to(text.device)

    def forget(self) -> None:
        super().forget()
        self.kept = OrderedDict()

    def _hidden(self, ids: Tensor, lengths: list[int]) -> Tensor:
        """As `_encoded`, anew. On a CPU texts of about one length go together: padding takes as long as words there."""
        groups = alike(lengths) if ids.device.type == "cpu" else [list(range(len(lengths)))]
        if len(groups) < 2:
            return self._padded(ids, lengths)
        texts, made = ids.split(lengths), [ids] * len(lengths)
        for group in groups:
            own = [lengths[i] for i in group]
            found = self._padded(torch.cat([texts[i] for i in group]), own)
            for i, one in zip(group, found.split([1] * len(own) if self.pooling else own), strict=True):
                made[i] = one
        return torch.cat(made)

    def _padded(self, ids: Tensor, lengths: list[int]) -> Tensor:
        padded = pad_sequence(list(ids.split(lengths)), batch_first=True, padding_value=self.fill)
        real = torch.arange(padded.shape[1], device=ids.device) < torch.tensor(lengths, device=ids.device).unsqueeze(1)
        skip = 0
        if self.start is not None:
            padded, skip = nn.functional.pad(padded, (1, 0), value=self.start), 1
        mask = nn.functional.pad(real, (skip, 0), value=True).long()
        with frozen(self.frozen):
            hidden = self.encoder(input_ids=padded, attention_mask=mask).last_hidden_state
        if self.pooling == "mean":  # over the start and the end too, at unit length, as sentence-transformers
            x = (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
            return nn.functional.normalize(x, dim=-1)
        if self.pooling == "cls":
            return nn.functional.normalize(hidden[:, 0], dim=-1)
        return hidden[:, skip:][real]


def alike(lengths: list[int], least: int = 8, longer: float = 1.25) -> list[list[int]]:
    """The numbers of texts in groups of about one length: one of `least` takes none that is `longer` times its first.

    >>> alike([3, 9, 3, 4], least=2)
    [[0, 2], [3, 1]]
    """
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if not groups or (len(groups[-1]) >= least and lengths[i] > longer * lengths[groups[-1][0]]):
            groups.append([])
        groups[-1].append(i)
    return groups
