"""transformers' own common tests on the processors; copied beside those tests to be run there (`test_clients_common`).

Three mixins: the processor of the model folder, its image processor, its feature extractor.
"""

import inspect
import sys
import unittest

import generalist  # noqa: F401
from generalist.hf.auto import register
from generalist.hf.processor import GeneralistProcessor
from generalist.hf.processors import GeneralistFeatureExtractor, GeneralistImageProcessor

from ...test_feature_extraction_common import FeatureExtractionSavingTestMixin
from ...test_image_processing_common import ImageProcessingTester, ImageProcessingTestMixin
from ...test_processing_common import ProcessorTesterMixin

register()
sys.path.insert(0, HERE)  # noqa: F821 - set by the script that copies this file
import clients  # noqa: E402

PICTURES = {"image": {"size": 24, "patch": 6, "channels": 3}}
SOUNDS = {"audio": {"rate": 8000, "mels": 20, "patch": [20, 4], "stride": [20, 4]}}


class Pictures(ImageProcessingTester):
    """Pictures keep their shape: the longer side becomes 24 pixels, the other whole patches of 6."""

    def _get_image_processing_classes(self):
        return {"pil": GeneralistImageProcessor}

    def prepare_image_processor_dict(self):
        return {"modality": PICTURES}

    def expected_output_image_shape(self, images):
        built = GeneralistImageProcessor(modality=PICTURES).built
        shapes = [built.fitted(built.read(image)).shape for image in images]
        return 3, max(s[1] for s in shapes), max(s[2] for s in shapes)


class ImageProcessorTest(ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = Pictures
    test_cast_dtype = True

    def test_new_models_require_torchvision_backend(self):
        self.skipTest("one code, without torchvision, serves both backends")


class FeatureExtractorTest(FeatureExtractionSavingTestMixin, unittest.TestCase):
    feature_extraction_class = GeneralistFeatureExtractor
    feat_extract_dict = {"audio": SOUNDS}  # noqa: RUF012 - the mixin reads it so


class ProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = GeneralistProcessor

    @classmethod
    def _setup_tokenizer(cls):
        return clients.model_and_processor()[1].tokenizer

    @staticmethod
    def prepare_processor_dict():
        modalities = clients.model_and_processor()[1].modalities
        return {"modalities": {name: modalities[name] for name in ("summary", "text", "image")}}

    def prepare_images_inputs(self, batch_size=None):
        """Of unequal sizes, so that there is a mask."""
        return [clients.picture(20, 30), clients.picture(12, 40)]

    def test_init_arguments_not_in_class_attributes(self):
        """transformers' own looks for defaults that stand in the class; a property (`tasks`) is none."""
        found = [vars(kind) for kind in type(self).processor_class.__mro__]
        for name in inspect.signature(type(self).processor_class.__init__).parameters:
            default = next((values[name] for values in found if name in values), None)
            self.assertTrue(default is None or isinstance(default, property), name)
