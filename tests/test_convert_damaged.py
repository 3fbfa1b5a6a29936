"""Damaged checkpoints of every converter: a true report or one line, never a bare error, never a part lost unsaid."""

import random
import zipfile

import pytest
import torch
from safetensors.torch import load_file

from generalist.cli import main
from generalist.convert import hf, meta_transformer
from generalist.convert.files import load_tensors
from generalist.convert.uni_perceiver import keys
from generalist.convert.uni_perceiver.checkpoint import build, convert
from generalist.data.base.errors import UserError
from generalist.hf.model import GeneralistModel
from tests.test_convert_meta_transformer import released
from tests.test_uni_perceiver_convert import official


def damages(value, rng):
    """One tensor, a dozen ways."""
    yield "dropped", None
    yield "one axis more", value[None]
    yield "flat", value.flatten() if value.ndim != 1 else value[:, None]
    yield "transposed", value.mT.contiguous() if value.ndim > 1 else value.reshape(-1)[:-1]
    yield "shorter", value[: len(value) // 2] if value.ndim else value.expand(2).clone()
    yield "empty", value[:0] if value.ndim else value.new_zeros(0)
    yield "whole numbers", value.long()
    yield "complex", value.to(torch.complex64)
    yield "half", value.half()
    yield "double", value.double()
    broken = value.clone()
    broken.view(-1)[rng.randrange(value.numel())] = float("nan")
    yield "NaN", broken


def family(name):
    """A name without its numbers."""
    return ".".join("#" if part.isdigit() else part for part in name.split("."))


def cases(tensors, rng):
    """(name, damage, damaged tensors): the first and one more name of every family."""
    families = {}
    for name in tensors:
        families.setdefault(family(name), []).append(name)
    for names in families.values():
        for name in {names[0], rng.choice(names)}:
            for damage, value in damages(tensors[name], rng):
                if damage == "transposed" and value.shape == tensors[name].shape:  # a square matrix looks as good
                    continue
                changed = dict(tensors)
                if value is None:
                    del changed[name]
                else:
                    changed[name] = value
                yield name, damage, changed
        yield names[0], "renamed", {(k + "x" if k == names[0] else k): v for k, v in tensors.items()}
    yield "a.b", "extra", tensors | {"a.b": torch.ones(2)}


def told(report):
    """All that a report says besides its counts."""
    return " ".join([*report.missing, *report.unexpected, *report.notes, *report.unused])


SAID = {"half": "float16", "double": "float64", "extra": "a.b"}


def check(make, tensors, seed, count):
    """Of all damages `count`, drawn: each ends in a UserError of one line or in a report that tells of it."""
    rng, errors = random.Random(seed), 0
    for name, damage, changed in rng.sample(list(cases(tensors, rng)), count):
        try:
            report = make(changed)
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) > 10, (name, damage)
            errors += 1
            continue
        assert damage not in ("whole numbers", "complex") or "embeddings_norm" in name, (name, damage)
        if damage in SAID and "embeddings_norm" not in name:  # of the norm under two names the other one is taken
            assert SAID[damage] in told(report), (name, damage)
    assert errors > count // 4


def test_damaged_uni_perceiver_files():
    torch.manual_seed(0)
    check(lambda changed: build(changed, heads=3)[2], official(words=40), 1, 60)


@pytest.mark.parametrize("kind", ["bert", "siglip"])
def test_damaged_hugging_face_folders(tmp_path, kind, monkeypatch):
    import transformers

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
    if kind == "bert":
        config = transformers.BertConfig(vocab_size=40, max_position_embeddings=20, **sizes)
        model = transformers.BertModel(config, add_pooling_layer=False)
    else:
        model = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(image_size=8, patch_size=4, **sizes))
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")

    def make(changed):
        monkeypatch.setattr(hf, "load_folder", lambda _: changed)
        return hf.build(tmp_path)[2]

    check(make, tensors, 4, 40 if kind == "bert" else 12)


def test_a_family_without_its_first_tensor_is_missing_and_not_gone():
    for first in ("gamma_1", "gamma_2"):
        tensors = official()
        del tensors[f"fused_encoder.layers.0.{first}"]
        with pytest.raises(UserError, match=rf"lacks encoder\.layers\.0\.{first.replace('_', '')}"):
            build(tensors, heads=3)
        report = build(tensors, heads=3, lenient=True)[2]
        assert report.missing == [f"encoder.layers.0.{first.replace('_', '')}"]
    tensors = official()
    del tensors[keys.TYPES]
    with pytest.raises(UserError, match="type_row"):
        build(tensors, heads=3)


def test_a_flipped_byte_inside_a_zip_is_found(tmp_path):
    torch.save({"model": official()}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    raw = bytearray((tmp_path / "a.pth").read_bytes())
    raw[largest.header_offset + 400] ^= 1  # behind the member's header, inside its numbers
    (tmp_path / "a.pth").write_bytes(raw)
    with pytest.raises(UserError, match="differs from its checksum; fetch it again"):
        load_tensors(tmp_path / "a.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["back.pth", "back.safetensors"])
def test_a_half_precision_file_comes_back_whole_and_bit_by_bit(tmp_path, dtype, name):
    tensors = {k: v.to(dtype) for k, v in official().items()}
    torch.save({"model": tensors}, tmp_path / "in.pth")
    report = convert(tmp_path / "in.pth", tmp_path / "model", heads=3)
    assert any("the model's float32" in note for note in report.notes)
    assert {v.dtype for v in load_file(tmp_path / "model/unused.safetensors").values()} == {torch.float32}
    convert(tmp_path / "model", tmp_path / name)
    back = load_tensors(tmp_path / name)[0]
    assert set(back) == set(tensors) and all(torch.equal(back[k], v) for k, v in tensors.items())
    model = GeneralistModel.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        model.head.projection.weight.add_(1e-6)  # half precision cannot hold it
    model.save_pretrained(tmp_path / "model")
    report = convert(tmp_path / "model", tmp_path / name)
    back = load_tensors(tmp_path / name)[0]
    assert {v.dtype for v in back.values()} == {torch.float32} and "all numbers are float32" in report.notes


def test_a_folder_is_cleared_of_our_old_model_and_of_no_other(tmp_path):
    torch.save(official(), tmp_path / "in.pth")
    convert(tmp_path / "in.pth", tmp_path / "m", heads=3)
    assert (tmp_path / "m/unused.safetensors").is_file()
    torch.save(released((1, 12, 20)), tmp_path / "meta.pth")
    report = meta_transformer.convert(tmp_path / "meta.pth", tmp_path / "m", heads=2)
    assert not (tmp_path / "m/unused.safetensors").exists()
    assert any("unused.safetensors" in note for note in report.notes)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="of another model, which is not overwritten"):
        convert(tmp_path / "in.pth", tmp_path / "other", heads=3)


@pytest.mark.parametrize(
    "options, said",
    [
        (["--size", "-40"], "--size is -40"),
        (["--size", "5"], "multiple of the patch"),
        (["--heads", "-2"], "--heads is -2"),
        (["--heads", "5"], "use heads="),
        (["--frames", "-1"], "--frames is -1"),
        (["--dialect", "torch"], "--dialect applies on the way back"),
        (["--spatial", "formla"], "did you mean 'formula'"),
        (["--end-id", "9999"], "--end-id"),
        (["--tower", "text"], "--tower does not apply"),
    ],
)
def test_options_that_cannot_be_end_in_one_line(tmp_path, capsys, options, said):
    torch.save(official(), tmp_path / "in.pth")
    heads = [] if "--heads" in options else ["--heads", "3"]
    assert (
        main(["convert", "uni-perceiver", str(tmp_path / "in.pth"), "--out", str(tmp_path / "m"), *heads, *options])
        == 2
    )
    err = capsys.readouterr().err
    assert said in err and len(err.strip().splitlines()) == 1


def test_what_is_guessed_is_said_and_what_cannot_be_is_asked_for(tmp_path, capsys):
    notes = " ".join(build(official())[2].notes)
    assert "4 attention heads assumed for width 12" in notes and "530 words, not the official 49411" in notes
    with pytest.raises(UserError, match="give --heads"):
        build(official(width=10))
    torch.save(released((1, 60, 20)), tmp_path / "in.pth")
    with pytest.raises(UserError, match="width 60; give --heads"):
        meta_transformer.convert(tmp_path / "in.pth", tmp_path / "m")
    torch.save(official(), tmp_path / "in.pth")
    convert(tmp_path / "in.pth", tmp_path / "m", heads=3)
    with pytest.raises(UserError, match="did you mean 'deepspeed'"):
        convert(tmp_path / "m", tmp_path / "x.pth", dialect="deepsped")
    with pytest.raises(UserError, match="a model is a folder"):
        convert(tmp_path / "in.pth", tmp_path / "y.safetensors", heads=3)
    with pytest.raises(UserError, match="does not apply on the way back"):
        convert(tmp_path / "m", tmp_path / "x.pth", heads=3)


def test_a_vocabulary_with_padding_rows_is_the_official_one_and_comes_back():
    tensors = official(words=49411 + 5, layers=1)
    model, processor, report, unused = build(tensors, heads=3)
    assert len(processor.tokenizer) == 49411 and "the rest unused" in " ".join(report.notes)
    from generalist.convert.uni_perceiver.checkpoint import to_official

    assert torch.equal(to_official(model, unused)[keys.ANCHOR], tensors[keys.ANCHOR])


def test_of_two_towers_the_picture_tower_is_taken():
    picture = {f"visual.transformer.resblocks.{k}": v for k, v in released((1, 12, 20)).items()}
    text = {f"transformer.resblocks.{k}": v for k, v in released((1, 12, 20)).items()}
    found, others = meta_transformer.encoder_tensors(text | picture)
    assert torch.equal(found["layers.0.norm1.weight"], picture["visual.transformer.resblocks.0.norm1.weight"])
    assert set(others) == set(text)
