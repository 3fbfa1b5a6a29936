"""Conditional mixture of experts against the tensors of the authors' own code (tests/reference/uni_perceiver)."""

import pytest
import torch

from generalist.convert.uni_perceiver.expert_keys import moe_settings, moe_state_dict, official_state_dict
from generalist.data.batch.pack import pack
from generalist.data.batch.types import Span
from generalist.nn.experts.usage import ExpertUsage
from generalist.nn.taps import Kept
from generalist.tasks.candidates.likelihood import log_likelihood, logits, negative_log_likelihood, symmetric
from tests.references import UNI_PERCEIVER
from tests.uniperceiver_moe import Reference, interleaved

MIXER, MLP = "encoder.layers.0.mixer", "encoder.layers.0.mlp"
OFFICIAL = {MIXER: "self_attn.qkv_proj", MLP: "linear1"}
CASES = {"img_cls": "img_cls", "vid_cls": "video_cls", "mlm": "text_mlm", "caption": "caption"}


@pytest.fixture(scope="module")
def reference():
    return Reference(UNI_PERCEIVER)


def parts(reference, case):
    inputs = {
        "img_cls": lambda: reference.pictures(reference.x["image"]),
        "vid_cls": lambda: reference.pictures(reference.x["video"]),
        "mlm": reference.masked,
        "caption": reference.captions,
    }[case]()
    return [inputs, reference.names() if "cls" in case else reference.vocabulary()]


def close(value, expected, tolerance):
    error = float((value.detach() - expected).abs().max() / expected.abs().max())
    assert error < tolerance, f"largest error {error:.2e} of the maximum"


def scale(reference, name):
    return reference.weights[f"loss_prepare.logit_scale_{name}"].reshape(1)


@pytest.mark.parametrize("case", CASES)
def test_logits_and_loss_are_the_official_ones(reference, case):
    queries, members = reference.features(parts(reference, case))
    close(logits(queries, members, scale(reference, CASES[case])), reference.y[f"{case}.logits"], 1e-5)
    smoothing, weight = {"img_cls": (0.1, 1.0), "vid_cls": (0.1, 0.1), "mlm": (0, 0.5), "caption": (0, 1.0)}[case]
    target = {"img_cls": "cls_target", "vid_cls": "vid_target", "mlm": "mlm_target", "caption": "caption_target"}[case]
    labels = reference.x[target].flatten()
    log_p = log_likelihood(queries, members, scale(reference, CASES[case]))
    total, count = negative_log_likelihood(log_p, labels[labels != -1], smoothing)
    name = "LabelSmoothing" if smoothing else "CrossEntropy_Loss"
    close(weight * total / count, reference.y[f"{case}.loss.{name}"], 1e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_router_chooses_the_official_experts_with_the_official_weights(reference, case):
    attr = {"img_cls": "image_input", "vid_cls": "image_input", "mlm": "mlm_input", "caption": "caption_input"}[case]
    expected = [reference.y[f"attr.{attr}"], reference.y[f"attr.{'class_names' if 'cls' in case else 'vocab'}"]]
    with ExpertUsage(reference.model) as usage:
        reference.features(parts(reference, case))
    assert usage.rows
    for name, gates in usage.rows.items():
        for call, bits in enumerate(expected):
            head = f"{case}.gate.fused_encoder.layers.0.{OFFICIAL[name]}.gate.call{call}"
            weights = reference.y[f"{head}.weights"]
            found = torch.stack([gates[tuple(row)] for row in bits.long().tolist()]).topk(weights.shape[1])
            assert torch.equal(found.indices, reference.y[f"{head}.experts"])
            close(found.values, weights, 1e-5)


def test_retrieval_is_the_official_one_in_both_directions(reference):
    packed = [
        reference.pictures(reference.x["image"]),
        reference.texts(reference.x["retr_ids"], reference.x["retr_invalid"]),
    ]
    images, texts = reference.features(packed)
    s = scale(reference, "retrieve")
    close(logits(images, texts, s), reference.y["retrieve.logits_i2t"], 1e-5)
    close(logits(texts, images, s), reference.y["retrieve.logits_t2i"], 1e-5)
    total, count = symmetric(log_likelihood(images, texts, s), log_likelihood(texts, images, s), torch.arange(3), 0.1)
    official = reference.y["retrieve.loss.LabelSmoothing_i2t"] + reference.y["retrieve.loss.LabelSmoothing_t2i"]
    close(total / count, official, 1e-5)


def test_captioning_gradients_reach_every_expert_and_router_as_officially(reference):
    for weight in reference.weights.values():
        weight.grad = None
    queries, members = reference.features(parts(reference, "caption"))
    log_p = log_likelihood(queries, members, scale(reference, "caption"))
    target = reference.x["caption_target"].flatten()
    negative_log_likelihood(log_p, target[target != -1])[0].div(14).sum().backward()
    for name, expected in reference.y.items():
        if name.startswith("caption.grad.") and "spe_row" not in name:
            close(reference.weights[name.removeprefix("caption.grad.")].grad, expected, 5e-5)
    close(reference.weights["token_embed.embeddings.weight"].grad[599], reference.y["caption.grad.spe_row"], 5e-5)
    norms = [
        torch.zeros(()) if (g := reference.weights[name].grad) is None else g.norm()
        for name in reference.meta["moe_param_order"]
    ]
    close(torch.stack(norms), reference.y["caption.grad_norms"], 5e-5)


def test_what_every_layer_gives_is_official(reference):
    inputs = reference.captions()
    states = Kept("layers.0", "layers.1")
    with torch.no_grad():
        with reference.load().tapped(states):
            reference.model(inputs)
        hidden = reference.model(reference.vocabulary(), candidate=True)
    close(hidden[reference.vocabulary().first], reference.y["caption.target_spe_hidden"], 1e-5)
    place = torch.cat([torch.arange(10), 10 + interleaved()])  # ours -> the file's
    for layer in (0, 1):
        for i in range(3):
            real = torch.cat([torch.ones(10), 1 - reference.x["caption_invalid"][i][interleaved()]]) == 1
            close(
                states[f"layers.{layer}"][0][inputs.owner == i],
                reference.y[f"caption.layer{layer}_out"][i][place[real]],
                1e-5,
            )


def test_a_block_goes_to_the_official_keys_and_back_without_a_bit_changed(reference):
    head = "fused_encoder.layers.0."
    layer = {k[len(head) :]: v.detach() for k, v in reference.weights.items() if k.startswith(head)}
    ours, dead = moe_state_dict(layer)
    assert ours["mixer.qkv.weight"].shape == (8, 96, 32) and ours["mlp.router.gate.weight"].shape == (8, 32)
    assert set(dead) == {k for k in layer if k.startswith(("self_attn.dense.gate", "linear2.gate"))}
    back = official_state_dict(ours, dead)
    dense = {"gamma_1", "gamma_2", "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"}
    assert set(back) == set(layer) - dense
    assert all(torch.equal(back[k], layer[k]) for k in back)
    assert moe_settings(reference.weights)["mixers"] == ["expert_attention", "attention"]


def test_tokens_before_the_encoder_are_official(reference):
    inputs = reference.captions()
    with torch.no_grad():
        embedded = reference.load().embed(inputs)
    place = torch.cat([torch.arange(10), 10 + interleaved()])
    for i in range(3):
        own = embedded[inputs.owner == i]
        real = torch.cat([torch.ones(10), 1 - reference.x["caption_invalid"][i][interleaved()]]) == 1
        close(own, reference.y["caption.input_sequence"][i][place[real]], 1e-5)
        close(own[1:10], reference.y["caption.patch_embed"][i], 1e-5)


@torch.no_grad()
def test_beam_search_over_the_experts_finds_the_official_captions(reference):
    model = reference.load()
    members = model.features(reference.vocabulary(), candidate=True)
    for i, image in enumerate(reference.x["image"]):
        start = [Span("text", reference.summary().data, 1), reference.frames(image[None])]
        beams, scores, words = [[]], torch.zeros(1), [[]]
        for step in range(6):
            sequences = []
            for beam in beams:  # the words so far, then the SPE that asks for the next and is seen by itself only
                n = torch.arange(len(beam) + 1)
                asks = n == step
                ids = torch.tensor([*beam, 599])
                sequences.append([*start, reference.words(ids, n, causal=~asks, hidden=asks).ask([step])])
            log_p = log_likelihood(model.features(pack(sequences)), members, scale(reference, "caption"))
            total = (scores[:, None] + log_p).flatten()
            scores, best = total.topk(2)
            each = log_p.flatten()[best].tolist()
            words = [[*words[b // 600], value] for b, value in zip(best.tolist(), each, strict=True)]
            beams = [[*beams[b // 600], b % 600] for b in best.tolist()]
        assert beams[0] == reference.y["caption.beam2.ids"][i].tolist()
        close(torch.tensor(words[0]), reference.y["caption.beam2.word_logprobs"][i], 1e-5)
