"""Encoders by their shape: one wide layer holds what many narrow ones do, one layer comes near a map of sequences."""

import torch
from torch import nn

from generalist.nn.attention.padded import padded_at
from generalist.nn.encoder import Encoder
from generalist.recipe.encoder import EncoderSpec


def test_heads_moved_from_layers_into_one_layer_keep_the_matrices_of_attention():
    """Wide Attention Is The Way Forward (2210.00640), from the paper's description: layers x heads stays."""
    counted = {}
    for layers, heads in ((6, 8), (3, 16), (2, 24), (1, 48)):
        with torch.device("meta"):
            made = Encoder(EncoderSpec(width=64, layers=layers, heads=heads, head_dim=8, hidden=128))
        weights = [
            sum(p.numel() for n, p in made.named_parameters() if part in n and n.endswith("weight"))
            for part in ("mixer.", "mlp.")
        ]
        counted[layers] = weights
    assert {attention for attention, _ in counted.values()} == {4 * 64 * 48 * 8}
    assert all(mlp == layers * 2 * 64 * 128 for layers, (_, mlp) in counted.items())


class Sequences(nn.Module):
    """One layer from Float[B n 2] to Float[B n], with or without learned positions."""

    def __init__(self, width, positions):
        super().__init__()
        self.up, self.down = nn.Linear(2, width), nn.Linear(width, 1)
        self.place = nn.Parameter(torch.randn(6, width) * positions, requires_grad=bool(positions))
        self.encoder = Encoder(
            EncoderSpec(width=width, layers=1, heads=width // 4, hidden=4 * width, activation="relu")
        )

    def forward(self, x):
        x = self.up(x) + self.place
        return self.down(self.encoder(x.flatten(0, 1), padded_at(x, None))[0].view(x.shape)).squeeze(-1)


def target(x):
    """y_i = sin(3 mean x) + x_i x_(i + 1): it depends on the order."""
    return torch.sin(3 * x.mean((1, 2)))[:, None] + x[..., 0] * x[..., 1].roll(-1, 1)


@torch.no_grad()
def fitted(width):
    """The mean and the largest error of a layer of this width: drawn, its last linear solved by least squares."""
    torch.manual_seed(0)
    made = Sequences(width, 0.7)
    block = made.encoder.layers[0]
    block.mixer.qkv.weight.mul_(3)  # so that tokens look at others in different ways

    def features(x):
        tokens = made.up(x) + made.place
        at, tokens = padded_at(tokens, None), tokens.flatten(0, 1)
        tokens = tokens + block.mixer(block.norm1(tokens), at.inside("mixer"))
        inner = block.mlp.activation(block.mlp.up(block.norm2(tokens)))
        return torch.cat([inner, tokens, torch.ones(len(tokens), 1)], dim=1).double()

    seen, unseen = torch.rand(1500, 6, 2), torch.rand(2000, 6, 2)
    given = features(seen)
    ridge = 1e-6 * len(given) * torch.eye(given.shape[1], dtype=torch.float64)
    solved = torch.linalg.solve(given.T @ given + ridge, given.T @ target(seen).flatten().double())
    error = (features(unseen) @ solved - target(unseen).flatten()).abs()
    return float(error.mean()), float(error.max())


def test_one_layer_comes_nearer_to_a_map_of_sequences_as_it_grows_wider():
    """What the universal approximation theorem of single-layer transformers says, seen on one map.

    Measured, three seeds: mean error .131 to .137, .085 to .091 and .043 to .044 at widths 8, 32 and 128; the largest
    .67 to .76, .54 to .61 and .27 to .44."""
    mean, largest = zip(*(fitted(width) for width in (8, 32, 128)), strict=True)
    assert mean[0] > 1.25 * mean[1] > 1.25**2 * mean[2] and mean[0] > 2.4 * mean[2]
    assert largest[0] > 1.3 * largest[2]


@torch.no_grad()
def test_without_positions_a_layer_cannot_tell_an_order_and_with_them_it_can():
    torch.manual_seed(0)
    x, order = torch.rand(3, 6, 2), torch.randperm(6)
    blind, seeing = Sequences(16, 0), Sequences(16, 1.0)
    torch.testing.assert_close(blind(x[:, order]), blind(x)[:, order], atol=1e-6, rtol=1e-5)
    assert (seeing(x[:, order]) - seeing(x)[:, order]).abs().max() > 1e-2
    assert (target(x[:, order]) - target(x)[:, order]).abs().max() > 1e-2  # so the blind one cannot fit it
