"""Every tensor of the Meta-Transformer reference, by the house's tokenizers and encoder."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import layer_norm, linear

from data.pack import pack
from data.types import Span
from generalist.config import GeneralistConfig
from generalist.convert.meta_transformer import encoder_tensors
from generalist.encoder import Encoder
from generalist.parts import equal
from tokenizers_mod.audio import fbank
from tokenizers_mod.graph import Graph, laplacian_identifiers
from tokenizers_mod.meta_transformer import (
    MetaAudio,
    MetaImage,
    MetaPoints,
    MetaSeries,
    MetaSpectral,
    MetaVideo,
    ProgressiveStage,
    position_table,
)
from tokenizers_mod.points import sample_groups
from tokenizers_mod.schema import Column, Schema
from tokenizers_mod.spectral import pixel_window
from tokenizers_mod.table import FIRST, UNKNOWN, Table

CLOSE = {"atol": 2e-6, "rtol": 2e-6}
ENCODED = {"atol": 2e-6, "rtol": 1e-5}  # two blocks of float32 sums in another order


@pytest.fixture(scope="module")
def reference(shared):
    return lambda name: load_file(shared / f"reference/meta_transformer/{name}.safetensors")


@pytest.fixture(scope="module")
def encoder(reference):
    config = GeneralistConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256)
    found = Encoder(config).eval()
    found.load_state_dict(encoder_tensors(prefixed(reference("encoder"), "sd."))[0])
    return found


def prefixed(tensors, prefix):
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def encode(encoder, tokens, blocks=None, each=None):
    """[B, n, 64] through the packed encoder (or `blocks` of it), `each` added before every block."""
    b, n, width = tokens.shape
    layout = pack([[Span("x", {"t": torch.zeros(n)}, n)] for _ in range(b)]).layout
    x = tokens.reshape(b * n, width)
    with torch.no_grad():
        if each is None and blocks is None:
            return encoder(x, layout).view(b, n, width)
        for layer in encoder.layers[: blocks or len(encoder.layers)]:
            x = layer(x if each is None else x + each.reshape(b * n, width), layout, equal(layout))
    return x.view(b, n, width)


def tokens_of(modality, raws, weights, rename=None, strict=True):
    """Raw inputs -> [B, n, 64] with the reference's weights."""
    module = modality.build(64).eval()
    module.load_state_dict(weights if rename is None else rename(weights), strict=strict)
    spans = [modality.span(modality.read(raw)) for raw in raws]
    with torch.no_grad():
        return torch.stack([module(span.data) for span in spans]), spans


def patches(weights):
    """A convolution with kernel = stride as the linear map it is."""
    return {"proj.weight": weights["weight"].flatten(1), "proj.bias": weights["bias"]}


def pictures(tensor):
    """The originals read normalised pixels: undo the 0..1 rule of arrays by going in behind `read`."""
    return list(tensor)


def raw_image(**settings):
    image = MetaImage(size=32, patch=8, mean=0.0, std=1.0, **settings)
    image.read = lambda raw: raw
    return image


def test_encoder(reference, encoder):
    r = reference("encoder")
    x = r["in.tokens"]
    torch.testing.assert_close(encode(encoder, x, blocks=1), r["out.block0"], **CLOSE)
    torch.testing.assert_close(encode(encoder, x), r["out.block1"], **ENCODED)
    block, layout = encoder.layers[0], pack([[Span("x", {"t": torch.zeros(10)}, 10)] for _ in range(2)]).layout
    with torch.no_grad():
        normed = block.norm1(x.view(20, 64))
        attention = block.mixer(normed, layout, equal(layout))
        mlp = block.mlp(block.norm2(x.view(20, 64) + attention))
    for name, value in (("norm1", normed), ("attn", attention), ("mlp", mlp)):
        torch.testing.assert_close(value.view(2, 10, 64), r[f"mid.block0.{name}"], **CLOSE)


def test_image(reference, encoder):
    r = reference("image")
    tokens, _ = tokens_of(raw_image(), pictures(r["in.image"]), prefixed(r, "sd.proj."), patches)
    torch.testing.assert_close(tokens, r["out.tokens"], **CLOSE)
    torch.testing.assert_close(encode(encoder, tokens), r["out.encoded"], **ENCODED)


def test_xray(reference, encoder):
    r = reference("xray_vit")
    position = r["sd.pos_embed"][0]
    weights = patches(prefixed(r, "sd.patch_embed.proj.")) | {"pos_embed": position[1:]}
    tokens, _ = tokens_of(raw_image(learned=True), pictures(r["in.image"]), weights)
    summary = (r["sd.cls_token"][0] + position[:1]).expand(2, 1, 64)  # the summary's row: class token + first position
    features = encode(encoder, torch.cat([summary, tokens], 1))
    features = layer_norm(features, (64,), r["sd.norm.weight"], r["sd.norm.bias"], 1e-6)
    torch.testing.assert_close(features, r["out.features"], **ENCODED)
    logits = linear(features[:, 0], r["sd.head.weight"], r["sd.head.bias"])
    torch.testing.assert_close(logits, r["out.logits"], **ENCODED)


def test_video(reference, encoder):
    r = reference("video")
    video = MetaVideo(size=32, patch=8, frames=8, mean=0.0, std=1.0)
    video.read = lambda raw: raw.transpose(0, 1)  # the reference is [C, T, H, W]
    video.frame = lambda value, rng: value
    placed, spans = tokens_of(video, pictures(r["in.video"]), patches(prefixed(r, "sd.patch_embed.proj.")))
    assert spans[0].grid == (4, 4, 4)
    torch.testing.assert_close(position_table(torch.arange(64), 64)[None], r["const.pos_embed"], **CLOSE)
    torch.testing.assert_close(placed - r["const.pos_embed"], r["out.tokens"], **CLOSE)
    encoded = encode(encoder, placed)
    torch.testing.assert_close(encoded, r["out.encoded_no_k_bias"], **ENCODED)  # a key bias changes no softmax
    pooled = layer_norm(encoded.mean(1), (64,), r["sd.fc_norm.weight"], r["sd.fc_norm.bias"], 1e-5)
    torch.testing.assert_close(pooled, r["out.pooled"], **ENCODED)
    logits = linear(pooled, r["sd.head.weight"], r["sd.head.bias"])
    torch.testing.assert_close(logits, r["out.logits"], **ENCODED)


def test_time_series_and_imu(reference, encoder):
    r = reference("time_series")
    torch.testing.assert_close(position_table(torch.arange(24), 64), r["const.pe_first_24_rows"], **CLOSE)
    value = {"value.proj.weight": r["timeF.sd.value_embedding.tokenConv.weight"].flatten(1)}
    series = list(r["in.series"])
    tokens, _ = tokens_of(MetaSeries(), series, value)
    torch.testing.assert_close(tokens, r["out.tokens_no_mark"], **CLOSE)
    weights = value | {"mark.weight": r["timeF.sd.temporal_embedding.embed.weight"]}
    marked = list(zip(series, r["in.mark_timeF"], strict=True))
    tokens, _ = tokens_of(MetaSeries(marks=4), marked, weights)
    torch.testing.assert_close(tokens, r["out.tokens_timeF"], **CLOSE)
    torch.testing.assert_close(encode(encoder, tokens), r["out.encoded_timeF"], **ENCODED)
    marked = list(zip(series, r["in.mark_fixed"], strict=True))
    tokens, _ = tokens_of(MetaSeries(calendar=True), marked, value)
    torch.testing.assert_close(tokens, r["out.tokens_fixed"], **CLOSE)
    windows = MetaSeries(variables=1, patch=8, stride=4)
    columns = list(r["patch.in"].reshape(14, 24, 1))  # variables folded into the batch, variable fastest
    tokens, _ = tokens_of(windows, columns, {"value.proj.weight": r["patch.sd.value_embedding.weight"]})
    torch.testing.assert_close(tokens, r["patch.out.tokens"], **CLOSE)


def graph_parts(r, which):
    """One graph of the reference as the house reads it: raw categories, edges both ways."""
    nodes, edges = r["in.node_num"].tolist(), r["in.edge_num"].tolist()
    rows = slice(sum(nodes[:which]), sum(nodes[: which + 1]))
    cols = slice(sum(edges[:which]), sum(edges[: which + 1]))
    raw = {
        "nodes": (r["in.node_data"][rows] - 2 - 8 * torch.arange(3)).numpy(),
        "edges": r["in.edge_index"][:, cols].T.numpy(),
        "edge_codes": (r["in.edge_data"][cols] - 2 - 4 * torch.arange(2)).numpy(),
    }
    return raw, r["in.lap_eigvec"][rows]


def test_graph(reference, encoder):
    r = reference("graph")
    graph = Graph(node_columns=[7] * 3, edge_columns=[3] * 2, identifiers=4, directed=True)
    module = graph.build(64).eval()
    with torch.no_grad():
        module.code.zero_()
        # the reference's tables are shifted by 2: raw category v of column c is row 8 c + v + 2
        module.code[1:25] = r["sd.atom_encoder.weight"][2:26]
        module.code[25:33] = r["sd.edge_encoder.weight"][2:10]
        module.value.weight.zero_()
        module.end.weight.copy_(r["sd.lap_encoder.weight"])
        module.kind.weight[:2] = r["sd.order_encoder.weight"]
    for which in (0, 1):
        raw, vectors = graph_parts(r, which)
        value = graph.read(raw)
        n, m = len(value.code), len(value.edge)
        span = graph.span(value)
        # which nodes a token has at its ends, as the reference numbers them
        ends = torch.cat([torch.arange(n).repeat(2, 1).T, torch.from_numpy(value.edge)])
        assert torch.equal(ends, r["out.padded_index"][which, : n + m])
        assert span.data["type"].tolist() == [1] * n + [0] * m
        with torch.no_grad():
            tokens = module(span.data | {"end": vectors[:, :4][ends].flatten(1)})
        special = torch.cat([r["sd.graph_token.weight"], r["sd.null_token.weight"]])
        tokens = torch.cat([special, tokens])
        torch.testing.assert_close(tokens, r["out.tokens"][which, : n + m + 2], **CLOSE)
        assert not r["out.tokens"][which, n + m + 2 :].any()  # padding, which does not exist here
        assert r["out.padding_mask"][which].sum() == 19 - (n + m + 2)
        expected = r[f"out.encoded_graph{which}_unpadded"]
        torch.testing.assert_close(encode(encoder, tokens[None]), expected, **ENCODED)
        # identifiers: same eigenspaces, whatever the sign and the basis inside an equal eigenvalue
        found = laplacian_identifiers(value.edge, n, n)
        adjacency = np.zeros((n, n))
        adjacency[value.edge[:, 0], value.edge[:, 1]] = 1
        assert (adjacency == r[f"lap.adj{which}"].numpy()).all()
        root = 1 / np.sqrt(adjacency.sum(1).clip(1))
        laplacian = np.eye(n) - root[:, None] * adjacency * root
        eigenvalues = r[f"lap.eigval{which}"].numpy()
        np.testing.assert_allclose(np.diag(found.T @ laplacian @ found), eigenvalues, atol=2e-6)
        theirs = r[f"lap.eigvec{which}"].numpy()
        np.testing.assert_allclose(vectors.numpy()[:, :n], theirs[:, : vectors.shape[1]], atol=2e-6)
        for value_ in np.unique(eigenvalues.round(4)):
            same = np.abs(eigenvalues - value_) < 1e-3
            ours, other = found[:, same] @ found[:, same].T, theirs[:, same] @ theirs[:, same].T
            np.testing.assert_allclose(ours, other, atol=1e-5)


def test_hyperspectral(reference, encoder):
    r = reference("hyperspectral")
    cube, points = r["in.cube"].numpy(), r["in.points"].tolist()
    spectral = MetaSpectral(bands=10, patch=3)
    spectral.minmax(cube)
    scaled = (cube - np.array(spectral.mean)) / np.array(spectral.std)
    np.testing.assert_allclose(scaled, r["mid.cube_minmax"].numpy(), atol=1e-12)
    mirror = np.block(
        [[[pixel_window(scaled, row, col, 3)] for col in (1, 4)] for row in (1, 4)]
    )  # two corners suffice
    assert mirror.shape[-1] == 10
    whole = r["mid.cube_mirror"].numpy()
    for row in range(6):
        for col in range(5):
            window = pixel_window(scaled, row, col, 3)
            np.testing.assert_allclose(window, whole[row : row + 3, col : col + 3], atol=1e-12)
    weights = {
        "proj.weight": r["sd.patch_to_embedding.weight"],
        "proj.bias": r["sd.patch_to_embedding.bias"],
        "pos_embed": r["sd.pos_embedding"][0, 1:],
    }
    tokens, spans = tokens_of(spectral, [(cube, *point) for point in points], weights)
    bands = torch.stack([span.data["patch"] for span in spans])
    torch.testing.assert_close(bands, r["mid.band_tokens_p3_b3"], **CLOSE)
    narrow = MetaSpectral(bands=10, patch=1, mean=spectral.mean, std=spectral.std)
    bands = torch.stack([narrow.span(narrow.read((cube, *point))).data["patch"] for point in points])
    torch.testing.assert_close(bands, r["mid.band_tokens_p1_b3"], **CLOSE)
    summary = (r["sd.cls_token"][0] + r["sd.pos_embedding"][0, :1]).expand(4, 1, 64)
    tokens = torch.cat([summary, tokens], 1)
    torch.testing.assert_close(tokens, r["out.tokens"], **CLOSE)
    first = layer_norm(encode(encoder, tokens)[:, 0], (64,), r["sd.mlp_head.0.weight"], r["sd.mlp_head.0.bias"])
    logits = linear(first, r["sd.mlp_head.1.weight"], r["sd.mlp_head.1.bias"])
    torch.testing.assert_close(logits, r["out.logits"], **ENCODED)


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
    points = MetaPoints(groups=16, size=8, widths=[16, 24, 32])
    module = points.build(64).eval()
    module.load_state_dict(mini_pointnet(weights))
    for which in (0, 1):
        xyz = r["in.points"][which]
        centre, _ = sample_groups(xyz, 16, 8)
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
        features = layer_norm(features, (64,), weights["norm.weight"], weights["norm.bias"], 1e-6)
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
    stages = [ProgressiveStage(7, 32).eval(), ProgressiveStage(35, 64).eval()]
    for i, stage in enumerate(stages):
        stage.load_state_dict(stage_weights(weights, i))
    for which in (0, 1):
        xyz, features = r["in.points"][which], r["p3.in.feats"][which].T
        for i, stage in enumerate(stages):
            with torch.no_grad():
                xyz, features = stage(xyz, features, 4)
            torch.testing.assert_close(xyz, r[f"p3.out.centers{i + 1}"][which], **CLOSE)
            torch.testing.assert_close(features.T, r[f"p3.out.feats{i + 1}"][which], **ENCODED)


def test_audio(reference, encoder):
    r = reference("audio")
    audio = MetaAudio(mels=64, steps=64)
    wave = r["in.waveform"][0]
    mel = fbank(wave - wave.mean(), 16000, 64)
    torch.testing.assert_close(mel, r["out.fbank"], atol=3e-5, rtol=3e-5)
    padded = torch.nn.functional.pad(mel, (0, 0, 0, 16))
    torch.testing.assert_close(padded, r["out.fbank_padded"], atol=3e-5, rtol=3e-5)
    weights = patches(prefixed(r, "sd.proj.")) | {"pos_embed": r["sd.pos_embed"][0]}
    placed, spans = tokens_of(audio, [(wave.numpy(), 16000)], weights)
    assert spans[0].grid == (4, 4)
    normalised = (padded - audio.mean) / (2 * audio.std)
    torch.testing.assert_close(normalised, r["out.fbank_normalised"], atol=3e-5, rtol=3e-5)
    torch.testing.assert_close(placed - r["sd.pos_embed"], r["out.tokens"], atol=3e-5, rtol=3e-5)
    features = layer_norm(encode(encoder, placed), (64,), r["sd.norm.weight"], r["sd.norm.bias"], 1e-6)
    torch.testing.assert_close(features, r["out.encoded_normed"], atol=3e-5, rtol=3e-5)
    pooled = features[:, :2].mean(1)
    torch.testing.assert_close(pooled, r["out.pooled"], atol=3e-5, rtol=3e-5)
    pooled = layer_norm(pooled, (64,), r["sd.head.0.weight"], r["sd.head.0.bias"])
    logits = linear(pooled, r["sd.head.1.weight"], r["sd.head.1.bias"])
    torch.testing.assert_close(logits, r["out.logits"], atol=3e-5, rtol=3e-5)


def test_tabular(reference, encoder):
    r = reference("tabular")
    # codes run on: 1-4, 5-7, 8-13; 0 = unseen, the house's unknown category
    sizes, first = (4, 3, 6), (1, 5, 8)
    columns = [Column(f"c{i}", "categorical", categories=[str(k) for k in range(n)]) for i, n in enumerate(sizes)]
    table = Table(schemas={"t": Schema(columns)})
    module = table.build(64).eval()
    with torch.no_grad():
        module.column.zero_()
        module.category[FIRST:] = r["sd.embed.weight"][1:]
        module.category[UNKNOWN] = r["sd.embed.weight"][0]
    codes = r["in.X"][:, :3].long().tolist()
    rows = [{f"c{i}": "unseen" if c == 0 else c - first[i] for i, c in enumerate(row)} for row in codes]
    with torch.no_grad():
        tokens = torch.stack([module(table.span(table.read(row)).data) for row in rows])
    torch.testing.assert_close(tokens, r["out.tokens"], **CLOSE)
    encoded = encode(encoder, tokens)
    torch.testing.assert_close(encoded, r["out.encoded"], **ENCODED)
    bn = prefixed(r, "sd.bn.")
    numbers = (r["in.X"][:, 3:] - bn["running_mean"]) / (bn["running_var"] + 1e-5).sqrt() * bn["weight"] + bn["bias"]
    joined = torch.cat([encoded.flatten(1), numbers], 1)
    torch.testing.assert_close(joined, r["out.flat"], **ENCODED)
    torch.testing.assert_close(linear(joined, r["sd.head.weight"], r["sd.head.bias"]), r["out.logit"], **ENCODED)
