"""transformers' own common tests on this model; copied beside those tests (`tests/models/generalist`) to be run there.

One model of texts, pictures and sounds, asked with texts and with pictures; the mixins bring the tests.
"""

import sys
import unittest

from transformers.testing_utils import require_torch

import generalist  # noqa: F401
from generalist.hf.auto import register
from generalist.hf.model import GeneralistForZeroShotImageClassification, GeneralistModel
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


def not_for_pictures(self):
    self.skipTest("adds attention_mask, which belongs to texts; pictures have pixel_mask")


for name in dir(ImageTest):
    if name.startswith("test_eager_matches_sdpa_inference") and "no_attn_mask" not in name:
        setattr(ImageTest, name, not_for_pictures)
