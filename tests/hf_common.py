"""transformers' own common tests on this model; copied beside those tests (`tests/models/generalist`) to be run there.

One model of texts, pictures and sounds, asked with texts and with pictures; the mixins bring the tests.
"""

import sys
import unittest

import torch
from transformers.testing_utils import require_torch

import generalist  # noqa: F401
from generalist.hf.auto import register
from generalist.hf.heads.classification import (
    GeneralistForAudioClassification,
    GeneralistForImageClassification,
    GeneralistForSequenceClassification,
)
from generalist.hf.heads.masked import GeneralistForMaskedLM
from generalist.hf.model import (
    GeneralistForZeroShotAudioClassification,
    GeneralistForZeroShotImageClassification,
    GeneralistModel,
)
from generalist.hf.pretrained.config import GeneralistConfig

from ...test_configuration_common import ConfigTester
from ...test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor, random_attention_mask

register()
sys.path.insert(0, HERE)  # noqa: F821 - set by the script that copies this file
import clients  # noqa: E402

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}


class Tester:
    """What ModelTesterMixin asks for. The model has all modalities; the inputs of a test are those of one."""

    is_training = False
    batch_size = 5
    hidden_size, num_hidden_layers, num_attention_heads = 24, 2, 3

    def __init__(self, parent, inputs, seq_length):
        self.parent, self.inputs, self.seq_length = parent, inputs, seq_length

    def get_config(self):
        modalities = clients.model_and_processor()[1].modalities
        return GeneralistConfig(modalities={n: modalities[n] for n in ("summary", "text", "image", "audio")}, **SIZES)

    def prepare_config_and_inputs_for_common(self):
        return self.get_config(), self.inputs()


def texts():
    return {"input_ids": ids_tensor([5, 7], 250), "attention_mask": random_attention_mask([5, 7])}


def pictures():
    return {"pixel_values": floats_tensor([5, 3, 12, 12])}


def sounds():
    return {"input_features": floats_tensor([5, 8, 20])}


class Common(ModelTesterMixin):
    test_resize_embeddings = False  # the table belongs to a tokenizer whose vocabulary is part of the configuration
    skip_test_image_features_output_shape = True  # [B, 1 + n, D]: the summary token stands in front
    skip_test_audio_features_output_shape = True

    def setUp(self):
        self.model_tester = Tester(self, self.inputs, self.length)
        self.model_tester.text_model_tester = Tester(self, texts, 8)
        self.model_tester.vision_model_tester = Tester(self, pictures, 10)
        self.model_tester.audio_model_tester = Tester(self, sounds, 3)
        self.config_tester = ConfigTester(self, config_class=GeneralistConfig, has_text_modality=False, **SIZES)

    def test_model_main_input_name(self):
        self.skipTest("forward's first argument is the packed batch; main_input_name is that of padded inputs")

    def test_retain_grad_hidden_states_attentions(self):
        self.skipTest("the hidden states that are shown are views [B, n, D] of the packed ones that carry the gradient")

    def test_get_text_features_output_0(self):
        self.skipTest("asks for as many hidden states as words; the summary token is one more")

    test_get_text_features_output_2 = test_get_text_features_output_0


@require_torch
class TextTest(Common, unittest.TestCase):
    all_model_classes = (GeneralistModel,)
    inputs, length = staticmethod(texts), 8

    def test_config(self):
        self.config_tester.run_common_tests()


@require_torch
class ImageTest(Common, unittest.TestCase):
    all_model_classes = (GeneralistForZeroShotImageClassification,)
    inputs, length = staticmethod(pictures), 10


@require_torch
class SoundTest(Common, unittest.TestCase):
    all_model_classes = (GeneralistForZeroShotAudioClassification,)
    inputs, length = staticmethod(sounds), 3


class HeadTester(Tester):
    """A head has the modality that it reads and the text of its classes, so that training reaches every weight."""

    is_training = True

    def __init__(self, parent, inputs, seq_length, modality):
        super().__init__(parent, inputs, seq_length)
        self.modality = modality

    def get_config(self):
        modalities = clients.model_and_processor()[1].modalities
        chosen = {name: modalities[name] for name in dict.fromkeys(("summary", "text", self.modality))}
        return GeneralistConfig(modalities=chosen, id2label={0: "a red seven", 1: "a blue nine"}, **SIZES)


def not_of_a_head(self):
    self.skipTest(
        "asks for three modalities at once; a head here has the one that it reads and the text of its classes"
    )


def not_of_that_class(self):
    self.skipTest("looks for a layer of transformers' own class; the encoder's blocks compute again by themselves")


class Head(Common):
    modality = "text"
    test_training_gradient_checkpointing = not_of_that_class
    test_training_gradient_checkpointing_use_reentrant_false = not_of_that_class
    test_training_gradient_checkpointing_use_reentrant_true = not_of_that_class

    def setUp(self):
        super().setUp()
        others = {name: value for name, value in vars(self.model_tester).items() if name.endswith("_model_tester")}
        self.model_tester = HeadTester(self, self.inputs, self.length, self.modality)
        vars(self.model_tester).update(others)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if return_labels:
            shape = inputs["input_ids"].shape if model_class is GeneralistForMaskedLM else (5,)
            inputs["labels"] = torch.ones(shape, dtype=torch.long)
        return inputs


for name in dir(Head):
    if name.startswith(("test_get_text_features", "test_get_image_features", "test_get_audio_features")):
        setattr(Head, name, not_of_a_head)


@require_torch
class ImageHeadTest(Head, unittest.TestCase):
    all_model_classes = (GeneralistForImageClassification,)
    inputs, length, modality = staticmethod(pictures), 10, "image"


@require_torch
class SoundHeadTest(Head, unittest.TestCase):
    all_model_classes = (GeneralistForAudioClassification,)
    inputs, length, modality = staticmethod(sounds), 3, "audio"


@require_torch
class TextHeadTest(Head, unittest.TestCase):
    all_model_classes = (GeneralistForSequenceClassification, GeneralistForMaskedLM)
    inputs, length = staticmethod(texts), 8


def not_for_pictures(self):
    self.skipTest("adds attention_mask, which belongs to texts; pictures have pixel_mask")


for kind in (ImageTest, SoundTest, ImageHeadTest, SoundHeadTest):
    for name in dir(kind):
        if name.startswith("test_eager_matches_sdpa_inference") and "no_attn_mask" not in name:
            setattr(kind, name, not_for_pictures)
