"""Candidates over ranks: two gloo processes give what one gives with the whole batch, and the official numbers."""

import ddp_worker
import pytest
import torch
from safetensors.torch import load_file

from generalist.nn.mixers.table import CHANNEL_MIXERS, TOKEN_MIXERS
from generalist.scripts.parity_files import Tensors, entries
from tests import two_ranks
from tests.references import UNI_PERCEIVER, folders, label

FOLDERS = [folder for folder in folders(UNI_PERCEIVER) if any(folder.glob("*two_ranks.safetensors"))]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes found."""
    out = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(two_ranks.work, (out, FOLDERS), nprocs=2)
    return [torch.load(out / f"rank{r}.pt", weights_only=True) for r in (0, 1)]


@pytest.fixture(scope="module", params=FOLDERS, ids=label)
def folder(request):
    return request.param


@pytest.fixture(scope="module")
def official(folder):
    return {k[2:]: v for k, v in load_file(next(folder.glob("*two_ranks.safetensors"))).items()}


@pytest.fixture(scope="module")
def tensors(folder):
    """The model and the inputs that the file of two processes is of."""
    return Tensors.read(folder, entries(folder)[two_ranks.dense(folder)])


def close(value, expected, tolerance):
    error = float((value - expected).abs().max() / expected.abs().max())
    assert error < tolerance, f"largest error {error:.2e} of the maximum"


def same_as_one(parts, whole):
    """Losses and gradients of the ranks add up to those of the whole batch."""
    assert torch.allclose(parts[0]["loss"] + parts[1]["loss"], whole["loss"], rtol=1e-6)
    assert set(whole["grads"]) == set(parts[0]["grads"]) == set(parts[1]["grads"])
    largest = max(float(g.abs().max()) for g in whole["grads"].values())
    for name, expected in whole["grads"].items():
        found = parts[0]["grads"][name] + parts[1]["grads"][name]
        assert float((found - expected).abs().max()) < 5e-5 * largest, name
    assert largest > 1e-3


def test_gathered_negatives_make_two_ranks_one_batch(ranks):
    objective, modalities = two_ranks.made({})
    same_as_one([r["gathered"] for r in ranks], two_ranks.result(objective, two_ranks.retrieval(modalities, slice(6))))


def test_local_negatives_make_each_rank_a_batch_of_its_own(ranks):
    for rank, rows in enumerate((slice(3), slice(3, 6))):
        objective, modalities = two_ranks.made({})
        alone = two_ranks.result(objective, two_ranks.retrieval(modalities, rows))
        assert torch.allclose(ranks[rank]["local"]["loss"], alone["loss"], rtol=1e-6)


@pytest.mark.parametrize("name", [*TOKEN_MIXERS, *CHANNEL_MIXERS])
def test_every_mixer_makes_two_ranks_one_batch(ranks, name):
    objective, modalities = two_ranks.of_mixer(name)
    same_as_one(
        [r["mixers"][name] for r in ranks], two_ranks.result(objective, two_ranks.pictures(modalities, slice(5)))
    )


@pytest.mark.parametrize("shard", ["always", "never"])
def test_shared_candidates_make_two_ranks_one_batch_split_or_not(ranks, shard):
    objective, modalities = two_ranks.made({})
    whole = two_ranks.result(objective, two_ranks.choosing(modalities, slice(5)))
    same_as_one([r[shard] for r in ranks], whole)


def test_each_rank_encodes_half_of_a_split_set(ranks):
    # 35 members are 18 a rank, the last of them a filler; the questions are 2 and 3
    assert [r["always"]["encoded"] for r in ranks] == [[2 + 18], [3 + 18]]
    assert [r["never"]["encoded"] for r in ranks] == [[2 + 35], [3 + 35]]


def test_a_kept_encoding_is_made_in_shares_too(ranks):
    for rank in ranks:
        assert all(torch.allclose(loss, rank["always"]["loss"], rtol=1e-6) for loss in rank["cached"])


@pytest.mark.parametrize("how", ["gathered", "constant", "exact", "cached"])
def test_two_ranks_are_taught_as_one_is(ranks, how):
    objective, modalities = two_ranks.made({})
    pairs = how in ("gathered", "constant")
    batch = two_ranks.retrieval(modalities, slice(6)) if pairs else two_ranks.choosing(modalities, slice(5))
    law = two_ranks.result(objective, batch)
    whole = two_ranks.result(two_ranks.taught(objective), batch)
    assert float(whole["loss"]) > float(law["loss"]) + 0.01
    parts = [r["taught"][how] for r in ranks]
    if how != "constant":  # whose gradients stay on their rank
        same_as_one(parts, whole)
    assert torch.allclose(parts[0]["loss"] + parts[1]["loss"], whole["loss"], rtol=1e-6)


def test_a_small_set_is_not_split_unless_asked(ranks):
    assert [r["auto"] for r in ranks] == [False, False]


def test_ranks_at_different_tasks_cannot_wait_for_each_other(ranks):
    for rank in ranks:
        assert "shard=always needs sampling=unmixed" in rank["mixed"][0]
        assert "candidates.pairs.negatives=local" in rank["mixed"][1]


@pytest.mark.parametrize("rank", [0, 1])
def test_constant_negatives_are_the_official_ones(ranks, official, folder, tensors, rank):
    found, head = ranks[rank]["official"][str(folder)]["gather"], f"gather.rank{rank}."
    close(found["logits"], official[head + "logits_i2t"], 1e-5)
    loss = official[head + "loss.LabelSmoothing_i2t"] + official[head + "loss.LabelSmoothing_t2i"]
    close(found["loss"], loss, 1e-5)
    for end, logits in (("i2t", found["logits"]), ("t2i", found["logits"].T)):
        assert float(right(logits, torch.arange(len(logits)))) == official[f"{head}loss.Accuracy_{end}"]
    official_gradients(found, official, tensors, head)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_split_set_is_the_official_one(ranks, official, folder, tensors, rank):
    found, head = ranks[rank]["official"][str(folder)]["shard"], f"shard.rank{rank}."
    close(found["logits"], official[head + "logits"], 1e-5)
    close(found["loss"], official[head + "loss.CrossEntropy_Loss"], 1e-5)
    target = tensors.x["mlm_target"][rank]
    assert float(right(found["logits"], target[target >= 0])) == official[head + "loss.Accuracy"]
    official_gradients(found, official, tensors, head, apart=HEAD)


def test_the_output_heads_gradient_over_a_split_set_is_officially_the_same_in_sum(ranks, official, folder):
    ranks = [rank["official"][str(folder)] for rank in ranks]
    # officially each rank puts every member through the head, here its own share: the sum over ranks is one
    name = "loss_prepare.ln_post.weight"
    expected = sum(official[f"shard.rank{r}.grad.{name}"] for r in (0, 1))
    close(sum(r["shard"]["grads"][name] for r in ranks), expected, 5e-5)
    for name in ranks[0]["shard"]["grads"]:
        if name.startswith(HEAD):
            ours = sum(r["shard"]["grads"][name] for r in ranks)
            close(ours, sum(r["head_after"]["grads"][name] for r in ranks), 5e-5)


@pytest.mark.parametrize("rank", [0, 1])
def test_gathered_before_the_head_every_ranks_gradients_are_the_official_ones(ranks, official, folder, tensors, rank):
    found, head = ranks[rank]["official"][str(folder)]["head_after"], f"shard.rank{rank}."
    close(found["logits"], official[head + "logits"], 1e-5)
    close(found["loss"], official[head + "loss.CrossEntropy_Loss"], 1e-5)
    official_gradients(found, official, tensors, head)  # all norms, those of the head among them


def test_every_tensor_of_the_two_rank_file_is_compared(official):
    known = {"gather": GATHER, "shard": SHARD}
    expected = {f"{kind}.rank{r}.{name}" for kind, names in known.items() for r in (0, 1) for name in names}
    assert set(official) == expected
    assert all(float(official[name]) == 0 for name in official if name.endswith("null_loss"))


HEAD = ("loss_prepare.ln_post", "loss_prepare.proj")
GAMMA, NORM = "grad.fused_encoder.layers.0.gamma_1", "grad.token_embed.embeddings_norm.weight"
POSITIONS = "grad.token_embed.embeddings_pos.position_embeddings.weight"
# what `official_negatives` reads and the two tests above compare, and what `official_shares` is compared with
GATHER = (
    *("image", "caption_ids", "caption_invalid"),
    *("logits_i2t", "loss.LabelSmoothing_i2t", "loss.LabelSmoothing_t2i", "loss.Accuracy_i2t", "loss.Accuracy_t2i"),
    *(GAMMA, NORM, "grad.loss_prepare.ln_post.weight", "grad.loss_prepare.logit_scale_retrieve", "grad_norms"),
    "loss.null_loss",
)
SHARD = (
    *("logits", "loss.CrossEntropy_Loss", "loss.Accuracy"),
    *(GAMMA, POSITIONS, "grad.loss_prepare.ln_post.weight", "grad_norms"),
    "loss.null_loss",
)


def right(logits, target):
    return (logits.argmax(-1) == target).float().mean()


def official_gradients(found, official, tensors, head, apart=("none",)):
    compared = 0
    for name, expected in official.items():
        if name.startswith(head + "grad.") and not name.removeprefix(head + "grad.").startswith(apart):
            close(found["grads"][name.removeprefix(head + "grad.")], expected, 5e-5)
            compared += 1
    assert compared >= 2
    names = tensors.meta["dense_param_order"]
    kept = [i for i, name in enumerate(names) if not name.startswith(apart)]
    norms = torch.stack([found["grads"][names[i]].norm() for i in kept])
    close(norms, official[head + "grad_norms"][kept], 5e-5)


def test_one_modality_a_step_under_ddp_has_the_gradients_of_one_process(ranks):
    expected = ddp_worker.gradients(*ddp_worker.head(), range(6))
    used = {name for name, grad in expected.items() if bool(grad.any())}
    assert any("image" in name for name in used) and not any("points" in name for name in used)
    for rank in ranks:
        found = rank["ddp"]
        assert used <= found.keys() and not [name for name in found if "points" in name]  # what had no part learns not
        for name in used:
            torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=1e-3)
