"""The text tower: the rows of ids that its library's tokenizer makes, padding included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import pad

from generalist.data.base.errors import UserError, nearest
from generalist.tokenizers_mod.base.examples import Examples
from generalist.tokenizers_mod.text.bpe import LONG, enough, open_clip_bpe
from generalist.tokenizers_mod.text.cleaning import CLEANERS
from generalist.tokenizers_mod.text.text_tensors import word_or_file
from generalist.tokenizers_mod.towers.network import build_network
from generalist.tokenizers_mod.towers.tower import Tower, TowerTokens


@dataclass
class TextTower(Tower):
    """Texts through a tower of open_clip or transformers.

    tokenizer: the JSON text of a `tokenizers` backend with its special tokens, or "clip". clean: what is done to a text
    before (`generalist.tokenizers_mod.text.cleaning`). length: most tokens of a text, specials included; longer ones
    are cut. padding: the id that fills a row, on the left where `left`. fixed: every row is `length` long, as of towers
    that attend to padding. masked: the network is told which ids are real. replaced: [id, other], the other stands in
    its place. tail: an id behind the padding, -1 for none.
    """

    name: ClassVar[str] = "text"
    raw: ClassVar[str] = "a str"
    kind: ClassVar[str] = "text"
    tensor_names: ClassVar[tuple[str, ...]] = ("input_ids", "attention_mask")
    side = "text"

    tokenizer: str = "clip"
    clean: str = "lower"
    length: int = 77
    padding: int = 0
    left: bool = False
    fixed: bool = True
    masked: bool = False
    replaced: list[int] | None = None
    tail: int = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clean not in CLEANERS:
            raise UserError(f"{self.name}: clean={self.clean!r}; {nearest(self.clean, CLEANERS)}")

    @property
    def backend(self) -> Tokenizer:
        """The backend that adds special tokens and cuts, made at the first use."""
        if "_made" not in self.__dict__:
            made = load_backend(self.tokenizer)
            made.no_padding()
            made.enable_truncation(self.length - (self.tail >= 0))
            self.__dict__["_made"] = made
        return cast(Tokenizer, self.__dict__["_made"])

    @property
    def max_length(self) -> int:
        return self.length

    def ids(self, text: str) -> list[int]:
        """The ids of a text, special tokens included, before padding."""
        clean = CLEANERS[self.clean]
        cleaned = clean(text) if len(text) <= LONG else enough(self.backend, text, self.length, clean)[0]
        return self.backend.encode(cleaned).ids

    def read(self, raw: Any) -> dict[str, Tensor]:
        if not isinstance(raw, str):
            raise UserError(f"{self.name}: expected a str, got {type(raw).__name__}; decode bytes and join lists first")
        if not CLEANERS[self.clean](raw[:LONG]).strip():
            raise UserError(f"{self.name}: {raw[:40]!r} is empty once it is cleaned; drop it")
        found = torch.tensor(self.ids(raw))
        return {"input_ids": found, "attention_mask": torch.ones_like(found)}

    def keep(self, value: dict[str, Tensor]) -> Tensor:
        return value["input_ids"].int()

    def kept(self, tensor: Tensor) -> dict[str, Tensor]:
        return {"input_ids": tensor.long(), "attention_mask": torch.ones_like(tensor, dtype=torch.long)}

    def encoded(self, raw: Any) -> bytes | None:
        return raw.encode(errors="surrogatepass") if isinstance(raw, str) else None

    def span(self, value: dict[str, Tensor], rng: torch.Generator | None = None) -> Any:
        row, _ = self.padded({key: tensor.unsqueeze(0) for key, tensor in value.items()}, whole=True)
        return super().span({key: tensor[0] for key, tensor in row.items()})

    def tensors(self, values: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """input_ids Int[B n] filled with the padding, attention_mask Int[B n]."""
        longest = max(len(value["input_ids"]) for value in values)
        rows = [self._filled(value["input_ids"], longest, self.padding) for value in values]
        real = [self._filled(value["attention_mask"], longest, 0) for value in values]
        return {"input_ids": torch.stack(rows), "attention_mask": torch.stack(real)}

    def _filled(self, row: Tensor, length: int, value: int) -> Tensor:
        """[... n] -> [... length], on the side that the tower's padding stands."""
        more = length - row.shape[-1]
        return pad(row, (more, 0) if self.left else (0, more), value=value)

    def padded(self, tensors: dict[str, Tensor], whole: bool = False) -> tuple[dict[str, Tensor], Tensor | None]:
        """input_ids Int[B n], attention_mask [B n] or nothing (all real) -> the rows that the network takes.

        whole: rows of `length` whether the tower asks for it or not.
        """
        ids, real = tensors["input_ids"], tensors.get("attention_mask")
        real = torch.ones_like(ids) if real is None else real
        if ids.shape[1] > self.length and not torch.compiler.is_compiling():
            ids, real = self._cut(ids, real)
        ids = ids.masked_fill(real == 0, self.padding)
        if self.fixed or whole:
            ids, real = self._filled(ids, self.length, self.padding), self._filled(real, self.length, 0)
        if self.replaced is not None:
            ids = ids.masked_fill(ids == self.replaced[0], self.replaced[1])
        if self.tail >= 0:
            ids = torch.cat([ids[:, :-1], torch.full_like(ids[:, :1], self.tail)], dim=1)
        return {"input_ids": ids} | ({"attention_mask": real} if self.masked else {}), None

    def _cut(self, ids: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Rows that are longer than the tower takes -> their real ids, of too many the first ones and the last."""
        rows = [row[keep] for row, keep in zip(ids, real.bool(), strict=True)]
        most = self.length
        rows = [torch.cat([row[: most - 1], row[-1:]]) if len(row) > most else row for row in rows]
        found = self.tensors([{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in rows])
        return found["input_ids"], found["attention_mask"]

    def from_command_line(self, word: str) -> str:
        return word_or_file(self.name, word)

    def plain(self, raw: Any) -> str:
        self.read(raw)
        return str(raw)

    def hf_tokenizer(self) -> Any:
        """The same ids with the Hugging Face interface."""
        from generalist.tokenizers_mod.text.bpe_hf import BpeTokenizer  # loader workers need no transformers

        backend = load_backend(self.tokenizer)
        token = backend.id_to_token(self.padding)
        return BpeTokenizer(
            tokenizer_object=backend,
            pad_token=token,
            padding_side="left" if self.left else "right",
            model_max_length=self.length,
            clean=self.clean,
            clean_up_tokenization_spaces=False,
        )

    @classmethod
    def examples(cls) -> Examples:
        return Examples()

    def build(self, width: int) -> nn.Module:
        network = build_network(self.library, self.side, self.config)
        return TextTowerTokens(network, self.size, width, self.masked and not self.fixed, self.left)


class TextTowerTokens(TowerTokens):
    """The same for rows of ids. shorten: columns that are padding in every row are left out."""

    def __init__(self, network: nn.Module, size: int, width: int, shorten: bool, left: bool) -> None:
        self.shorten, self.left = shorten, left
        super().__init__(network, size, width)

    def forward(self, data: dict[str, Tensor]) -> Tensor:
        if self.shorten and not torch.compiler.is_compiling():
            longest = max(1, int(data["attention_mask"].sum(1).max()))
            columns = slice(-longest, None) if self.left else slice(longest)
            data = {key: value[:, columns] for key, value in data.items()}
        return super().forward(data)


def load_backend(tokenizer: str) -> Tokenizer:
    """A backend from its JSON text, or open_clip's own for "clip". UserError: no tokenizer's JSON."""
    if tokenizer == "clip":
        return open_clip_bpe()
    try:
        return Tokenizer.from_str(tokenizer)
    except Exception as error:  # the Rust library raises bare Exception
        raise UserError(f"text: not a tokenizer.json ({error}); convert the model again") from error
