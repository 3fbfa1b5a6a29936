"""Every tensor of the Meta-Transformer reference, continued: point clouds, sounds and tables.

The files of tests/reference, and of every folder of the same code that lies beside the checkout: sizes are the files'.
"""

import pytest
import torch
from torch.nn.functional import layer_norm, linear

from generalist.tokenizers_mod.audio.fbank import fbank
from generalist.tokenizers_mod.geometry.points import sample_groups
from generalist.tokenizers_mod.published.meta_points import MetaPoints, ProgressiveStage
from generalist.tokenizers_mod.published.meta_transformer import MetaAudio
from generalist.tokenizers_mod.tables.schema import Column, Schema
from generalist.tokenizers_mod.tables.table import Table
from generalist.tokenizers_mod.tables.tokens import FIRST, UNKNOWN
from tests.meta_reference import CLOSE, ENCODED, encode, encoder_of, patches, prefixed, reader, tokens_of
from tests.references import META_TRANSFORMER, folders, label


@pytest.fixture(scope="module", params=folders(META_TRANSFORMER), ids=label)
def folder(request):
    return request.param


@pytest.fixture(scope="module")
def reference(folder):
    return reader(folder)


@pytest.fixture(scope="module")
def encoder(folder):
    return encoder_of(folder)


def norm(weights, prefix, name):
    keys = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return {f"{name}.{key}": weights[f"{prefix}.{key}"] for key in keys}


def flat(weight):
    return weight.flatten(1)


def mini_pointnet(w):
    """The reference's 1 x 1 convolutions as linear maps."""
    return {
        "first.0.weight": flat(w["patch_embed.conv1.0.0.weight"]), **norm(w, "patch_embed.conv1.0.1", "first.1"),
        "first.3.weight": flat(w["patch_embed.conv1.1.0.weight"]), "first.3.bias": w["patch_embed.conv1.1.0.bias"],
        "second.0.weight": flat(w["patch_embed.conv2.0.0.weight"]), **norm(w, "patch_embed.conv2.0.1", "second.1"),
        "second.3.weight": flat(w["patch_embed.conv2.1.0.weight"]), "second.3.bias": w["patch_embed.conv2.1.0.bias"],
        "position.0.weight": w["pos_embed.0.0.weight"], "position.0.bias": w["pos_embed.0.0.bias"],
        "position.2.weight": w["pos_embed.1.weight"], "position.2.bias": w["pos_embed.1.bias"],
    }  # fmt: skip


def test_point_cloud(reference, encoder):
    r = reference("point_cloud")
    weights = prefixed(r, "sd.")
    groups, size = r["mid.grouped_dp"].shape[2:]
    names = ("conv1.0.0", "conv1.1.0", "conv2.0.0")
    points = MetaPoints(groups=groups, size=size, widths=[len(weights[f"patch_embed.{n}.weight"]) for n in names])
    module = points.build(weights["cls_token"].shape[-1]).eval()
    module.load_state_dict(mini_pointnet(weights))
    for which in range(len(r["in.points"])):
        xyz = r["in.points"][which]
        centre, _ = sample_groups(xyz, groups, size)
        assert torch.equal(centre.int(), r["mid.fps_index"][which])
        span = points.span(points.read(xyz))
        torch.testing.assert_close(span.data["center"], r["mid.centers"][which], **CLOSE)
        torch.testing.assert_close(span.data["group"].permute(2, 0, 1), r["mid.grouped_dp"][which], **CLOSE)
        with torch.no_grad():
            tokens = module.groups(span.data["group"])
            position = module.position(span.data["center"])
        torch.testing.assert_close(tokens, r["out.tokens"][which], **CLOSE)
        torch.testing.assert_close(position, r["mid.pos_embed"][which], **CLOSE)
        tokens = torch.cat([weights["cls_token"][0], tokens])[None]
        position = torch.cat([weights["cls_pos"][0], position])[None]
        features = encode(encoder, tokens, each=position)
        features = layer_norm(features, features.shape[2:], weights["norm.weight"], weights["norm.bias"], 1e-6)
        torch.testing.assert_close(features[0], r["out.encoded_normed"][which], **ENCODED)
        pooled = torch.cat([features[0, 0], features[0, 1:].amax(0), features[0, 1:].mean(0)])
        torch.testing.assert_close(pooled, r["out.global_feat_cls_max_avg"][which], **ENCODED)


def stage_weights(w, stage):
    p = f"convs.{stage}"
    return {
        "first.0.weight": flat(w[f"{p}.0.0.0.weight"]), **norm(w, f"{p}.0.0.1", "first.1"),
        "first.3.weight": flat(w[f"{p}.0.1.0.weight"]), "first.3.bias": w[f"{p}.0.1.0.bias"],
        "second.0.weight": flat(w[f"{p}.1.0.0.weight"]), **norm(w, f"{p}.1.0.1", "second.1"),
        "second.3.weight": flat(w[f"{p}.1.1.0.weight"]), **norm(w, f"{p}.1.1.1", "second.4"),
    }  # fmt: skip


def test_progressive_points(reference):
    r = reference("point_cloud")
    weights = prefixed(r, "p3.sd.")
    kernels = [weights[f"convs.{i}.0.0.0.weight"].shape[:2] for i in (0, 1)]
    stages = [ProgressiveStage(columns, width).eval() for width, columns in kernels]
    for i, stage in enumerate(stages):
        stage.load_state_dict(stage_weights(weights, i))
    for which in range(len(r["in.points"])):
        xyz, features = r["in.points"][which], r["p3.in.feats"][which].T
        for i, stage in enumerate(stages):
            with torch.no_grad():
                xyz, features = stage(xyz, features, 4)
            torch.testing.assert_close(xyz, r[f"p3.out.centers{i + 1}"][which], **CLOSE)
            torch.testing.assert_close(features.T, r[f"p3.out.feats{i + 1}"][which], **ENCODED)


def test_audio(reference, encoder):
    r = reference("audio")
    (steps, mels), kernel = r["out.fbank_padded"].shape, list(r["sd.proj.weight"].shape[-2:])
    audio = MetaAudio(mels=mels, steps=steps, patch=kernel)
    wave = r["in.waveform"][0]
    mel = fbank(wave - wave.mean(), 16000, mels)
    torch.testing.assert_close(mel, r["out.fbank"], atol=3e-5, rtol=3e-5)
    padded = torch.nn.functional.pad(mel, (0, 0, 0, steps - len(mel)))
    torch.testing.assert_close(padded, r["out.fbank_padded"], atol=3e-5, rtol=3e-5)
    weights = patches(prefixed(r, "sd.proj.")) | {"pos_embed": r["sd.pos_embed"][0]}
    placed, spans = tokens_of(audio, [(wave.numpy(), 16000)], weights)
    assert spans[0].grid == ((mels - kernel[0]) // 10 + 1, (steps - kernel[1]) // 10 + 1)
    normalised = (padded - audio.mean) / (2 * audio.std)
    torch.testing.assert_close(normalised, r["out.fbank_normalised"], atol=3e-5, rtol=3e-5)
    torch.testing.assert_close(placed - r["sd.pos_embed"], r["out.tokens"], atol=3e-5, rtol=3e-5)
    features = layer_norm(encode(encoder, placed), placed.shape[2:], r["sd.norm.weight"], r["sd.norm.bias"], 1e-6)
    torch.testing.assert_close(features, r["out.encoded_normed"], atol=3e-5, rtol=3e-5)
    pooled = features[:, :2].mean(1)
    torch.testing.assert_close(pooled, r["out.pooled"], atol=3e-5, rtol=3e-5)
    pooled = layer_norm(pooled, pooled.shape[1:], r["sd.head.0.weight"], r["sd.head.0.bias"])
    logits = linear(pooled, r["sd.head.1.weight"], r["sd.head.1.bias"])
    torch.testing.assert_close(logits, r["out.logits"], atol=3e-5, rtol=3e-5)


def test_tabular(reference, encoder):
    r = reference("tabular")
    # codes run on, each column's behind the last one's; 0 = unseen, the house's unknown category
    count, entries = r["out.tokens"].shape[1], len(r["sd.embed.weight"])
    ends = [int(v) for v in r["in.X"][:, : count - 1].amax(0)] + [entries - 1]
    first = [1, *(end + 1 for end in ends[:-1])]
    each = [end + 1 - begin for begin, end in zip(first, ends, strict=True)]
    columns = [Column(f"c{i}", "categorical", categories=[str(k) for k in range(n)]) for i, n in enumerate(each)]
    table = Table(schemas={"t": Schema(columns)})
    module = table.build(r["sd.embed.weight"].shape[1]).eval()
    with torch.no_grad():
        module.column.zero_()
        module.category[FIRST:] = r["sd.embed.weight"][1:]
        module.category[UNKNOWN] = r["sd.embed.weight"][0]
    codes = r["in.X"][:, :count].long().tolist()
    rows = [{f"c{i}": "unseen" if c == 0 else c - first[i] for i, c in enumerate(row)} for row in codes]
    with torch.no_grad():
        tokens = torch.stack([module(table.span(table.read(row)).data) for row in rows])
    torch.testing.assert_close(tokens, r["out.tokens"], **CLOSE)
    encoded = encode(encoder, tokens)
    torch.testing.assert_close(encoded, r["out.encoded"], **ENCODED)
    bn = prefixed(r, "sd.bn.")
    numbers = (r["in.X"][:, count:] - bn["running_mean"]) / (bn["running_var"] + 1e-5).sqrt() * bn["weight"] + bn[
        "bias"
    ]
    joined = torch.cat([encoded.flatten(1), numbers], 1)
    torch.testing.assert_close(joined, r["out.flat"], **ENCODED)
    torch.testing.assert_close(linear(joined, r["sd.head.weight"], r["sd.head.bias"]), r["out.logit"], **ENCODED)
