"""Modalities by the short names of the table: in settings, on the command line, and what is said of a wrong one."""

import pytest

from generalist.data.base.errors import UserError
from generalist.recipe.keys import override
from generalist.tokenizers_mod.base.modalities import MODALITIES, build_modalities, modality_class, modality_settings
from generalist.tokenizers_mod.pretrained.backbone import Backbone
from generalist.tokenizers_mod.pretrained.text import PretrainedText
from tests.tiny import tiny

SMALL = ["modalities.image.backbone=test_convnext", "modalities.image.size=64"]


def test_a_class_is_named_by_the_table_in_settings_and_saved_by_its_path():
    made = build_modalities({"picture": {"class": "backbone", "backbone": "test_convnext", "size": 64}})
    assert type(made["picture"]) is Backbone and made["picture"].name == "picture"
    saved = modality_settings(made)
    assert saved["picture"]["class"] == MODALITIES["backbone"]
    assert modality_settings(build_modalities(saved)) == saved
    assert modality_class("pretrained_text") is modality_class("text", "pretrained_text") is PretrainedText


def test_the_command_line_exchanges_a_modality_with_the_settings_beside_it():
    recipe = tiny()
    override(recipe, *SMALL[::-1], "modalities.image.class=backbone", "steps=7", "modalities.image.frozen=yes")
    image = recipe.modalities["image"]
    assert type(image) is Backbone and (image.backbone, image.size, image.frozen) == ("test_convnext", 64, True)
    assert image.name == "image" and recipe.steps == 7
    override(recipe, "modalities.image.size=32")  # and goes on as any other
    assert image.size == 32
    network = 'modalities.extra.backbone={"model_type": "vit"}'
    override(recipe, "modalities.extra.class=backbone", network, "modalities.extra.size=[64, 32]")
    assert recipe.modalities["extra"].backbone == {"model_type": "vit"} and recipe.modalities["extra"].size == [64, 32]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["modalities.image.class=bakbone"], "no class 'bakbone'; did you mean 'backbone'"),
        (["modalities.image.class=backbone"], "give backbone="),
        (
            ["modalities.image.class=backbone", *SMALL, "modalities.image.frozn=1"],
            "mean 'modalities.image.froz",
        ),
        (["modalities.image.class=backbone", "modalities.image.size=x"], "this key takes"),
        (["modalities.image.class=os:system"], "is not a Modality class|cannot be imported|no 'system'"),
    ],
)
def test_a_wrong_class_or_setting_is_one_line(keys, said):
    with pytest.raises(UserError, match=said) as caught:
        override(tiny(), *keys)
    assert "\n" not in str(caught.value)
