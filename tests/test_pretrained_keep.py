"""A frozen text encoder that remembers what it has encoded."""

import pytest
import torch

from generalist.data.base.errors import UserError
from generalist.tokenizers_mod.text.pretrained_text import PretrainedText
from tests.roberta import roberta

WORDS = ["a", "cat", "dog", "street", "red", "the", "sat", "on", "car", "person"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    return roberta(tmp_path_factory.mktemp("roberta"), WORDS)


def text(encoder: str, **settings) -> PretrainedText:
    return PretrainedText(encoder=encoder, max_length=16, positions=16, **settings)


def test_a_frozen_encoder_that_keeps_texts_says_the_same_whatever_came_before(encoder):
    modality = text(encoder, frozen=True, remember=2)
    module, plain = modality.build(24).eval(), text(encoder, frozen=True).build(24).eval()
    plain.load_state_dict(module.state_dict())
    texts = ["a cat sat on the street", "dog", "the red car", "dog", "a cat sat on the street"]
    spans = [modality.span(t) for t in texts]
    data = {k: torch.cat([s.data[k] for s in spans]) for k in ("ids", "position")}
    torch.testing.assert_close(module(data), plain(data), atol=1e-5, rtol=1e-4)
    assert len(module.kept) == 2  # the two met last
    assert torch.equal(module(data), module(data))
    weights = {k: v + 0.1 if "encoder" in k else v for k, v in module.state_dict().items()}
    module.load_state_dict(weights)
    plain.load_state_dict(weights)
    torch.testing.assert_close(module(data), plain(data), atol=1e-5, rtol=1e-4)  # nothing stale
    assert module.double()(data).dtype == torch.float64
    with pytest.raises(UserError, match="frozen"):
        text(encoder, remember=2)
