"""A sparse autoencoder of a layer's tokens, with the names and files of sae-lens, so that weights go either way.

    x  = a's LayerNorm without weights          f = relu((x - b_dec) W_enc + b_enc)          x^ = f W_dec + b_dec
    loss = |x - x^|^2 + sparsity |f|_1           rows of W_dec of length one, b_dec begins at the geometric median

From Noise to Narrative (2509.06938): concepts that are active tell how far an input is from the data.
"""

from __future__ import annotations

import json

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import layer_norm, normalize

EXPANSION = 4
SPARSITY = 1.0
LR = 1e-3
STEPS, BATCH = 2000, 512
SETTLED_LR, SETTLED_STEPS = 5e-3, 3000  # at first, then in a straight line to 0: how many are active has settled
WEISZFELD = 20  # rounds of the geometric median


class SparseAutoencoder(nn.Module):
    """W_enc Float[D F], b_enc Float[F], W_dec Float[F D], b_dec Float[D]."""

    def __init__(self, width: int, concepts: int) -> None:
        super().__init__()
        self.W_dec = nn.Parameter(normalize(torch.randn(concepts, width), dim=1))
        self.W_enc = nn.Parameter(self.W_dec.detach().T.clone())
        self.b_enc = nn.Parameter(torch.zeros(concepts))
        self.b_dec = nn.Parameter(torch.zeros(width))

    def encode(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N F"]:
        """How active every concept is in normalised tokens (`normalised`)."""
        return ((x - self.b_dec) @ self.W_enc + self.b_enc).relu()

    def decode(self, f: Float[Tensor, "N F"]) -> Float[Tensor, "N D"]:
        return f @ self.W_dec + self.b_dec

    def loss(self, x: Float[Tensor, "N D"], sparsity: float = SPARSITY) -> Tensor:
        """Mean over tokens."""
        f = self.encode(x)
        return (x - self.decode(f)).square().sum(1).mean() + sparsity * f.abs().sum(1).mean()

    @torch.no_grad()
    def tidy(self) -> None:
        """Rows of the decoder of length one."""
        self.W_dec.copy_(normalize(self.W_dec, dim=1))

    def files(self, hook: str) -> dict[str, bytes]:
        """sae-lens's two files. hook: the name of the tap that the tokens come from."""
        width, concepts = self.W_enc.shape
        about = {
            "architecture": "standard",
            "d_in": width,
            "d_sae": concepts,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": True,
            "normalize_activations": "layer_norm",
            "metadata": {"hook_name": hook},
        }
        weights = {name: value.detach().cpu().contiguous() for name, value in self.named_parameters()}
        return {"sae_weights.safetensors": save(weights), "cfg.json": json.dumps(about, indent=1).encode()}


def normalised(a: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """A layer's tokens as the autoencoder takes them."""
    return layer_norm(a, a.shape[-1:])


@torch.no_grad()
def geometric_median(x: Float[Tensor, "N D"]) -> Float[Tensor, " D"]:
    """The point with the least sum of distances (Weiszfeld)."""
    found = x.mean(0)
    for _ in range(WEISZFELD):
        weight = 1 / (x - found).norm(dim=1).clamp(min=1e-8)
        found = (weight.unsqueeze(1) * x).sum(0) / weight.sum()
    return found


def train(x: Float[Tensor, "N D"], steps: int | None = None, seed: int = 0, settled: bool = False) -> SparseAutoencoder:
    """Learnt from normalised tokens. settled: as far as 6,000 steps at LR come, by a rate that falls to 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sae = SparseAutoencoder(x.shape[1], EXPANSION * x.shape[1]).to(x.device)
    with torch.no_grad():
        sae.b_dec.copy_(geometric_median(x))
    optimizer = torch.optim.Adam(sae.parameters(), lr=LR)
    rng = torch.Generator().manual_seed(seed)
    usual = SETTLED_STEPS if settled else STEPS
    steps = usual if steps is None else steps
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = SETTLED_LR * (1 - step / steps) if settled else LR
        optimizer.zero_grad()
        sae.loss(x[torch.randint(len(x), (min(BATCH, len(x)),), generator=rng).to(x.device)]).backward()
        optimizer.step()
        sae.tidy()
    return sae.eval()
