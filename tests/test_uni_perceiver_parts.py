"""Prompts, word-by-word decoding and video tokens: the parts of Uni-Perceiver on their own."""

import math

import numpy as np
import pytest
import torch

from generalist.data.base.errors import UserError
from generalist.data.batch.pack import pack
from generalist.hf.model import GeneralistModel
from generalist.hf.pretrained.config import GeneralistConfig
from generalist.model.decode import Decoded, decode, vocabulary_features
from generalist.nn.prompts import prompt_tuning
from generalist.recipes.uni_perceiver import modalities
from generalist.tasks.candidates.likelihood import log_likelihood
from generalist.tokenizers_mod.base.modalities import build_modalities, modality_settings
from generalist.tokenizers_mod.text.bpe import train_bpe
from generalist.tokenizers_mod.text.text import Text
from generalist.tokenizers_mod.vision.augment import seeded
from generalist.tokenizers_mod.vision.films.frames import spatial_table
from generalist.tokenizers_mod.vision.video import Picture, Video


def small(**more) -> GeneralistModel:
    text = Text(
        tokenizer=train_bpe(["a dog", "two cats"], 262).to_str(), max_length=9, positions=9, **more.pop("text", {})
    )
    chosen = {k: v for k, v in modalities(32, text, strong=False).items() if k in ("summary", "text", "image", "video")}
    config = GeneralistConfig(
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=20,
        layer_scale=0.5,
        modalities=modality_settings(chosen),
        scales=["default", "caption"],
        **more,
    )
    model = GeneralistModel(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return model


def pictures(model: GeneralistModel, frames: tuple[int, ...] = (1, 3, 1, 2)) -> list:
    """Sequences of different lengths, so that the cache is ragged."""
    video = model.modalities["video"]
    summary = model.modalities["summary"]
    return [[summary.span(None), video.patches(torch.randn(n, 3, 32, 32))] for n in frames]


def greedy_without_cache(model: GeneralistModel, sequence: list, members: torch.Tensor, steps: int) -> list[int]:
    text, ids = model.modalities["text"], []
    while len(ids) < steps and (not ids or ids[-1] != text.eot):
        features = model.features(pack([[*sequence, text.next_span(ids)]]))
        ids.append(int(model.score(features, members, "caption").argmax()))
    return ids


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"prompts": 2},
        {"moe_placement": "odd", "moe_experts": 3},
        {"moe_placement": "all", "moe_router": "token"},
        {"moe_placement": "all", "moe_router": "context"},
    ],
    ids=["dense", "prompts", "attribute experts", "token experts", "context experts"],
)
@torch.no_grad()
def test_writing_with_kept_keys_and_values_equals_encoding_everything_anew(more):
    model = small(**more)
    text, summary = model.modalities["text"], model.modalities["summary"]
    members = vocabulary_features(model, text, summary)
    inputs = pictures(model)
    found = decode(model, inputs, text, members, "caption", beam=1, steps=5)
    for i, sequence in enumerate(inputs):
        expected = greedy_without_cache(model, sequence, members, 5)
        assert found.ids[i, 0, : len(expected)].tolist() == expected
    full = pack([[*s, text.next_span(found.ids[i, 0, :2].tolist())] for i, s in enumerate(inputs)])
    log_p = model.score(model.features(full), members, "caption")
    third = found.ids[:, 0, 2]
    going = (found.ids[:, 0, :2] != text.eot).all(1)
    expected = log_p.gather(1, third.unsqueeze(1)).squeeze(1)[going]
    torch.testing.assert_close(found.log_p[:, 0, 2][going], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_wide_beam_finds_the_best_of_all_short_answers():
    model = small()
    text, summary = model.modalities["text"], model.modalities["summary"]
    members = vocabulary_features(model, text, summary)
    inputs = pictures(model, (1,))
    found = decode(model, inputs, text, members, "caption", beam=len(members), steps=2)
    first = model.score(model.features(pack([[*inputs[0], text.next_span([])]])), members, "caption")[0]
    best = -math.inf
    for word in range(len(members)):
        if word == text.eot:
            best = max(best, float(first[word]))
            continue
        then = model.score(model.features(pack([[*inputs[0], text.next_span([word])]])), members, "caption")[0]
        best = max(best, float(first[word] + then.max()))
    assert float(found.score[0, 0]) == pytest.approx(best, abs=1e-4)
    assert (found.score[0].diff() <= 0).all()


@torch.no_grad()
def test_sampling_follows_the_likelihood_and_is_seeded():
    model = small()
    text, summary = model.modalities["text"], model.modalities["summary"]
    members = vocabulary_features(model, text, summary)
    inputs = pictures(model, (1,))

    def draw(seed: int, **more) -> Decoded:
        generator = torch.Generator().manual_seed(seed)
        return decode(
            model, inputs, text, members, "caption", beam=200, steps=1, sample=True, generator=generator, **more
        )

    assert torch.equal(draw(3).ids, draw(3).ids) and not torch.equal(draw(3).ids, draw(4).ids)
    p = model.score(model.features(pack([[*inputs[0], text.next_span([])]])), members, "caption")[0].exp()
    counts = torch.bincount(torch.cat([draw(s).ids.flatten() for s in range(20)]), minlength=len(members)) / 4000
    assert float((counts - p).abs().sum()) / 2 < 0.12  # total variation; 4000 draws over 262 words
    assert set(draw(1, top_k=2).ids.flatten().tolist()) <= set(p.topk(2).indices.tolist())
    assert draw(1, top_p=1e-6).ids.unique().tolist() == [int(p.argmax())]
    with pytest.raises(UserError, match="steps 10 exceed"):
        decode(model, inputs, text, members, "caption", steps=10)
    with pytest.raises(UserError, match="beam is 0"):
        decode(model, inputs, text, members, "caption", beam=0)


def test_prompt_tuning_trains_prompts_bias_norms_and_heads_only():
    model = small(prompts=4, separate_prompts=True, text={"spe_bias": True}, linear_heads={"caption": 5})
    trained = prompt_tuning(model)
    assert trained.counts == {
        "deep prompts": 2 * 3 * 4 * 24,
        "summary bias": 24,
        "linear head": 5 * 24 + 5 + 1,
        "layer norms": (3 * 2 + 2) * 2 * 24,
    }
    assert trained.total == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert not model.log_scales["caption"].requires_grad and not model.encoder.layers[0].gamma1.requires_grad
    with pytest.raises(UserError, match=r"model\.prompts=10"):
        prompt_tuning(small())


def test_the_base_model_has_the_published_numbers_of_prompt_parameters():
    from generalist.recipes.uni_perceiver import released_config

    config = released_config(768, 12, 12, 3072)
    config.prompts, config.separate_prompts = 10, True
    config.modalities["text"]["spe_bias"] = True
    config.linear_heads = {"img_cls": 1000}
    with torch.device("meta"):
        counts = prompt_tuning(GeneralistModel(config)).counts
    assert counts["deep prompts"] == 184_320 and counts["summary bias"] == 768
    assert counts["linear head"] == 768 * 1000 + 1000 + 1
    # 41,472 in the published count, which holds the shared embedding norm twice
    assert counts["layer norms"] == 41_472 - 2 * 768


@torch.no_grad()
def test_separate_prompts_change_candidates_and_shared_ones_change_both():
    model = small(prompts=2, separate_prompts=True)
    packed = pack([[model.modalities["summary"].span(None).ask([0]), model.modalities["text"].span("a dog")]])
    assert not torch.allclose(model.features(packed), model.features(packed, candidate=True))
    before = model.features(packed), model.features(packed, candidate=True)
    model.prompts.candidate_vectors.add_(torch.randn(2, 24))
    assert torch.equal(model.features(packed), before[0])
    assert not torch.allclose(model.features(packed, candidate=True), before[1])
    shared = small(prompts=2)
    assert torch.equal(shared.features(packed), shared.features(packed, candidate=True))


@torch.no_grad()
def test_a_fresh_linear_head_changes_nothing_and_refuses_other_classes():
    model = small(linear_heads={"caption": 3})
    for p in model.linear_heads.parameters():
        p.fill_(0.0)
    model.linear_heads["caption"].alpha.fill_(1.0)
    q, c = torch.randn(2, 24), torch.randn(3, 24)
    torch.testing.assert_close(model.score(q, c, "caption"), log_likelihood(q, c, model.log_scale("caption")))
    with pytest.raises(UserError, match="linear head has 3 classes, 5 candidates"):
        model.score(q, torch.randn(5, 24), "caption")


# --- video ---


def test_patches_run_frame_by_frame_and_row_by_row_as_a_convolution_would():
    video = Video(size=6, patch=2, frames=4, channels=2)
    clip = torch.randn(3, 2, 6, 6)
    span = video.patches(clip)
    tokens = video.build(8)
    conv = torch.nn.Conv2d(2, 8, 2, stride=2)
    with torch.no_grad():
        conv.weight.copy_(tokens.projection.weight.view(8, 2, 2, 2))
        conv.bias.copy_(tokens.projection.bias)
        places = tokens.temporal.weight[:3].repeat_interleave(9, 0) + tokens.spatial.repeat(3, 1)
        expected = conv(clip).flatten(2).transpose(1, 2).reshape(27, 8) + places
        torch.testing.assert_close(tokens(span.data), expected)
    assert span.grid == (3, 3, 3)


def test_the_temporal_offset_is_random_in_training_only_and_stays_in_the_table():
    video = Video(size=4, patch=2, frames=5)
    starts = {
        int(video.patches(torch.rand(2, 3, 4, 4), torch.Generator().manual_seed(s)).data["place"][0, 0])
        for s in range(60)
    }
    assert starts == {0, 1, 2, 3}
    assert video.patches(torch.rand(2, 3, 4, 4)).data["place"][:, 0].tolist() == [0] * 4 + [1] * 4
    with pytest.raises(UserError, match="6 frames, the model takes 5"):
        video.patches(torch.rand(6, 3, 4, 4))


def test_the_spatial_table_is_rows_then_columns():
    table = spatial_table(3, 8, 0.5)
    r, c, w = 0.5, 1.0, torch.tensor([1.0, 0.01])
    expected = torch.cat([(r * w).sin(), (r * w).cos(), (c * w).sin(), (c * w).cos()])
    torch.testing.assert_close(table[1 * 3 + 2], expected)


@pytest.mark.parametrize(
    "raw, frames",
    [
        (np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8), 1),
        (np.random.default_rng(0).integers(0, 255, (7, 40, 50, 3), dtype=np.uint8), 5),
        (np.random.default_rng(0).random((4, 3, 40, 50), dtype=np.float32), 4),
        (np.random.default_rng(0).random((6, 40, 50), dtype=np.float32), 5),
        ([np.zeros((40, 50, 3), dtype=np.uint8)] * 2, 2),
    ],
)
def test_pictures_and_clips_of_every_form_become_tokens(raw, frames):
    video = Video(size=32, patch=16, frames=5)
    span = video.span(video.read(raw))
    assert span.length == 4 * frames and span.data["patch"].shape == (4 * frames, 3 * 256)


def test_clips_that_cannot_be_read_end_in_one_line(tmp_path):
    video = Video(size=32, patch=16)
    for raw, said in (
        (np.zeros((0, 8, 8, 3)), "no frame"),
        (np.full((2, 8, 8, 3), np.nan), "NaN"),
        ([np.zeros((8, 8, 3)), np.zeros((8, 9, 3))], "differ in size"),
    ):
        with pytest.raises(UserError, match=said):
            video.read(raw)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"cannot be decoded|need PyAV"):
        video.read(tmp_path / "broken.mp4")
    with pytest.raises(UserError, match="multiple of patch"):
        Video(size=30, patch=16)


def test_two_ways_of_preparing_share_one_set_of_weights():
    settings = {
        "image": Picture(size=4, patch=2).settings() | {"class": "generalist.tokenizers_mod.vision.video:Picture"}
    }
    settings["video"] = Video(size=4, patch=2, shares="image").settings()
    built = build_modalities(settings)
    clip = torch.rand(2, 3, 4, 4)
    assert built["video"].span(clip).modality == "image" == built["image"].span(clip[0]).modality
    assert not list(built["video"].build(8).parameters())


@pytest.mark.parametrize("augment", ["crop", "strong"])
def test_augmentation_is_a_function_of_the_generator_and_treats_all_frames_alike(augment):
    video = Video(size=32, patch=16, augment=augment)
    clip = torch.rand(1, 3, 40, 50).expand(3, -1, -1, -1)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    frames = [video.frame(clip, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(state, torch.get_rng_state())
    assert frames[0].shape == (3, 3, 32, 32)
    assert torch.equal(frames[0], frames[1]) and not torch.equal(frames[0], frames[2])
    if augment == "crop":
        assert torch.equal(frames[0][0], frames[0][1])
    with seeded(torch.Generator().manual_seed(1)):
        torch.rand(3)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("rows, columns, patch", [(3, 5, 8), (5, 2, 4), (1, 6, 8)])
@torch.no_grad()
def test_a_picture_that_is_not_square_is_embedded_by_the_official_formula(rows, columns, patch):
    from torch.nn.functional import conv2d

    high, wide, width = rows * patch, columns * patch, 12
    kernel, bias = torch.randn(width, 3, patch, patch), torch.randn(width)
    pictures, scale = torch.randn(2, 3, high, wide), 160 / max(high, wide)
    table = torch.zeros(rows * columns, width)
    for r in range(rows):
        for c in range(columns):
            for k in range(3):
                for part, (place, f) in enumerate(((r, math.sin), (r, math.cos), (c, math.sin), (c, math.cos))):
                    table[r * columns + c, 3 * part + k] = f(place * scale * 10000 ** (-k / 3))
    for taken in (Picture(size=[high, wide], patch=patch), Picture(size=patch * rows * columns, patch=patch)):
        tokens = taken.build(width)
        tokens.projection.weight.copy_(kernel.flatten(1))
        tokens.projection.bias.copy_(bias)
        own = table if taken.grid == (rows, columns) else tokens.spatial[: rows * columns]  # patch k at row k
        expected = conv2d(pictures, kernel, bias, stride=patch).flatten(2).transpose(1, 2) + own
        expected = expected + tokens.temporal.weight[0]
        for picture, wanted in zip(pictures, expected, strict=True):
            span = taken.patches(picture[None])
            assert span.grid == (rows, columns) and span.length == rows * columns
            torch.testing.assert_close(tokens(span.data), wanted, atol=1e-5, rtol=1e-5)
        flat, real = taken.padded({"pixel_values": pictures})
        assert real is None
        torch.testing.assert_close(tokens(flat).view(2, -1, width), expected, atol=1e-5, rtol=1e-5)
        place = taken.padded_place({"pixel_values": pictures}, None)
        assert place.shape == (2, rows * columns, 4) and place[1, -1].tolist() == [rows - 1, columns - 1, rows, columns]


def test_pictures_that_no_table_has_places_for_are_refused_in_one_line():
    picture = Picture(size=[24, 40], patch=8)
    for high, wide in ((24, 44), (32, 40), (4, 8)):
        with pytest.raises(UserError, match=rf"{high} x {wide} pixels, the model takes 24 x 40.* 15 at most"):
            picture.patches(torch.rand(1, 3, high, wide))
    for size in ([24], [24, 0], [24, 41], [8, 8, 8]):
        with pytest.raises(UserError, match="size"):
            Picture(size=size, patch=8)


@pytest.mark.parametrize("more", [{}, {"augment": "crop"}, {"augment": "strong"}, {"clips": 2, "crops": 3}])
def test_raw_pictures_of_any_shape_are_cut_to_frames_that_are_not_square(more):
    video = Video(size=[16, 40], patch=8, frames=4, short_side=1.25, **more)
    for clip in (torch.rand(3, 3, 50, 30), torch.rand(2, 3, 9, 90)):
        for rng in (None, torch.Generator().manual_seed(1)):
            assert video.frame(clip, rng).shape[-2:] == (16, 40)
    for view in range(video.views):
        video.view = view
        assert video.shown(torch.rand(4, 3, 20, 30)).shape[-2:] == (16, 40)
