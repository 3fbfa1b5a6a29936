"""Answers written word by word: greedy, beam search and sampling over the one likelihood.

    words so far   w_0 .. w_{t-1}     each seen by all that follow
    question       SPE at position t  seen by itself only; its likelihood over the vocabulary gives w_t

Every token runs once: what comes before is kept layer by layer (`generalist.nn.attention.kv_cache`; Uni-Perceiver spec
1.11).
transformers' generation expects a next-token head at the last word; here the question is asked at a separate token
that leaves no trace, so the search is written out: it is one page.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from generalist.data.base.errors import UserError
from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.data.batch.routes import Role, Routes
from generalist.data.batch.types import Packed, Span
from generalist.model.model import PackedModel
from generalist.model.sides import modalities_of
from generalist.nn.attention.kv_cache import Cache
from generalist.tasks.candidates.names import Vocabulary

CHUNK = 8192  # vocabulary entries encoded at once


@dataclass
class Decoded:
    """The answers of B inputs, best first: ids Int[B k T], log_p of each word Float[B k T], score Float[B k].

    Behind the end token the end is repeated with log_p 0.
    """

    ids: Tensor
    log_p: Tensor
    score: Tensor
    end: int

    def words(self, row: int, rank: int = 0) -> list[int]:
        """One answer's ids up to the end token, which is left out."""
        ids = self.ids[row, rank].tolist()
        return ids[: ids.index(self.end)] if self.end in ids else ids


def writing_roles(model: PackedModel, inputs: Collection[str] | None, task: str | None) -> tuple[Role, Role]:
    """What an input of these modalities and the vocabulary are told of each other where the answer is written."""
    asked, members = model.sides.roles(inputs, Vocabulary.members, task, writes=True)
    return asked, replace(members, other=Vocabulary.told)


@torch.no_grad()
def vocabulary_features(
    model: PackedModel,
    text: Any,
    summary: Any,
    inputs: Collection[str] | None = None,
    task: str | None = None,
) -> Tensor:
    """The features of every vocabulary entry, encoded once: Float[K D].

    inputs: modalities of what is answered, task: its name; for experts that are chosen by task.
    """
    sequences = [[summary.span(None).ask([0]), span] for span in text.vocabulary_spans()]
    _, role = writing_roles(model, inputs, task)
    parts = [pack(sequences[i : i + CHUNK], role).to(model.device) for i in range(0, len(sequences), CHUNK)]
    return torch.cat([model.features(part, candidate=True) for part in parts])


class Anew:
    """The state of B x k sequences while their words are written, all of it encoded again at every word.

    For models whose layers mix tokens or choose experts by more than one token and what was kept before it.
    """

    def __init__(
        self, model: PackedModel, inputs: Sequence[Sequence[Span]], text: Any, scale: str, task: str | None = None
    ) -> None:
        self.model, self.text, self.scale = model, text, scale
        self.role, _ = writing_roles(model, modalities_of(inputs), task)
        self.inputs = [list(sequence) for sequence in inputs]
        self.words: list[list[int]] = [[] for _ in inputs]

    def select(self, rows: Tensor) -> None:
        """Keep, reorder or repeat sequences."""
        self.inputs = [self.inputs[i] for i in rows.tolist()]
        self.words = [list(self.words[i]) for i in rows.tolist()]

    def features(self) -> Tensor:
        """f where the next word of every sequence is asked for: Float[R D]."""
        pairs = zip(self.inputs, self.words, strict=True)
        packed = pack([[*sequence, self.text.next_span(words)] for sequence, words in pairs], self.role)
        return self.model.features(packed.to(self.model.device))

    def ask(self, t: int, members: Tensor) -> Tensor:
        """log p of word t of every sequence: Float[R K]."""
        return self.model.score(self.features(), members, self.scale)

    def write(self, words: Tensor, t: int) -> None:
        """Put word t of every sequence, Int[R], behind what is written."""
        for written, word in zip(self.words, words.tolist(), strict=True):
            written.append(word)


class Writer:
    """The same, each token encoded once: what comes before is kept layer by layer."""

    def __init__(
        self, model: PackedModel, inputs: Sequence[Sequence[Span]], text: Any, scale: str, task: str | None = None
    ) -> None:
        self.model, self.text, self.scale = model, text, scale
        role, _ = writing_roles(model, modalities_of(inputs), task)
        # a word and a question stand behind every input for this pass: nothing before them sees them, and routers
        # that look at a whole sequence see one that has text in it
        tail = text.next_span([text.spe])
        packed = pack([[*sequence, tail] for sequence in inputs], role).to(model.device)
        self.cache = Cache.of(packed, without=2)
        at = replace(model.at(packed), cache=self.cache)
        model.encoder(model.embed(packed), at)
        self.complete = len(self.cache.layers) == len(model.encoder.layers)
        last = packed.first + torch.bincount(packed.owner) - 1
        self.routes = None if at.routes is None else [at.routes.index[last - 1], at.routes.index[last]]
        self.table = None if at.routes is None else at.routes.table
        self.first = None if at.routes is None else at.routes.index[packed.first]
        self.rows = torch.arange(len(inputs), device=model.device)

    def select(self, rows: Tensor) -> None:
        """Keep, reorder or repeat sequences."""
        self.cache.select(rows)
        self.rows = self.rows[rows]

    def ask(self, t: int, members: Tensor) -> Tensor:
        """log p of word t of every sequence: Float[R K]."""
        count = self.cache.sequences
        packed = self._tokens(torch.full((count,), self.text.spe), t)
        return self.model.score(self.model.read_out(*self._run(packed, append=False)), members, self.scale)

    def write(self, words: Tensor, t: int) -> None:
        """Put word t of every sequence, Int[R], behind what is kept."""
        self._run(self._tokens(words, t), append=True)

    def _tokens(self, ids: Tensor, t: int) -> Packed:
        span = self.text.next_span([])
        position = torch.full((1,), t)
        tokens = [replace(span, data={"ids": i.reshape(1), "position": position}, hidden=None) for i in ids.cpu()]
        return pack([[token] for token in tokens]).to(self.model.device)

    def _run(self, packed: Packed, append: bool) -> tuple[Tensor, Packed, Tensor | None]:
        routes = None
        if self.routes is not None:
            assert self.table is not None
            first = None if self.first is None else self.first[self.rows]
            routes = Routes(self.routes[0 if append else 1][self.rows], self.table, first)
        self.cache.append = append
        at = self.model.conditioned(At(packed.layout, routes=routes, cache=self.cache), candidate=False)
        hidden, at = self.model.encoder(self.model.embed(packed), at)
        self.cache.passed()
        return hidden, packed, at.origin


def start(
    model: PackedModel, inputs: Sequence[Sequence[Span]], text: Any, scale: str, task: str | None = None
) -> Writer | Anew:
    """A writer that keeps what it has encoded, where every layer of the model can."""
    if model.config.pooling != "asked":
        raise UserError(f"this model reads one answer an input (pooling {model.config.pooling!r}); it cannot write")
    if model.router is not None and model.router.needs_sequence:
        return Anew(model, inputs, text, scale, task)
    writer = Writer(model, inputs, text, scale, task)
    return writer if writer.complete else Anew(model, inputs, text, scale, task)


@torch.no_grad()
def decode(
    model: PackedModel,
    inputs: Sequence[Sequence[Span]],
    text: Any,
    members: Tensor,
    scale: str = "default",
    beam: int = 1,
    steps: int = 21,
    end: int | None = None,
    length_penalty: float = 0.0,
    sample: bool = False,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
    task: str | None = None,
) -> Decoded:
    """Write an answer to every input [summary, x, ...] (not asked anywhere).

    text: the text modality; members: `vocabulary_features`, Float[K D]; steps: most words, the end among them.
    beam=1 is greedy. A finished beam repeats the end with log p = 0; beams are ranked by
    score / (words without end + 1)^length_penalty. sample: draw `beam` independent answers instead, from the
    `top_k` likeliest (0 = all) that hold `top_p` of the probability, at this temperature. task: the name of the task,
    for experts that are chosen by task.
    """
    if not inputs:
        raise UserError("nothing to answer: give at least one input")
    for name, value, low in (("beam", beam, 1), ("steps", steps, 1), ("temperature", temperature, 1e-6)):
        if value < low:
            raise UserError(f"{name} is {value}; it must be at least {low}")
    if steps > text.max_length:
        raise UserError(f"steps {steps} exceed the text's max_length {text.max_length}; lower one or raise the other")
    if beam > len(members):
        raise UserError(f"beam {beam} is wider than the vocabulary of {len(members)}")
    end = text.eot if end is None else end
    writer = start(model, inputs, text, scale, task)
    count, device = len(inputs), members.device
    ids = torch.empty(count, 1, 0, dtype=torch.long, device=device)
    log_p = torch.empty(count, 1, 0, device=device)
    score = torch.zeros(count, 1, device=device)
    done = torch.zeros(count, 1, dtype=torch.bool, device=device)
    only_end = torch.full((len(members),), -torch.inf, device=device)
    only_end[end] = 0
    for t in range(steps):
        # finished beams can only go on with the end
        words = torch.where(done.unsqueeze(-1), only_end, writer.ask(t, members).view(count, done.shape[1], -1))
        if sample:
            parent, word = _draw(words, beam, temperature, top_k, top_p, generator)
        else:
            best = (score.unsqueeze(-1) + words).flatten(1).topk(beam, dim=1).indices
            parent, word = best // len(members), best % len(members)
        gained = words.flatten(1).gather(1, parent * len(members) + word)
        score = score.gather(1, parent) + gained
        ids = torch.cat([_take(ids, parent), word.unsqueeze(-1)], dim=-1)
        log_p = torch.cat([_take(log_p, parent), gained.unsqueeze(-1)], dim=-1)
        done = done.gather(1, parent) | (word == end)
        if t + 1 == steps or bool(done.all()):
            break
        first = torch.arange(count, device=device).unsqueeze(1) * words.shape[1]
        writer.select((first + parent).flatten())
        writer.write(word.flatten(), t)
    ids = torch.nn.functional.pad(ids, (0, steps - ids.shape[-1]), value=end)
    log_p = torch.nn.functional.pad(log_p, (0, steps - log_p.shape[-1]))
    final = score / ((ids != end).sum(-1) + 1.0) ** length_penalty
    order = final.argsort(dim=1, descending=True, stable=True)
    return Decoded(_take(ids, order), _take(log_p, order), final.gather(1, order), end)


def _take(values: Tensor, parent: Tensor) -> Tensor:
    """Rows of axis 1: Float[B k T] x Int[B k'] -> Float[B k' T]."""
    return values.gather(1, parent.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def _draw(
    log_p: Tensor, beam: int, temperature: float, top_k: int, top_p: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """One word for each of `beam` answers: Float[B k K] -> parents Int[B beam], words Int[B beam]."""
    if log_p.shape[1] != beam:
        log_p = log_p.expand(-1, beam, -1)
        parent = torch.zeros(log_p.shape[:2], dtype=torch.long, device=log_p.device)
    else:
        parent = torch.arange(beam, device=log_p.device).expand(log_p.shape[:2])
    values, order = (log_p / temperature).log_softmax(-1).sort(dim=-1, descending=True, stable=True)
    p = values.exp()
    dropped = p.cumsum(-1) - p >= top_p
    if top_k:
        dropped[..., top_k:] = True
    p = p.masked_fill(dropped, 0)
    drawn = torch.multinomial(p.flatten(0, 1), 1, generator=generator).view(*p.shape[:2], 1)
    return parent, order.gather(-1, drawn).squeeze(-1)
