"""Frozen encoders: what trains is counted whole, weights come from a folder, the control is a run without them."""

import numpy as np
import pytest
import torch

from data.embedded import Embedded
from data.errors import UserError
from generalist.freeze import trainable
from generalist.optimizer import parameter_groups
from generalist.prepare import prepare
from generalist.recipe import ModelSpec, Recipe
from tasks.classify import Classify
from tokenizers_mod.summary import Summary
from tokenizers_mod.table import Table
from tokenizers_mod.text import Text


def recipe(**model):
    return Recipe(
        name="t",
        about="t",
        steps=2,
        modalities={"summary": Summary(), "text": Text(tokenizer="", learn=300, max_length=16), "table": Table()},
        tasks=[Classify(name="wine", source=Embedded("wine"), inputs={"table": "row"}, batch=8)],
        model=ModelSpec(width=8, layers=2, heads=2, hidden=12, **model),
    )


def built(**model):
    made = recipe(**model)
    return prepare(made).model(made)


def test_a_frozen_encoder_gets_no_gradient_and_is_not_counted_but_everything_else_is():
    model = built(freeze="encoder")
    encoder = sum(p.numel() for p in model.encoder.parameters())
    assert trainable(model) == sum(p.numel() for p in model.parameters()) - encoder
    inside = {id(p) for group in parameter_groups(model, 0.1) for p in group["params"]}
    assert not inside & {id(p) for p in model.encoder.parameters()}
    assert {id(p) for p in model.tokenizers.parameters()} <= inside
    assert trainable(built()) == sum(p.numel() for p in model.parameters())


def test_the_encoder_comes_from_a_folder_and_its_control_does_not(tmp_path):
    source = built()
    with torch.no_grad():
        for p in source.encoder.parameters():
            p.add_(0.5)
    source.save_pretrained(tmp_path)
    taken = built(encoder_from=str(tmp_path), freeze="encoder")
    control = built(encoder_from=str(tmp_path), freeze="encoder", random_encoder=True)
    for (name, a), b, c in zip(
        source.encoder.state_dict().items(),
        taken.encoder.state_dict().values(),
        control.encoder.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(a, b), name
        np.testing.assert_allclose(a - c, 0.5, atol=1e-6)  # the same draw as the source before it was moved
    assert trainable(taken) == trainable(control)


def test_what_does_not_fit_is_named(tmp_path):
    built().save_pretrained(tmp_path)
    small = recipe(encoder_from=str(tmp_path))
    small.model.hidden = 16
    with pytest.raises(UserError, match=r"layers\.0\.mlp\.up\.weight.*model\.width"):
        prepare(small).model(small)
    with pytest.raises(UserError, match="not a model folder"):
        built(encoder_from="nowhere")
    wrong = recipe(freeze="everything")
    with pytest.raises(UserError, match=r"model\.freeze='everything'"):
        prepare(wrong)
