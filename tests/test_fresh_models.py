"""A model starts as the specification says, and what a file lacks is initialised, not left as it lay in memory."""

import torch
from safetensors.torch import load_file, save_file

from generalist.hf.model import GeneralistModel
from tests.test_initialisation import WIDTH, bound, fresh


def test_a_built_model_starts_with_xavier_matrices_and_no_biases():
    model = fresh()
    block = model.encoder.layers[0]
    for linear, rows in ((block.mixer.qkv, WIDTH), (block.mlp.up, 3 * WIDTH), (model.head.projection, WIDTH)):
        assert 0.98 * bound(rows, WIDTH) < float(linear.weight.detach().abs().max()) <= bound(rows, WIDTH)
        assert not linear.bias.any()


def test_what_a_file_lacks_is_initialised_and_what_it_holds_is_kept(tmp_path):
    model = fresh()
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    gone = ["encoder.layers.0.mlp.up.weight", "log_scales.default"]
    for name in gone:
        del stored[name]
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    torch.manual_seed(1)
    again = GeneralistModel.from_pretrained(tmp_path).state_dict()
    assert float(again[gone[0]].abs().max()) <= bound(3 * WIDTH, WIDTH)
    assert torch.equal(again[gone[1]], model.log_scales["default"].detach())
    changed = [k for k, v in model.state_dict().items() if not torch.equal(v, again[k])]
    assert changed == gone[:1]
