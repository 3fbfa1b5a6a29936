"""The tables of a text's tokens: the device half of `generalist.tokenizers_mod.text.text`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from generalist.tokenizers_mod.base.tokenizer import Tokenizer

NO_POSITION = -1


class TextTokens(Tokenizer):
    """Tok[id] + Pos[p] + Type[0], without a norm; Tok[id] alone where p is -1.

    stds: of the words and of the positions at the start.
    """

    def __init__(
        self,
        vocabulary: int,
        positions: int,
        width: int,
        type_row: bool,
        stds: tuple[float, float],
        spe: int | None = None,
        spe_bias: bool = False,
    ) -> None:
        super().__init__()
        self.spe = spe
        self.spe_bias = nn.Parameter(torch.zeros(1, width)) if spe_bias else None  # or put on later with a prompt file
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(positions, width)
        self.type_row = nn.Embedding(1, width) if type_row else None
        for table, std in ((self.token, stds[0]), (self.position, stds[1]), (self.type_row, stds[1])):
            if table is not None:
                nn.init.normal_(table.weight, std=std)

    def table(self) -> nn.Embedding:
        return self.token

    def set_table(self, table: nn.Embedding) -> None:
        self.token = table

    def forward(self, data: dict[str, Tensor]) -> Tensor:
        """{'ids': Int[N], 'position': Int[N]} -> Float[N, width]."""
        place = self.position(data["position"].clamp(min=0))
        if self.type_row is not None:
            place = place + self.type_row(torch.zeros(1, dtype=torch.long, device=place.device))
        placed = (data["position"] != NO_POSITION).unsqueeze(-1)
        words = self.token(data["ids"])
        if self.spe is not None and self.spe_bias is not None:
            words = words + data["ids"].eq(self.spe).unsqueeze(-1) * self.spe_bias
        return words + torch.where(placed, place, 0.0)
