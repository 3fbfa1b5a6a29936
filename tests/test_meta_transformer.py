"""Every tensor of the Meta-Transformer reference, by the house's tokenizers and encoder.

The files of tests/reference, and of every folder of the same code that lies beside the checkout: sizes are the files'.
"""

import numpy as np
import pytest
import torch
from torch.nn.functional import layer_norm, linear

from generalist.data.batch.at import At
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.tokenizers_mod.geometry.graph import Graph, laplacian_identifiers
from generalist.tokenizers_mod.published.meta_transformer import (
    MetaImage,
    MetaSeries,
    MetaSpectral,
    MetaVideo,
    position_table,
)
from generalist.tokenizers_mod.vision.spectral import pixel_window
from tests.meta_reference import (
    CLOSE,
    ENCODED,
    encode,
    encoder_of,
    patches,
    pictures,
    prefixed,
    reader,
    tokens_of,
)
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


def raw_image(r, kernel, **settings):
    """The tokenizer of pictures as large as the reference's, square or not."""
    (channels, patch), (rows, columns) = kernel.shape[1:3], r["in.image"].shape[-2:]
    grid = [rows // patch, columns // patch]
    image = MetaImage(patch=patch, grid=grid, channels=channels, mean=0.0, std=1.0, **settings)
    image.read = lambda raw: raw
    return image


def test_encoder(reference, encoder):
    r = reference("encoder")
    x = r["in.tokens"]
    b, n, width = x.shape
    torch.testing.assert_close(encode(encoder, x, blocks=1), r["out.block0"], **CLOSE)
    torch.testing.assert_close(encode(encoder, x), r[f"out.block{len(encoder.layers) - 1}"], **ENCODED)
    block, layout = encoder.layers[0], pack([[Span("x", {"t": torch.zeros(n)}, n)] for _ in range(b)]).layout
    flat_x = x.reshape(b * n, width)
    with torch.no_grad():
        normed = block.norm1(flat_x)
        attention = block.mixer(normed, At(layout))
        mlp = block.mlp(block.norm2(flat_x + attention), At(layout))
    for name, value in (("norm1", normed), ("attn", attention), ("mlp", mlp)):
        torch.testing.assert_close(value.view(b, n, width), r[f"mid.block0.{name}"], **CLOSE)


def test_image(reference, encoder):
    r = reference("image")
    image = raw_image(r, r["sd.proj.weight"])
    tokens, _ = tokens_of(image, pictures(r["in.image"]), prefixed(r, "sd.proj."), patches)
    torch.testing.assert_close(tokens, r["out.tokens"], **CLOSE)
    torch.testing.assert_close(encode(encoder, tokens), r["out.encoded"], **ENCODED)


def check_xray(r, encoder):
    """The X-ray model of a file or of another implementation, down to its logits."""
    position = r["sd.pos_embed"][0]
    weights = patches(prefixed(r, "sd.patch_embed.proj.")) | {"pos_embed": position[1:]}
    image = raw_image(r, r["sd.patch_embed.proj.weight"], learned=True)
    tokens, _ = tokens_of(image, pictures(r["in.image"]), weights)
    # the summary's row: class token + first position
    summary = (r["sd.cls_token"][0] + position[:1]).expand(len(tokens), 1, position.shape[1])
    features = encode(encoder, torch.cat([summary, tokens], 1))
    features = layer_norm(features, features.shape[2:], r["sd.norm.weight"], r["sd.norm.bias"], 1e-6)
    torch.testing.assert_close(features, r["out.features"], **ENCODED)
    logits = linear(features[:, 0], r["sd.head.weight"], r["sd.head.bias"])
    torch.testing.assert_close(logits, r["out.logits"], **ENCODED)


def test_xray(reference, encoder):
    check_xray(reference("xray_vit"), encoder)


@pytest.mark.parametrize("high, wide", [(32, 48), (56, 24), (8, 40)])
def test_an_xray_model_whose_table_is_not_square_is_timms(encoder, high, wide):
    """Another implementation of the same model: timm's ViT of pictures of this size."""
    from timm.models.vision_transformer import VisionTransformer

    up = encoder.layers[0].mlp.up.weight
    vit = VisionTransformer(
        img_size=(high, wide), patch_size=8, embed_dim=up.shape[1], depth=len(encoder.layers),
        num_heads=encoder.layers[0].mixer.heads, mlp_ratio=up.shape[0] / up.shape[1], num_classes=2,
    ).eval()  # fmt: skip
    for block, layer in zip(vit.blocks, encoder.layers, strict=True):
        theirs = {"norm1": layer.norm1, "norm2": layer.norm2, "attn.qkv": layer.mixer.qkv}
        theirs |= {"attn.proj": layer.mixer.out, "mlp.fc1": layer.mlp.up, "mlp.fc2": layer.mlp.down}
        block.load_state_dict({f"{n}.{k}": v for n, part in theirs.items() for k, v in part.state_dict().items()})
        block.norm1.eps = block.norm2.eps = layer.norm1.eps
    images = torch.rand(2, 3, high, wide)
    with torch.no_grad():
        for drawn in (vit.pos_embed, vit.cls_token, vit.head.weight, vit.head.bias):
            drawn.copy_(torch.randn_like(drawn))
        r = {"in.image": images, "out.features": vit.forward_features(images), "out.logits": vit(images)}
    r |= {f"sd.{name}": value for name, value in vit.state_dict().items() if not name.startswith("blocks.")}
    check_xray(r, encoder)
    flat_tokens, real = raw_image(r, r["sd.patch_embed.proj.weight"], learned=True).padded({"pixel_values": images})
    assert real is None and torch.equal(flat_tokens["index"].view(2, -1)[1], torch.arange(high * wide // 64))


def test_video(reference, encoder):
    r = reference("video")
    kernel, (frames, high, wide) = r["sd.patch_embed.proj.weight"], r["in.video"].shape[-3:]
    channels, tube, patch = kernel.shape[1:4]
    size = [high, wide]
    video = MetaVideo(size=size, patch=patch, frames=frames, channels=channels, tube=tube, mean=0.0, std=1.0)
    video.read = lambda raw: raw.transpose(0, 1)  # the reference is [C, T, H, W]
    video.frame = lambda value, rng: value
    placed, spans = tokens_of(video, pictures(r["in.video"]), patches(prefixed(r, "sd.patch_embed.proj.")))
    assert spans[0].grid == (frames // tube, high // patch, wide // patch)
    fixed = position_table(torch.arange(placed.shape[1]), placed.shape[2])[None]
    torch.testing.assert_close(fixed, r["const.pos_embed"], **CLOSE)
    torch.testing.assert_close(placed - r["const.pos_embed"], r["out.tokens"], **CLOSE)
    encoded = encode(encoder, placed)
    torch.testing.assert_close(encoded, r["out.encoded_no_k_bias"], **ENCODED)  # a key bias changes no softmax
    pooled = layer_norm(encoded.mean(1), encoded.shape[2:], r["sd.fc_norm.weight"], r["sd.fc_norm.bias"], 1e-5)
    torch.testing.assert_close(pooled, r["out.pooled"], **ENCODED)
    logits = linear(pooled, r["sd.head.weight"], r["sd.head.bias"])
    torch.testing.assert_close(logits, r["out.logits"], **ENCODED)


def test_time_series_and_imu(reference, encoder):
    r = reference("time_series")
    first = next(v for k, v in r.items() if k.startswith("const.pe_first"))
    torch.testing.assert_close(position_table(torch.arange(len(first)), first.shape[1]), first, **CLOSE)
    value = {"value.proj.weight": r["timeF.sd.value_embedding.tokenConv.weight"].flatten(1)}
    series, variables, marks = list(r["in.series"]), r["in.series"].shape[-1], r["in.mark_timeF"].shape[-1]
    tokens, _ = tokens_of(MetaSeries(variables=variables), series, value)
    torch.testing.assert_close(tokens, r["out.tokens_no_mark"], **CLOSE)
    weights = value | {"mark.weight": r["timeF.sd.temporal_embedding.embed.weight"]}
    marked = list(zip(series, r["in.mark_timeF"], strict=True))
    tokens, _ = tokens_of(MetaSeries(variables=variables, marks=marks), marked, weights)
    torch.testing.assert_close(tokens, r["out.tokens_timeF"], **CLOSE)
    torch.testing.assert_close(encode(encoder, tokens), r["out.encoded_timeF"], **ENCODED)
    marked = list(zip(series, r["in.mark_fixed"], strict=True))
    tokens, _ = tokens_of(MetaSeries(variables=variables, calendar=True), marked, value)
    torch.testing.assert_close(tokens, r["out.tokens_fixed"], **CLOSE)
    length, count = r["patch.in"].shape[-1], r["patch.out.tokens"].shape[1]
    patch = r["patch.sd.value_embedding.weight"].shape[1]
    windows = MetaSeries(variables=1, patch=patch, stride=(length - patch) // (count - 2))
    columns = list(r["patch.in"].reshape(-1, length, 1))  # variables folded into the batch, variable fastest
    tokens, _ = tokens_of(windows, columns, {"value.proj.weight": r["patch.sd.value_embedding.weight"]})
    torch.testing.assert_close(tokens, r["patch.out.tokens"], **CLOSE)


def graph_parts(r, which):
    """One graph of the reference as the house reads it: raw categories, edges both ways."""
    nodes, edges = r["in.node_num"].tolist(), r["in.edge_num"].tolist()
    rows = slice(sum(nodes[:which]), sum(nodes[: which + 1]))
    cols = slice(sum(edges[:which]), sum(edges[: which + 1]))
    raw = {
        "nodes": (r["in.node_data"][rows] - 2 - 8 * torch.arange(r["in.node_data"].shape[1])).numpy(),
        "edges": r["in.edge_index"][:, cols].T.numpy(),
        "edge_codes": (r["in.edge_data"][cols] - 2 - 4 * torch.arange(r["in.edge_data"].shape[1])).numpy(),
    }
    return raw, r["in.lap_eigvec"][rows]


def test_graph(reference, encoder):
    r = reference("graph")
    (width, k), nodes, edges = r["sd.lap_encoder.weight"].shape, *(r[f"in.{n}_data"].shape[1] for n in ("node", "edge"))
    graph = Graph(node_columns=[7] * nodes, edge_columns=[3] * edges, identifiers=k // 2, directed=True)
    module = graph.build(width).eval()
    with torch.no_grad():
        module.code.zero_()
        # the reference's tables are shifted by 2: raw category v of column c is row 8 c + v + 2
        middle, last = 1 + 8 * nodes, 1 + 8 * nodes + 4 * edges
        module.code[1:middle] = r["sd.atom_encoder.weight"][2 : 2 + 8 * nodes]
        module.code[middle:last] = r["sd.edge_encoder.weight"][2 : 2 + 4 * edges]
        module.value.weight.zero_()
        module.end.weight.copy_(r["sd.lap_encoder.weight"])
        module.kind.weight[:2] = r["sd.order_encoder.weight"]
    for which in range(len(r["in.node_num"])):
        raw, vectors = graph_parts(r, which)
        value = graph.read(raw)
        n, m = len(value.code), len(value.edge)
        span = graph.span(value)
        # which nodes a token has at its ends, as the reference numbers them
        ends = torch.cat([torch.arange(n).repeat(2, 1).T, torch.from_numpy(value.edge)])
        assert torch.equal(ends, r["out.padded_index"][which, : n + m])
        assert span.data["type"].tolist() == [1] * n + [0] * m
        with torch.no_grad():
            tokens = module(span.data | {"end": vectors[:, : k // 2][ends].flatten(1)})
        special = torch.cat([r["sd.graph_token.weight"], r["sd.null_token.weight"]])
        tokens = torch.cat([special, tokens])
        torch.testing.assert_close(tokens, r["out.tokens"][which, : n + m + 2], **CLOSE)
        assert not r["out.tokens"][which, n + m + 2 :].any()  # padding, which does not exist here
        assert r["out.padding_mask"][which].sum() == r["out.padding_mask"].shape[1] - (n + m + 2)
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
    rows, cols, count = cube.shape
    spectral = MetaSpectral(bands=count, patch=3)
    spectral.minmax(cube)
    scaled = (cube - np.array(spectral.mean)) / np.array(spectral.std)
    np.testing.assert_allclose(scaled, r["mid.cube_minmax"].numpy(), atol=1e-12)
    whole = r["mid.cube_mirror"].numpy()
    for row in range(rows):
        for col in range(cols):
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
    narrow = MetaSpectral(bands=count, patch=1, mean=spectral.mean, std=spectral.std)
    bands = torch.stack([narrow.span(narrow.read((cube, *point))).data["patch"] for point in points])
    torch.testing.assert_close(bands, r["mid.band_tokens_p1_b3"], **CLOSE)
    summary = (r["sd.cls_token"][0] + r["sd.pos_embedding"][0, :1]).expand(len(tokens), 1, -1)
    tokens = torch.cat([summary, tokens], 1)
    torch.testing.assert_close(tokens, r["out.tokens"], **CLOSE)
    first = encode(encoder, tokens)[:, 0]
    first = layer_norm(first, first.shape[1:], r["sd.mlp_head.0.weight"], r["sd.mlp_head.0.bias"])
    logits = linear(first, r["sd.mlp_head.1.weight"], r["sd.mlp_head.1.bias"])
    torch.testing.assert_close(logits, r["out.logits"], **ENCODED)
