"""The initialisation of the encoder's linears: Xavier by matrix, stacked matrices each on its own."""

from typing import ClassVar

import torch

from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.nn.mixers.attention import Attention
from generalist.tokenizers_mod.text.summary import Summary

WIDTH = 60


def fresh(hidden: int = 3 * WIDTH) -> GeneralistModel:
    torch.manual_seed(0)
    config = GeneralistConfig(
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=3,
        intermediate_size=hidden,
        modalities={"summary": Summary().settings()},
        scales=["default"],
    )
    return GeneralistModel(config)


def bound(rows: int, columns: int) -> float:
    """The largest weight that Xavier's uniform draw gives (spec 1.12)."""
    return (6 / (rows + columns)) ** 0.5


def test_a_feed_forward_matrix_three_times_as_wide_as_the_model_is_one_matrix_and_qkv_are_three():
    model = fresh()
    block = model.encoder.layers[0]
    assert block.mixer.qkv.weight.shape == block.mlp.up.weight.shape == (3 * WIDTH, WIDTH)
    for linear, rows in ((block.mixer.qkv, WIDTH), (block.mlp.up, 3 * WIDTH)):
        assert 0.98 * bound(rows, WIDTH) < float(linear.weight.detach().abs().max()) <= bound(rows, WIDTH)
        assert not linear.bias.any()


def test_a_mixer_says_which_of_its_linears_are_stacked():
    model = fresh()
    block = model.encoder.layers[0]
    assert list(block.mixer.matrices()) == [(block.mixer.qkv.weight, 3), (block.mixer.out.weight, 1)]
    assert list(block.mlp.matrices()) == [(block.mlp.up.weight, 1), (block.mlp.down.weight, 1)]

    class TwoInOne(Attention):
        stacked: ClassVar[dict[str, int]] = {"qkv": 3, "out": 2}

    assert [count for _, count in TwoInOne(6, 2).matrices()] == [3, 2]
