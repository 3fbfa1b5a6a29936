"""Released Meta-Transformer encoder files become models: names, strictness, CLIP's stem."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention

from generalist.convert.meta_transformer import convert, encoder_name, encoder_tensors, fill_stem
from generalist.data.base.errors import UserError
from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig

CLOSE = {"atol": 4e-6, "rtol": 1e-5}


def encode(encoder, x):
    """[B, n, D] through the packed encoder."""
    b, n, width = x.shape
    layout = pack([[Span("x", {"t": torch.zeros(n)}, n)] for _ in range(b)]).layout
    with torch.no_grad():
        return encoder(x.reshape(b * n, width), At(layout))[0].view(b, n, width)


def test_names_of_released_and_clip_files_are_understood():
    assert encoder_name("3.attn.qkv.bias") == "layers.3.mixer.qkv.bias"
    assert encoder_name("module.blocks.3.mlp.fc2.weight") == "layers.3.mlp.down.weight"
    assert encoder_name("visual.transformer.resblocks.3.attn.in_proj_weight") == "layers.3.mixer.qkv.weight"
    assert encoder_name("visual.transformer.resblocks.3.ln_1.bias") == "layers.3.norm1.bias"
    assert encoder_name("visual.ln_post.weight") is None and encoder_name("pos_embed") is None


def released(shape=(3, 64, 128)):
    """A file with the released names and random weights: layers, width, hidden."""
    n, d, h = shape
    parts = {
        "norm1": (d,),
        "norm2": (d,),
        "attn.qkv": (3 * d, d),
        "attn.proj": (d, d),
        "mlp.fc1": (h, d),
        "mlp.fc2": (d, h),
    }
    out = {}
    for i in range(n):
        for name, size in parts.items():
            out[f"{i}.{name}.weight"] = torch.randn(size) * 0.1
            out[f"{i}.{name}.bias"] = torch.randn(size[0]) * 0.1
    return out


def plain_vit(tensors, x, heads):
    """The blocks written out, batch first."""
    b, n, d = x.shape
    for i in range(3):
        t = {k[len(f"{i}.") :]: v for k, v in tensors.items() if k.startswith(f"{i}.")}
        h = layer_norm(x, (d,), t["norm1.weight"], t["norm1.bias"])
        q, k, v = linear(h, t["attn.qkv.weight"], t["attn.qkv.bias"]).view(b, n, 3, heads, -1).permute(2, 0, 3, 1, 4)
        h = scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d)
        x = x + linear(h, t["attn.proj.weight"], t["attn.proj.bias"])
        h = layer_norm(x, (d,), t["norm2.weight"], t["norm2.bias"])
        x = x + linear(gelu(linear(h, t["mlp.fc1.weight"], t["mlp.fc1.bias"])), t["mlp.fc2.weight"], t["mlp.fc2.bias"])
    return x


def test_a_released_file_becomes_a_model_whose_encoder_is_the_files(tmp_path):
    tensors = released()
    torch.save(tensors, tmp_path / "encoder.pth")
    report = convert(tmp_path / "encoder.pth", tmp_path / "out", heads=2)
    assert report.loaded == 36 and not report.missing and not report.unexpected
    model = GeneralistModel.from_pretrained(tmp_path / "out").eval()
    x = torch.randn(2, 5, 64)
    torch.testing.assert_close(encode(model.encoder, x), plain_vit(tensors, x, 2), **CLOSE)
    assert (tmp_path / "out/conversion.json").is_file()


def test_files_that_are_not_the_encoder_are_refused_by_the_first_tensor_that_is_wrong(tmp_path):
    tensors = released()
    lacking = {k: v for k, v in tensors.items() if k != "1.norm2.bias"}
    save_file(lacking, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"layers\.1\.norm2\.bias"):
        convert(tmp_path / "a.safetensors", tmp_path / "out")
    save_file(tensors | {"2.attn.proj.weight": torch.zeros(3, 5)}, tmp_path / "b.safetensors")
    with pytest.raises(UserError, match="another size"):
        convert(tmp_path / "b.safetensors", tmp_path / "out")
    save_file({"pos_embed": torch.zeros(3)}, tmp_path / "c.safetensors")
    with pytest.raises(UserError, match="no transformer blocks"):
        convert(tmp_path / "c.safetensors", tmp_path / "out")


def test_the_stem_and_blocks_of_a_clip_tower_give_its_image_features(tmp_path):
    """A tiny open_clip tower: patches, class token, positions, pre-norm and blocks, compared before its final norm."""
    import open_clip

    vision = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 16, "mlp_ratio": 2.0}
    text = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
    tower = open_clip.CLIP(embed_dim=32, vision_cfg=vision, text_cfg=text).visual.eval()
    state = tower.state_dict()
    picture = {
        "class": "generalist.tokenizers_mod.vision.video:Picture",
        "size": 32,
        "patch": 8,
        "frames": 1,
        "table": "learned",
    }
    config = GeneralistConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, output_head=False,
        modalities={"summary": {}, "image": picture | {"mean": 0.0, "std": 1.0}},
    )  # fmt: skip
    model = GeneralistModel(config).eval()
    blocks, _ = encoder_tensors({k: v for k, v in state.items() if "resblocks" in k})
    model.encoder.load_state_dict(blocks)
    fill_stem(model, state)
    image = torch.rand(3, 32, 32)
    summary, tokens = model.modalities["summary"], model.modalities["image"]
    packed = pack([[summary.span().ask([0]), tokens.span(image)]])
    seen = {}
    tower.ln_post.register_forward_hook(lambda module, args, out: seen.update(x=args[0]))
    with torch.no_grad():
        found = model.features(packed)
        tower(image[None])
    expected = seen["x"][:, 0] if seen["x"].ndim == 3 else seen["x"]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
